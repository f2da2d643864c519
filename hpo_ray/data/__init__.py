"""Data: what the trials learn from. `checks` reads folders without torch, `images` decodes, splits and batches."""
