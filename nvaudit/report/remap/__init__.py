"""The report of a hardening without training, and its renderers."""
