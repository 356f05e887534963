"""A search told on one HTML page: settings, best architectures, every score."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import TemplateError
from markupsafe import Markup

from mmcr.errors import UserError
from mmcr.files import read_state, write_bytes
from mmcr.report.comparison import COCO_COLUMNS, coco_points
from mmcr.report.history import History, Scored, histories
from mmcr.report.pages.page import TEMPLATES, svg
from mmcr.report.score_figure import front_figure, score_figure
from mmcr.report.sketch import DILATIONS, KINDS, Network, architecture_figure
from mmcr.report.slices import ALL, Slices
from mmcr.search import JournalError, read_journal
from mmcr.search.candidate import proposal_key
from mmcr.search.journal import UNREADABLE
from mmcr.space import Arch, ArchError, dilations_of, stage_blocks_of


@dataclass(frozen=True)
class Search:
    """What a work dir tells about its search."""

    folder: Path  # the work dir
    header: Mapping  # of the journal: what the search depends on
    histories: Sequence[History]  # one for each budget
    candidates: int  # how many have a score on some part of archval
    trials: int  # how many scores there are
    finished: bool  # whether the search has written all its results
    baseline: Arch | None = None  # to be marked where it is ranked

    @property
    def name(self) -> str:
        """Of the work dir."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """What COCO's metrics are of: ``bbox`` or ``segm``."""
        return 'segm' if 'segm' in self._score else 'bbox'

    @property
    def score(self) -> str:
        """Name of the score, in short where it is one of COCO's columns."""
        names = {f'{self.kind}_{name}': col for col, name in COCO_COLUMNS.items()}
        return names.get(self._score.split('/')[-1], self._score)

    @property
    def _score(self) -> str:
        return self.header.get('score', 'score')

    @property
    def scale(self) -> int:
        """What scores are multiplied by to show them: AP in points of 100."""
        return 100 if 'mAP' in self._score else 1

    def shown(self, scored: Scored) -> str:
        """A score at the precision of the page."""
        return f'{self.scale * scored.score:{".2f" if self.scale == 100 else ".4g"}}'

    def network(self, arch: Arch) -> Network | None:
        """What an architecture of stages or of blocks, complete or not, describes."""
        name = 'Best architecture'
        with suppress(ArchError):
            return Network(name, stage_blocks_of(arch))
        with suppress(ArchError):
            values = dilations_of(arch)  # kinds are nested alike, and count from 0
            choices = self.header['space']['choices'].values()
            legend = KINDS if any(0 in choice for choice in choices) else DILATIONS
            return Network(name, list(map(len, values)), values, legend=legend)
        return None

    def text(self, arch: Arch) -> str:
        """Blocks per stage, or of every block a label with a space between stages."""
        network = self.network(arch)
        if network is None:
            return str(arch)
        return network.text if network.values else str(list(network.stage_blocks))

    @property
    def slices(self) -> Slices:
        """What the slices of archval are called."""
        archval = self.header.get('archval')
        if not isinstance(archval, Mapping):
            return Slices()
        return Slices(archval.get('images'), archval.get('batch_size', 1))

    def points(self, scored: Scored) -> dict[str, str]:
        """COCO's metrics beside the score, by column; those that are known."""
        points = coco_points(scored.metrics, self.kind)
        return {
            column: f'{value:.2f}'
            for column, value in points.items()
            if value is not None and column != self.score
        }

    def not_told_apart(self, history: History) -> dict | None:
        """Which of the best the images cannot tell from the first, if known."""
        found = read_state(self.folder / history.name / 'not_told_apart.json')
        if not found or not self.finished:
            return None
        same = [dict(each, arch=Arch.from_json(each['arch'])) for each in found['same']]
        return dict(found, same=same)

    def _bars(self, history: History) -> dict[Arch, tuple[float, float]]:
        """Of those that cannot be told from the first, where they may be beside it."""
        found = self.not_told_apart(history)
        if not found or not history.ranking:
            return {}
        first = self.scale * history.ranking[0].score
        return {
            each['arch']: (first - each['high'], first - each['low'])
            for each in found['same'][1:]
        }

    def figures(self, history: History) -> dict[str, Markup]:
        """The best architecture, the scores and the front, where there are such."""
        network = history.best and self.network(history.best.arch)
        drawn = {}
        if network:
            drawn['the best architecture'] = architecture_figure([network])
        if history.steps:
            drawn['the scores'] = score_figure(
                history, self.score, self.scale, self.baseline, self._bars(history)
            )
        if history.front:
            drawn['the front'] = front_figure(history, self.score, self.scale)
        return {meaning: svg(figure, meaning) for meaning, figure in drawn.items()}


