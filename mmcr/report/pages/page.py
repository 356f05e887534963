"""What all HTML pages share: one style, and figures whose text is text."""

import io
import re
from html import escape
from pathlib import Path

import matplotlib
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.figure import Figure

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def svg(figure: Figure, meaning: str) -> Markup:
    """The figure as an SVG element, its text as text."""
    file = io.StringIO()
    no_metadata = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'mmcr'}):
        figure.savefig(file, format='svg', metadata=no_metadata)
    text = file.getvalue()
    label = f'<svg aria-label="{escape(meaning)}"'
    text = text[text.index('<svg') :].replace('<svg', label, 1)
    # matplotlib numbers its groups anew in every figure
    return Markup(re.sub(r' id="[A-Za-z0-9]+_\d+"', '', text))
