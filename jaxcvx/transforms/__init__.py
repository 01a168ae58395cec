"""Annealed noise and spheres as optax transformations; optax itself is imported where one is built."""
