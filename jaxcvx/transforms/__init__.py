"""optax transformations: annealed noise, unit spheres, and descent for low-rank factors."""
