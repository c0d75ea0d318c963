"""What a model costs in hardware."""
