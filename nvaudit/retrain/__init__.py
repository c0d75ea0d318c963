"""The graph in torch, training with device noise, write-back: the only package that knows torch."""
