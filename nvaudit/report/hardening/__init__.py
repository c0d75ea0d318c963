"""The report of a hardening, and its renderers."""
