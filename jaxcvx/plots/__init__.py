"""Pictures of a solve and of its result, as PNG files. Needs matplotlib, imported when a picture is drawn."""

from __future__ import annotations

from jaxcvx.plots.convergence import plot_convergence
from jaxcvx.plots.regions import plot_regions

__all__ = ["plot_convergence", "plot_regions"]
