"""Hardening without training: the same function on narrower ranges. Pure functions on arrays."""
