"""From weights to conductances: selection, quantisation, bit slices, conductance levels. Pure functions."""
