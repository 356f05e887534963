"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[int]
) -> str:
    """A Markdown table; the columns whose numbers are in `words` hold no figures."""
    rule = ['---' if i in words else '---:' for i in range(len(columns))]
    lines = (columns, rule, *rows)
    return ''.join(f'| {" | ".join(map(_cell, line))} |\n' for line in lines)


def _cell(text: str) -> str:
    return ' '.join(text.split()).replace('|', r'\|')
