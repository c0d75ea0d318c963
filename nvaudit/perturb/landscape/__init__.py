"""The loss over a plane of weights: directions, the loss, and what workers run."""
