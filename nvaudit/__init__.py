"""Audit any ONNX model for non-volatile compute-in-memory hardware."""

__version__ = "0.1.0"
