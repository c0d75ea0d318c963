"""Hardware-aware training: the forward pass through crossbars and their converters."""
