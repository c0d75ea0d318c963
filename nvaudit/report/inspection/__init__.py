"""What of a model is on the array, before anything is run."""
