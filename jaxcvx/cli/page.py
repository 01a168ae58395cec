"""The report of a run as one HTML page that needs nothing else: no network, no script, pictures inside."""

from __future__ import annotations

import base64
import importlib.resources
from typing import Any

from jaxcvx.cli.pipeline import percent
from jaxcvx.cli.report import own_seconds, score_text_of
from jaxcvx.errors import require_extra

TEXTS = {
    "path": (
        "The path of weight decays",
        "From the right to the left the weight decay beta falls and the network grows; the score on the rows that were "
        "left out chooses among them.",
    ),
    "proof": (
        "The proof",
        "The upper line is the training objective of this network; no two-layer ReLU network of any width is below the "
        "lower line.",
    ),
    "effects": (
        "What the network learned",
        "Each panel shows the mean prediction if one of the strongest features is set to a value in all rows.",
    ),
    "regions": (
        "Decision regions",
        "The background is the predicted class; a neuron switches on at each line, a stronger one at a darker line.",
    ),
}
RULES = {
    "best": "best score in the folds",
    "one_standard_error": "one standard error",
    "given": "given",
}
DASH = "–"
# CSS pixels for a pixel of a picture, which has 150 to the inch: texts of 9 points stay between 8.5 and 12 pixels.
_SMALLEST, _LARGEST = 0.45, 0.64


def page(report: dict[str, Any], pictures: dict[str, bytes]) -> str:
    """The page of a report.

    Args:
      report: as ``jaxcvx.cli.report.build_report`` makes it; numbers may be None, which is shown as a dash.
      pictures: PNG files by name: "path", "proof", "effects", "regions"; some may be missing.

    Raises:
      MissingExtraError: jinja2 is not installed.
    """
    jinja2: Any = require_extra("jinja2", "cli")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "number": number,
        "signed": lambda value, form: DASH if value is None else f"{value:+{form}}".replace("-", "−"),
        "percent": lambda gap: DASH if gap is None else percent(gap),
        "seconds": lambda value: DASH if value is None else f"{value:.1f}",
        "dash": lambda value: DASH if value is None else value,
    }
    template = environment.from_string(importlib.resources.files("jaxcvx.cli").joinpath("page.html.j2").read_text())
    return template.render(
        report=report,
        pictures=[picture(name, pictures[name]) for name in TEXTS if name in pictures],
        score_name=score_text_of(report).replace("R2", "R²"),
        rule=RULES.get(report["rule"], report["rule"]),
        own_seconds=own_seconds(report),
        phases={name: s for name, s in report["seconds"].items() if name not in ("compiling", "total")},
    )


def picture(name: str, png: bytes) -> dict[str, Any]:
    """Texts, data and sizes of a picture; least and largest are widths in CSS pixels."""
    title, text = TEXTS[name]
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of the PNG's first chunk
    return {
        "name": name,
        "title": title,
        "text": text,
        "data": base64.b64encode(png).decode(),
        "width": width,
        "height": height,
        "least": round(_SMALLEST * width),
        "largest": round(_LARGEST * width),
    }


def number(value: Any, digits: int = 4) -> str:
    """A number with so many significant digits, or a dash for None."""
    if value is None:
        return DASH
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"
