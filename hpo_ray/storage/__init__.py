"""A run's second home at a URI: where it is, what is copied there, and how it is taken up again from there."""
