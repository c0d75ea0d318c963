"""Crossbars in the graph: products split over them, converters, recurrent layers written out."""
