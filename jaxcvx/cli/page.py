"""The report of a run as one HTML page that needs nothing else: no network, no script, pictures inside."""

from __future__ import annotations

import base64
import importlib.resources
from typing import Any

from jaxcvx.cli.pipeline import percent
from jaxcvx.cli.report import own_seconds
from jaxcvx.errors import require_extra

TEXTS = {
    "path": (
        "The path of weight decays",
        "From the right to the left the weight decay beta falls and the network grows. The score of the rows that were "
        "left out chooses it.",
    ),
    "proof": (
        "The proof",
        "The upper line is the training objective of this network. No two-layer ReLU network of any width is below the "
        "lower line. The search closes the gap between them.",
    ),
    "effects": (
        "What the network learned",
        "Each panel shows the mean prediction if one of the strongest features is set to a value in all rows.",
    ),
    "regions": (
        "Decision regions",
        "The background is the predicted class. A neuron switches on at each line; darker lines are stronger neurons.",
    ),
}


def page(report: dict[str, Any], pictures: dict[str, bytes]) -> str:
    """The page of a report.

    Args:
      report: as ``jaxcvx.cli.report.build_report`` makes it.
      pictures: PNG files by name: "path", "proof", "effects", "regions"; some may be missing.

    Raises:
      MissingExtraError: jinja2 is not installed.
    """
    jinja2: Any = require_extra("jinja2", "cli")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "percent": lambda gap: "–" if gap is None else percent(gap)}
    template = environment.from_string(importlib.resources.files("jaxcvx.cli").joinpath("page.html.j2").read_text())
    shown = [
        {"name": name, "title": title, "text": text, "data": base64.b64encode(pictures[name]).decode()}
        for name, (title, text) in TEXTS.items()
        if name in pictures
    ]
    return template.render(
        report=report,
        pictures=shown,
        score_name=report["scoring"].replace("r2", "R²"),
        own_seconds=own_seconds(report),
    )


def number(value: Any, digits: int = 4) -> str:
    """A number with so many significant digits, or a dash for None."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"
