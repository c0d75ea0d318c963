"""Reports of what goes to a laboratory and comes back: mappings, measured chips, fits, calibrations."""
