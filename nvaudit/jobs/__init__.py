"""The use cases, one file for each: what the command line and the Python interface call."""
