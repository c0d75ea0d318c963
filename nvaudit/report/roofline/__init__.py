"""The report of a roofline, and its renderers."""
