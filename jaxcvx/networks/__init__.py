"""Two-layer ReLU networks: prediction, training objective, simplification, recovery from the convex programs."""
