"""Shows the doctests of docstrings as code, under the heading "Example:" and without a heading."""

from __future__ import annotations

import re

import griffe

HEADING = re.compile(r"^Example:$", re.MULTILINE)
PARAGRAPH = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)  # up to the next empty line


class Doctests(griffe.Extension):
    """Adds the marks that make doctests code, because griffe looks for them in the section "Examples:" only."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring:
            text = PARAGRAPH.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
            obj.docstring.value = HEADING.sub("Examples:", text)
