"""A search told on one HTML page: settings, best architecture, every score."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mmcr.analysis.comparison import COCO_COLUMNS, coco_points, dilation_digits
from mmcr.analysis.sketch import COLOURS, INK, QUIET, Network, architecture_figure
from mmcr.atomic import write_bytes
from mmcr.search import JournalError
from mmcr.space import Arch, ArchError, dilations_of, stage_blocks_of

SHOWN = 50  # candidates in the ranking
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2530; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p, caption { color: #5c6873; } strong { color: #1c2530; }
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


@dataclass(frozen=True)
class Scored:
    """One line of the journal."""

    arch: Arch
    score: float
    metrics: Mapping[str, float | None]
    on_all_images: bool


@dataclass(frozen=True)
class Search:
    """What a work dir tells about its search.

    Attributes:
        name: Of the work dir.
        header: The journal's: what the search depends on.
        trials: In the order in which they were scored.
        finished: Whether the search has written its result.
    """

    name: str
    header: dict
    trials: Sequence[Scored]
    finished: bool

    @property
    def ranking(self) -> list[Scored]:
        """Complete architectures by falling score; of equals the earlier first."""
        complete = [
            t
            for t in self.trials
            if len(t.arch) == len(self.choices) and t.on_all_images
        ]
        return sorted(complete, key=lambda trial: -trial.score)

    @property
    def steps(self) -> dict[int, list[Scored]]:
        """Trials by the number of decided choices, each by falling score."""
        trials = sorted(self.trials, key=lambda trial: (len(trial.arch), -trial.score))
        return {n: list(step) for n, step in groupby(trials, lambda t: len(t.arch))}

    @property
    def choices(self) -> Mapping[str, Sequence[int]]:
        return self.header['space']['choices']

    @property
    def kept(self) -> int | None:
        """How many partial architectures the search keeps; ``None``: it has none."""
        return self.header['searcher'].get('k')

    @property
    def score(self) -> str:
        """Name of the score."""
        return self.header.get('score', 'score')

    @property
    def scale(self) -> int:
        """What scores are multiplied by to show them: AP in points of 100."""
        return 100 if 'mAP' in self.score else 1

    def shown(self, trial: Scored) -> str:
        """A score at the precision of the page."""
        return f'{self.scale * trial.score:{".2f" if self.scale == 100 else ".4g"}}'


def read_search(work_dir: str | Path) -> Search:
    """Reads a search's journal, also while the search runs.

    Raises:
        JournalError: There is no journal, or it is damaged.
    """
    work_dir = Path(work_dir)
    path = work_dir / 'trials.jsonl'
    if not path.is_file():
        raise JournalError(
            f'The work dir of a search holds trials.jsonl, but there is '
            f'none in {work_dir}. Name the work dir of tools/search.py.'
        )
    records = []
    # what follows the last line break is still being written
    lines = path.read_bytes().split(b'\n')[:-1]
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_scored(line) if records else json.loads(line))
        except (ValueError, KeyError, TypeError):
            raise JournalError(f'Line {number} of {path} is damaged.') from None
    if not records or not {'space', 'searcher'} <= set(records[0]):
        raise JournalError(
            f'{path} must begin with the header of a search, but does not.'
        )
    return Search(
        work_dir.resolve().name,
        records[0],
        records[1:],
        (work_dir / 'best_arch.json').is_file(),
    )


def _scored(line: bytes) -> Scored:
    entry = json.loads(line)
    return Scored(
        Arch.from_json(entry['candidate']['arch']),
        float(entry['score']),
        entry['metrics'],
        entry['portion'] == [0, 1],
    )


def write_report(work_dir: str | Path) -> Path:
    """Writes ``report.html`` of a finished or running search into its work dir.

    The page needs no other file and no network.

    Returns:
        The path of the page.

    Raises:
        JournalError: There is no journal, or it is damaged.
    """
    search = read_search(work_dir)
    title = f'Search report: {escape(search.name)}'
    state = (
        'The search has finished.'
        if search.finished
        else 'The search is not finished: what follows is its state so far.'
    )
    body = [
        f'<h1>{title}</h1>',
        f'<p>{state} {len(search.trials)} candidates have been scored.</p>',
    ]
    if search.ranking:
        best = search.ranking[0]
        body.append(
            f'<p>Best architecture: <strong>{escape(arch_text(best.arch))}'
            f'</strong> with {escape(search.score)} <strong>'
            f'{search.shown(best)}</strong> on archval, with weights of the '
            'supernet.</p>'
        )
        if network := network_of(best.arch):
            body.append(_svg(architecture_figure([network]), 'the best architecture'))
    if search.trials:
        body += ['<h2>Scores</h2>', _svg(score_figure(search), 'the scores')]
    if search.ranking:
        body += ['<h2>Ranking</h2>', _ranking(search)]
    if len(search.steps) > 1:
        body += ['<h2>Steps</h2>', _steps(search)]
    settings = _table(['setting', 'value'], _settings(search.header), text=(0, 1))
    body += ['<h2>Settings</h2>', settings]
    path = Path(work_dir) / 'report.html'
    page = PAGE.format(title=title, style=STYLE, body='\n'.join(body))
    write_bytes(path, page.encode())
    return path


def network_of(arch: Arch) -> Network | None:
    """The network that a stage or dilation architecture describes, for a sketch."""
    name = 'Best architecture'
    try:
        return Network(name, stage_blocks_of(arch))
    except ArchError:
        pass
    try:
        dilations = dilations_of(arch)
    except ArchError:
        return None
    return Network(name, [len(stage) for stage in dilations], dilations)


def arch_text(arch: Arch) -> str:
    """Blocks per stage, or dilations as digits with a space between stages."""
    network = network_of(arch)
    if network is None:
        return str(arch)
    if network.dilations is None:
        return str(list(network.stage_blocks))
    return dilation_digits(network.rates)


def score_figure(search: Search) -> Figure:
    """Scores by step where the search has steps, and by rank where it has none."""
    figure = Figure(figsize=(9, 3.4), layout='constrained')
    axes = figure.add_subplot()
    steps = search.steps
    marks = dict(s=26, linewidths=1, zorder=2)
    if len(steps) > 1:
        for step, trials in steps.items():
            last = step == len(search.choices)
            kept = 1 if last else search.kept or 0
            scores = [search.scale * trial.score for trial in trials]
            axes.scatter(
                [step] * len(scores[kept:]),
                scores[kept:],
                facecolors='white',
                edgecolors=QUIET,
                **marks,
            )
            axes.scatter(
                [step] * len(scores[:kept]), scores[:kept], color=COLOURS[3], **marks
            )
        axes.set_xlabel(
            'choices decided (filled: the best, which the next step extends)'
        )
        axes.set_xlim(0, len(search.choices) + 1)
    else:
        scores = [search.scale * trial.score for trial in next(iter(steps.values()))]
        axes.scatter(range(2, len(scores) + 1), scores[1:], color=COLOURS[1], **marks)
        axes.scatter([1], scores[:1], color=COLOURS[3], **marks)
        axes.set_xlabel('rank')
    axes.set_ylabel(
        search.score + (' (points)' if search.scale == 100 else ''), color=INK
    )
    axes.grid(axis='y', color='#e3e7ea', linewidth=0.8)
    axes.spines[['top', 'right']].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _ranking(search: Search) -> str:
    kind = 'segm' if 'segm' in search.score else 'bbox'
    ranking = search.ranking[:SHOWN]
    points = [coco_points(trial.metrics, kind) for trial in ranking]
    own = next(
        (
            column
            for column, name in COCO_COLUMNS.items()
            if search.score.endswith(f'{kind}_{name}')
        ),
        None,
    )
    columns = [
        column
        for column in COCO_COLUMNS
        if column != own and any(p[column] is not None for p in points)
    ]
    rows = [
        [
            str(rank),
            arch_text(trial.arch),
            search.shown(trial),
            *('-' if p[column] is None else f'{p[column]:.2f}' for column in columns),
        ]
        for rank, (trial, p) in enumerate(zip(ranking, points), start=1)
    ]
    more = len(search.ranking) - len(ranking)
    table = _table(['rank', 'architecture', search.score, *columns], rows, text=(1,))
    return table + (f'<p>and {more} more, in trials.jsonl</p>' if more else '')


def _steps(search: Search) -> str:
    rows = [
        [
            str(step),
            str(len(trials)),
            arch_text(trials[0].arch),
            search.shown(trials[0]),
        ]
        for step, trials in search.steps.items()
    ]
    return (
        '<p>What is not decided yet is completed at random, anew for every '
        'mini-batch.</p>'
        + _table(['decided', 'candidates', 'best', search.score], rows, text=(2,))
    )


def _settings(header: Mapping, name: str = '') -> list[list[str]]:
    rows = []
    for key, value in header.items():
        field = f'{name}{key}'
        if field == 'space.choices':
            for values, same in groupby(value, value.get):
                same = list(same)
                label = (
                    same[0]
                    if len(same) == 1
                    else (f'{same[0]} to {same[-1]} ({len(same)} choices)')
                )
                rows.append([label, ', '.join(map(str, values))])
        elif isinstance(value, Mapping):
            rows += _settings(value, f'{field}.')
        else:
            text = str(value)
            is_digest = re.fullmatch('[0-9a-f]{32,}', text)
            rows.append([field, f'{text[:12]}…' if is_digest else text])
    return rows


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int]
) -> str:
    """An HTML table; the columns whose numbers are in `text` hold words."""

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
    return '<div class="wide"><table>\n' + '\n'.join(lines) + '\n</table></div>'


def _svg(figure: Figure, meaning: str) -> str:
    """The figure as an SVG element, its text as text."""
    file = io.StringIO()
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'mmcr'}):
        figure.savefig(
            file,
            format='svg',
            metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')),
        )
    svg = file.getvalue()
    svg = svg[svg.index('<svg') :].replace('<svg', f'<svg aria-label="{meaning}"', 1)
    # matplotlib numbers its groups anew in every figure
    return re.sub(r' id="[A-Za-z0-9]+_\d+"', '', svg)
