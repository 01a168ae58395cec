"""Linear maps: of the convex programs over cells, and of low-rank observations."""
