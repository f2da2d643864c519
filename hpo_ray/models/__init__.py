"""Models: `names` knows which architectures exist without importing torch, `vision` builds them."""
