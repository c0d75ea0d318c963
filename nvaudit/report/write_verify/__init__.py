"""The report of a write-verify plan, and its renderers."""
