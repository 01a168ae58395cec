"""Two-layer ReLU networks: prediction, training objective, balancing, merging, pruning, recovery."""
