"""A search told on one HTML page: settings, best architectures, every score."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

from mmcr.files import write_bytes
from mmcr.report.arch_words import arch_text, network_of
from mmcr.report.comparison import COCO_COLUMNS, coco_points
from mmcr.report.course import NUMBERED, Course, Scored, Step, courses_of
from mmcr.report.page import folded, page, svg, table
from mmcr.report.score_figure import front_figure, score_figure
from mmcr.report.sketch import DILATIONS, KINDS, Legend, architecture_figure
from mmcr.report.slices import ALL, Portions, Slices
from mmcr.search import JournalError, read_journal
from mmcr.space import Arch

SHOWN = 50  # candidates in a ranking


@dataclass(frozen=True)
class Search:
    """What a work dir tells about its search.

    Attributes:
        name: Of the work dir.
        header: The journal's: what the search depends on.
        courses: One for each budget.
        candidates: How many have a score on some part of archval.
        trials: How many scores there are.
        finished: Whether the search has written all its results.
    """

    name: str
    header: dict
    courses: Sequence[Course]
    candidates: int
    trials: int
    finished: bool

    @property
    def score(self) -> str:
        """Name of the score."""
        return self.header.get('score', 'score')

    @property
    def scale(self) -> int:
        """What scores are multiplied by to show them: AP in points of 100."""
        return 100 if 'mAP' in self.score else 1

    def shown(self, scored: Scored) -> str:
        """A score at the precision of the page."""
        return f'{self.scale * scored.score:{".2f" if self.scale == 100 else ".4g"}}'

    def text(self, arch: Arch) -> str:
        """An architecture in words."""
        return arch_text(arch, self.legend)

    @property
    def legend(self) -> Legend:
        """What values of blocks are: kinds count from 0, dilations from 1."""
        choices = self.header['space']['choices'].values()
        return KINDS if any(0 in values for values in choices) else DILATIONS

    @property
    def slices(self) -> Slices:
        """What the slices of archval are called."""
        archval = self.header.get('archval')
        if not isinstance(archval, Mapping):
            return Slices()
        return Slices(archval.get('images'), archval.get('batch_size', 1))


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
    header, entries = read_journal(path)
    if not {'space', 'searcher'} <= set(header):
        raise JournalError(
            f'{path} must begin with the header of a search, but does not.'
        )
    courses = courses_of(header, entries)
    folders = header['searcher'].get('searchers', [''])
    return Search(
        work_dir.resolve().name,
        header,
        courses,
        len({str(entry['candidate']) for entry in entries}),
        len(entries),
        all(course.finished for course in courses)
        and all((work_dir / name / 'best_arch.json').is_file() for name in folders),
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
    state = (
        'The search has finished.'
        if search.finished
        else 'The search is not finished: what follows is its state so far.'
    )
    trials = f', in {search.trials} trials' * (search.trials > search.candidates)
    body = [f'<p>{state} {search.candidates} candidates have been scored{trials}.</p>']
    if len(search.courses) == 1:
        body += _course(search, search.courses[0], 'h2')
    else:
        body += ['<h2>Budgets</h2>', _budgets(search)]
        for course in search.courses:
            body.append(f'<h2>{escape(_title(course))}</h2>')
            body += _course(search, course, 'h3')
    settings = table(['setting', 'value'], _settings(search.header), text=(0, 1))
    body += ['<h2>Settings</h2>', settings]
    path = Path(work_dir) / 'report.html'
    write_bytes(path, page(f'Search report: {search.name}', body).encode())
    return path


def _title(course: Course) -> str:
    return f'Budget {course.name.removeprefix("budget_")}'


def _budgets(search: Search) -> str:
    rows = []
    for course in search.courses:
        best = course.ranking[0] if course.ranking else None
        low, high = course.budget or ('-', '-')
        rows.append(
            [
                _title(course).removeprefix('Budget '),
                f'{low}' if low == high else f'{low} to {high}',
                str(len({s.arch for step in course.steps for s in step.scored})),
                search.text(best.arch) if best else '-',
                search.shown(best) if best else '-',
            ]
        )
    columns = ['budget', 'cost', 'candidates', 'best architecture', search.score]
    words = f'Scores of the best on {search.slices.words(ALL)}.'
    return table(columns, rows, text=(0, 3), caption=words)


def _course(search: Search, course: Course, heading: str) -> Iterator[str]:
    """The parts of the page on the search under one budget."""
    ranking = course.ranking
    if ranking:
        best = ranking[0]
        yield (
            f'<p>Best architecture: <strong>{escape(search.text(best.arch))}'
            f'</strong> with {escape(search.score)} <strong>'
            f'{search.shown(best)}</strong> on {search.slices.words(ALL)} of archval, '
            'with weights of the supernet.</p>'
        )
        network = network_of(best.arch, search.legend)
        if network is not None:
            yield svg(architecture_figure([network]), 'the best architecture')
    if course.steps:
        yield f'<{heading}>Scores</{heading}>'
        yield svg(score_figure(course, search.score, search.scale), 'the scores')
    if ranking and course.costs:
        yield f'<{heading}>Front</{heading}>'
        yield svg(front_figure(course, search.score, search.scale), 'the front')
        yield _front(search, course)
    if ranking:
        yield f'<{heading}>Ranking</{heading}>'
        yield _ranking(search, ranking, ALL)
    if course.steps and (len(course.steps) > 1 or not ranking):
        name = NUMBERED.get(course.kind, 'step')
        yield f'<{heading}>{name.title()}s</{heading}>'
        yield from _steps(search, course)


def _front(search: Search, course: Course) -> str:
    rows = [
        [
            str(i),
            search.text(each.arch),
            f'{course.costs[each.arch]:,}',
            search.shown(each),
        ]
        for i, each in enumerate(course.front)
    ]
    return table(
        ['front/', 'architecture', course.unit, search.score],
        rows,
        text=(1,),
        caption='The best at every cost: no other has as high a score for less. '
        'The first column names the folder with the config fragment.',
    )


def _ranking(
    search: Search,
    scored: Sequence[Scored],
    portions: Portions,
    kept: frozenset[Arch] | None = None,
) -> str:
    """Ranks candidates that were all scored on the same slices."""
    kind = 'segm' if 'segm' in search.score else 'bbox'
    top = scored[:SHOWN]
    points = [coco_points(each.metrics, kind) for each in top]
    own = next(
        (
            column
            for column, name in COCO_COLUMNS.items()
            if search.score.endswith(f'{kind}_{name}')
        ),
        None,
    )
    shown = [
        column
        for column in COCO_COLUMNS
        if column != own and any(p[column] is not None for p in points)
    ]
    rows = [
        [
            str(rank),
            search.text(each.arch),
            search.shown(each),
            *('-' if p[column] is None else f'{p[column]:.2f}' for column in shown),
            *(['' if each.arch not in kept else 'yes'] if kept is not None else []),
        ]
        for rank, (each, p) in enumerate(zip(top, points), start=1)
    ]
    score = search.score if len(portions) == 1 else f'mean {search.score}'
    columns = ['rank', 'architecture', score, *shown]
    if kept is not None:
        columns.append('went on')
    words = f'Scored on {search.slices.words(portions)} of archval.'
    more = len(scored) - len(top)
    return table(columns, rows, text=(1,), caption=words) + (
        f'<p>and {more} more, in trials.jsonl</p>' if more else ''
    )


def _steps(search: Search, course: Course) -> Iterator[str]:
    if course.kind == 'halving':
        yield (
            '<p>Every candidate enters the first rung; the best of a rung go on to '
            'the next and are scored on more images. The first images are those of '
            'a random order.</p>'
        )
    elif course.kind == 'evolution':
        aims = 'score and cost' if course.costs else 'score'
        yield (
            f'<p>The first generation is drawn at random, and so is a part of the '
            f'others; the rest is bred from the best in {aims} of all before it. Those '
            f'that went on are among its parents.</p>'
        )
    elif course.kind in ('greedy', 'racing'):
        yield (
            '<p>What is not decided yet is completed at random, anew for every '
            'mini-batch.</p>'
        )
    if course.kind == 'racing':
        yield (
            '<p>The candidates of a step race over slices of archval, which are '
            'parts of a random order of its images. Scores are means over the slices '
            'that a candidate has run on; they compare among candidates with the '
            'same slices only, and are ranked among these.</p>'
        )
    rows = []
    for step in course.steps:
        (_, (best, *_)), *_ = step.rankings.items()
        asked = len(step.scored)
        rows.append(
            [
                course.label(step),
                f'{asked}' if asked == step.asked else f'{asked} of {step.asked}',
                '; '.join(_shares(search, step)),
                '-' if step.kept is None else str(len(step.kept)),
                search.text(best.arch),
                search.shown(best),
            ]
        )
    first = NUMBERED.get(course.kind, 'decided')
    columns = [first, 'candidates', 'scored on', 'went on', 'best', search.score]
    yield table(columns, rows, text=(2, 4))
    for step in course.steps:
        if step.on_all and step.decided == course.choices:
            continue  # the ranking has them
        tables = [
            _ranking(search, scored, portions, step.kept)
            for portions, scored in step.rankings.items()
        ]
        yield folded(f'{first} {course.label(step)}', '\n'.join(tables))


def _shares(search: Search, step: Step) -> Iterator[str]:
    """What the candidates of a step were scored on, and how many on what."""
    for portions, scored in step.rankings.items():
        words = search.slices.words(portions)
        yield words if len(step.rankings) == 1 else f'{len(scored)} on {words}'


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
        elif field.endswith('.space.choices'):
            pass  # every budget has the same
        elif key == 'costs':
            for choice, costs in value.items():
                text = ', '.join(f'{v}: {cost}' for v, cost in costs.items())
                rows.append([f'{field}.{choice}', text])
        elif isinstance(value, Mapping):
            rows += _settings(value, f'{field}.')
        else:
            text = str(value)
            is_digest = re.fullmatch('[0-9a-f]{32,}', text)
            rows.append([field, f'{text[:12]}…' if is_digest else text])
    return rows
