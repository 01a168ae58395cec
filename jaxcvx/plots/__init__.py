"""Pictures of a solve and of its result, as PNG files. They need matplotlib, which is imported only for drawing."""

from __future__ import annotations

from jaxcvx.plots.beta_path import path
from jaxcvx.plots.convergence import plot_convergence
from jaxcvx.plots.effects import effects
from jaxcvx.plots.geometry import plot_fits, plot_gap_against_width, plot_rectified_ellipsoid
from jaxcvx.plots.proof import proof
from jaxcvx.plots.regions import plot_regions

__all__ = [
    "effects",
    "path",
    "plot_convergence",
    "plot_fits",
    "plot_gap_against_width",
    "plot_rectified_ellipsoid",
    "plot_regions",
    "proof",
]
