"""The report of a loss landscape, and its renderers."""
