"""Algorithms that know no network: accelerated proximal gradient, SSNAL, an interior point method."""
