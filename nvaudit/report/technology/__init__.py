"""Technology profiles."""
