"""Callbacks for ``solve``: progress bar and checkpoint."""
