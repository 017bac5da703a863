"""Docstrings for Markdown: indexed names such as r2[group][probe] become code, not links."""

import re
from typing import Any

import griffe

_INDEXED = re.compile(r"(?<!`)(?<!\S)(\w*(?:\[(?:[^\[\]`]|\[[^\[\]]*\])+\]){2,})")


class IndexedNames(griffe.Extension):
    """Put indexed names in backticks."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change an object's docstring."""
        if obj.docstring:
            obj.docstring.value = _INDEXED.sub(r"`\1`", obj.docstring.value)
