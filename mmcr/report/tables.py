"""Tables in Markdown, and the files that hold them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmcr.files import write_bytes


def write_results(folder: str | Path, name: str, text: str, record: Mapping) -> None:
    """Writes Markdown for readers and JSON for programs, of one name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f'{name}.md', text.encode())
    written = json.dumps(record, indent=2, allow_nan=False) + '\n'
    write_bytes(folder / f'{name}.json', written.encode())


def markdown_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[int]
) -> str:
    """A Markdown table; the columns whose numbers are in `words` hold no figures."""
    rule = ['---' if i in words else '---:' for i in range(len(columns))]
    lines = (columns, rule, *rows)
    return ''.join(f'| {" | ".join(map(_cell, line))} |\n' for line in lines)


def _cell(text: str) -> str:
    return ' '.join(text.split()).replace('|', r'\|')
