"""The mathematics of GP-EI: kernel, surrogate, acquisition, maximiser. Arrays in, arrays out; no Ray, no names."""