def read_search(
    work_dir: str | Path, baseline: Mapping[str, int] | None = None
) -> Search:
    """Reads a search's journal, also while it runs; arguments as of `write_report`."""
    work_dir = Path(work_dir)
    path = work_dir / 'trials.jsonl'
    if not path.is_file():
        raise JournalError(
            f'The work dir of a search holds trials.jsonl, but there is '
            f'none in {work_dir}. Name the work dir of tools/search.py.'
        )
    header, entries = read_journal(path)
    with _describes_a_search(path):
        return _search(work_dir, header, entries, baseline)


@contextmanager
def _describes_a_search(path: Path) -> Iterator[None]:
    """What is read was written by a search, or by anyone: there is no end of kinds."""
    try:
        yield
    except UserError:
        raise
    except (*UNREADABLE, AttributeError, ArithmeticError, TemplateError) as error:
        raise JournalError(
            f'{path} must begin with the header of a search and go on with trials of '
            f'it, but does not ({type(error).__name__}: {error}). Name the work dir '
            f'of tools/search.py.'
        ) from error


def _search(
    work_dir: Path, header: dict, entries: list[dict], baseline: Mapping | None
) -> Search:
    if baseline is None:
        # of blocks: no dilation, or ShuffleNetV2's kind; else unknown
        with suppress(ArchError):
            choices = header['space']['choices']
            least = Arch({name: min(values) for name, values in choices.items()})
            dilations_of(least)
            baseline = least
    names = header['searcher'].get('searchers', [''])
    scores = {entry['score'] for entry in entries}
    finished = all(_result(work_dir / name) in scores for name in names)
    return Search(
        work_dir.resolve(),
        header,
        histories(header, entries, finished),
        len({str(entry['candidate']) for entry in entries}),
        len({proposal_key(entry) for entry in entries}),
        finished,
        None if baseline is None else Arch(baseline),
    )


def _result(folder: Path) -> float | None:
    """The best score that a search has written; that of an earlier one is another."""
    return read_state(folder / 'best_arch.json').get('score')


def write_report(
    work_dir: str | Path, baseline: Mapping[str, int] | None = None
) -> Path:
    """Writes ``report.html`` of a finished or running search; returns its path.

    The page needs no other file and no network.

    Args:
        work_dir: Of the search.
        baseline: The architecture to mark among the ranks, by choice. Without one it
            is that of 3x3 convolutions without dilation where blocks are searched.

    Raises:
        JournalError: There is no journal, or it is damaged.
    """
    search = read_search(work_dir, baseline)
    template = TEMPLATES.get_template('search.html.j2')
    settings = _settings(search.header)
    with _describes_a_search(Path(work_dir, 'trials.jsonl')):
        html = template.render(search=search, settings=settings, all=ALL)
    path = Path(work_dir) / 'report.html'
    write_bytes(path, html.encode())
    return path


def _settings(header: Mapping, name: str = '') -> Iterator[list[str]]:
    for key, value in header.items():
        setting = f'{name}{key}'
        if setting == 'space.choices':
            for values, same in groupby(value, value.get):
                first, *others = same
                if others:
                    first = f'{first} to {others[-1]} ({1 + len(others)} choices)'
                yield [first, ', '.join(map(str, values))]
        elif setting.endswith('.space.choices') or key == 'about':
            pass  # every budget has the same; the page says it
        elif key == 'costs':
            for choice, costs in value.items():
                text = ', '.join(f'{v}: {cost}' for v, cost in costs.items())
                yield [f'{setting}.{choice}', text]
        elif isinstance(value, Mapping):
            yield from _settings(value, f'{setting}.')
        else:
            text = str(value)
            is_digest = re.fullmatch('[0-9a-f]{32,}', text)
            yield [setting, f'{text[:12]}…' if is_digest else text]
