"""Scales of channels and means of layers: where they may change, and how the change is written."""
