"""How the site is built: python3 run.py docs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import reference  # noqa: E402

from fewstep.version import __version__  # noqa: E402

project = "fewstep"
author = "The fewstep developers"
copyright = "The fewstep developers, MIT licence"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "pictures/*.py"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
highlight_language = "none"

# Docstrings are Google's, with formulas between double backticks and names between single ones.
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "fewstep"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False


def setup(app: Sphinx) -> None:
    """What is done besides: the pages of the reference, and files of the project beside docs/."""
    app.connect("builder-inited", lambda app: reference.write(HERE / "reference"))
    app.connect("source-read", with_downloads)
    app.connect("autodoc-process-docstring", reference.as_restructured)


def with_downloads(app: Sphinx, name: str, text: list[str]) -> None:
    """Links that lead out of the documentation hand out the file that they lead to."""
    text[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)]+)\)", r"{download}`\1 <\2>`", text[0])
