"""Optimisation problems as frozen pytrees: they hold data, loss and regularisation."""
