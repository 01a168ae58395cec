"""Convex losses with their conjugates, and the targets they take."""
