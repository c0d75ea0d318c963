"""The comparison of models: ranks, differences, and its renderers."""
