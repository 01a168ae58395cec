"""Fits for given neurons: output weights as a group lasso, and the rounding of relaxations to networks."""
