"""The most violated dual constraint: the unit neuron u with the largest ||R^T (Z u)_+||."""
