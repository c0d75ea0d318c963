"""Simulated chips: noise laws, drawn weights, ONNX Runtime sessions, Monte-Carlo."""
