"""Indices of formulas written as plain text: ``x_t``, ``t_{n+1}``, ``h^p``, for HTML and plots.

An index hangs on a single letter, with or without a ``d`` before it, so that a name such as
``rectified_flow`` stays as it is. Text between backticks is code.
"""

from __future__ import annotations

import html
import re

_INDEX = r"(?:\{([^}]*)\}|([A-Za-z0-9α-ω]+))"
_LOWER = re.compile(r"(?<!\w)(d?[\w∇])_" + _INDEX)
_UPPER = re.compile(r"\^" + _INDEX)
_CODE = re.compile(r"`([^`]*)`")


def to_html(text: str) -> str:
    """The text with ``<sub>``, ``<sup>`` and ``<code>``; everything else is escaped."""
    text = html.escape(text, quote=False).replace("'", "’")
    text = _LOWER.sub(lambda m: f"{m[1]}<sub>{m[2] or m[3]}</sub>", text)
    text = _UPPER.sub(lambda m: f"<sup>{m[1] or m[2]}</sup>", text)
    return _CODE.sub(r"<code>\1</code>", text)


def to_mathtext(text: str) -> str:
    """The text with its indices as matplotlib writes them."""
    return _LOWER.sub(lambda m: f"{m[1]}$_{{\\mathrm{{{m[2] or m[3]}}}}}$", text)
