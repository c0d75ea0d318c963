"""What the configuration file says."""
