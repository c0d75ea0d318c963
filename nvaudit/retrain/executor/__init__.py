"""Any ONNX graph as a trainable torch module."""
