"""One HTML page that needs no other file and no network."""

import io
import re
from collections.abc import Sequence
from html import escape

import matplotlib
from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2530; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
p, caption, summary { color: #5c6873; } strong { color: #1c2530; }
caption { text-align: left; } details { margin: .4rem 0; } summary { cursor: pointer; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #e3e7ea; }
th { border-bottom-color: #5c6873; font-weight: 600; }
.text { text-align: left; overflow-wrap: anywhere; }
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(title: str, body: Sequence[str]) -> str:
    """The whole page.

    Args:
        title: As plain text.
        body: Its parts as HTML, below the title.
    """
    title = escape(title)
    return PAGE.format(
        title=title, style=STYLE, body='\n'.join([f'<h1>{title}</h1>', *body])
    )


def folded(summary: str, body: str) -> str:
    """HTML that opens with a click on its summary, a plain text."""
    return f'<details><summary>{escape(summary)}</summary>\n{body}\n</details>'


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    text: Sequence[int],
    caption: str = '',
) -> str:
    """A table of plain texts; the columns whose numbers are in `text` hold words."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return (
            '<tr>'
            + ''.join(
                f'<{tag} class="text">{escape(cell)}</{tag}>'
                if i in text
                else f'<{tag}>{escape(cell)}</{tag}>'
                for i, cell in enumerate(cells)
            )
            + '</tr>'
        )

    lines = [line('th', columns), *(line('td', row) for row in rows)]
    if caption:
        lines.insert(0, f'<caption>{escape(caption)}</caption>')
    return '<div class="wide"><table>\n' + '\n'.join(lines) + '\n</table></div>'


def svg(figure: Figure, meaning: str) -> str:
    """The figure as an SVG element, its text as text."""
    file = io.StringIO()
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'mmcr'}):
        figure.savefig(
            file,
            format='svg',
            metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')),
        )
    text = file.getvalue()
    label = f'<svg aria-label="{escape(meaning)}"'
    text = text[text.index('<svg') :].replace('<svg', label, 1)
    # matplotlib numbers its groups anew in every figure
    return re.sub(r' id="[A-Za-z0-9]+_\d+"', '', text)
