"""Training in plain torch: one epoch, optimizers, evaluation, checkpoints."""
