"""Linear maps: those of the convex programs over cells, and those that observe low-rank matrices."""
