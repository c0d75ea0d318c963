"""The version, which everything that writes a file states."""

__version__ = "0.1.0"
