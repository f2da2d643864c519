"""Models: `names` knows which architectures exist without importing torch, `vision` builds them.

`heads` and `trunk` part a classifier in two, `groups` and `freezing` its layers by depth; `norms` swaps BatchNorm,
`preprocessing` says what weights expect of an image. Knows nothing of data, training loops or Ray.
"""
