"""Figures by plotly, for pages that open offline; plotly is loaded when a figure is made."""
