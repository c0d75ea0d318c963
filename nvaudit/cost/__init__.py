"""What a model costs on crossbars: energy, latency and area, from a technology profile."""
