"""Shows the section "Example:" of docstrings as code, like "Examples:"."""

from __future__ import annotations

import re

import griffe


class Examples(griffe.Extension):
    """Renames the section, because griffe takes doctests for code in "Examples:" only."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
