"""Callbacks for ``solve``: a progress display and a checkpoint file."""
