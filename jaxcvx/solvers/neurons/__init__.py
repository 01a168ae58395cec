"""Programs for given neurons: output weights by a group lasso, and ReLU networks from solutions of relaxations."""
