"""A whole run on one HTML page, the verdict first; also while it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock

from markupsafe import Markup

from mmcr.files import read_state, write_bytes
from mmcr.report.comparison import COCO_COLUMNS, in_short, macs_text, params_text
from mmcr.report.contest_table import ContestTable, read_contest, trainings_of
from mmcr.report.curves import write_curves
from mmcr.report.erf import SHARES
from mmcr.report.front import COLUMNS, Front
from mmcr.report.pages.page import TEMPLATES, svg
from mmcr.report.pages.pictures import pictures
from mmcr.report.pages.search_page import read_search
from mmcr.report.sketch import DILATIONS, KINDS, Network, architecture_figure
from mmcr.report.slices import ALL

GATE = 'Gate: '


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes:
        name: Of the detector.
        work_dir: Of the run.
        about: How detector, data and space were understood, for people.
        titles: By name of its folder what each step is, in order, contests too.
        estimates: By step the seconds and bytes that it is expected to take.
        trainings: By contest, how many networks it trains: first of that which
            chooses, then of that which judges.
        searches: By step of a search the baseline's architecture in it; ``None``:
            it is not known.
        baseline: Name of the network that the others of a contest are compared with.
        metric: That networks are compared by, from 0 to 1.
        jobs: Trainings side by side.
        visualizer: The user's config of one, whose backends are told all scores.
    """

    name: str
    work_dir: Path
    about: str
    titles: Mapping[str, str]
    estimates: Mapping[str, tuple[float, int]]
    trainings: Mapping[str, int]
    searches: Mapping[str, Mapping[str, int] | None]
    baseline: str
    metric: str
    jobs: int = 1
    visualizer: Mapping | None = None

    @property
    def contests(self) -> dict[str, ContestTable]:
        """As far as they are done."""
        return {
            name: read_contest(self.work_dir / name, self.metric, self.baseline)
            for name in self.trainings
        }

    def tell_backends(self) -> None:
        """Writes ``result/curves``, or wherever the visualizer's backends write."""
        if self.visualizer:
            journals = {s: self.work_dir / s / 'trials.jsonl' for s in self.searches}
            folder = self.work_dir / f'result/curves/{datetime.now():%Y%m%d_%H%M%S}'
            write_curves(self.visualizer, folder, journals, self.contests)


@dataclass(frozen=True)
class Progress:
    """How far a step is.

    Attributes:
        seconds: That it was expected to take.
        memory: Likewise, in bytes.
        done: Of its trainings; of another step, itself.
        of: That there are.
        began: Whether any of them has begun.
        took: Seconds, of those that are done.
    """

    name: str
    title: str
    seconds: float
    memory: int
    done: int
    of: int
    began: bool
    took: float

    @property
    def is_done(self) -> bool:
        return self.done >= self.of

    @property
    def state(self) -> str:
        """In words; of a contest with the number of its trainings."""
        if not self.of:
            return 'left out'
        if self.began and not self.is_done:
            return 'begun' if self.of == 1 else f'{self.done} of {self.of}'
        said = 'done' if self.is_done else 'to come'
        return said if self.of == 1 else f'{said} ({self.of})'


def progress(plan: Plan) -> list[Progress]:
    """Of every step, from what it wrote on itself."""
    found = []
    for name, title in plan.titles.items():
        folder, of = plan.work_dir / name, plan.trainings.get(name)
        folders = [folder] if of is None else trainings_of(folder)
        states = [read_state(each / 'step.json') for each in folders]
        done = [state['seconds'] for state in states if state.get('done')]
        jobs = 1 if of is None else plan.jobs
        counts = len(done), 1 if of is None else max(of, len(done)), any(states)
        expected = plan.estimates[name]
        found.append(Progress(name, title, *expected, *counts, sum(done) / jobs))
    return found


class RunPage:
    """Writes ``result/report.html``, again after every step of a run.

    A page is worth no run: what goes wrong with it is told, and nothing else happens.

    Args:
        plan: Of the run.
        log: Told what goes wrong.
    """

    def __init__(self, plan: Plan, log: Callable[[str], None]) -> None:
        self.plan, self.log = plan, log
        self.path = plan.work_dir / 'result/report.html'
        self._pictures: dict = {}
        self._lock = Lock()  # steps that run side by side end when they like
        self._searches: dict[str, Markup] = {}  # that are done, and stay as they are

    def write(self, step: object = None) -> None:
        """Writes the page as things are; of any step, since it reads them all."""
        with self._lock:
            try:
                self.path.parent.mkdir(exist_ok=True)
                write_bytes(self.path, self._html().encode())
            except Exception as error:  # of any file that somebody touched
                reason = f'{type(error).__name__}: {error}'
                self.log(f'{self.path} could not be written ({reason}).')

    def finish(self, trained: Mapping[str, tuple[Path, str]]) -> None:
        """Writes the page of a run that is done, with pictures, and its curves.

        Args:
            trained: As of `pictures.pictures`.
        """
        try:
            file = self.path.with_name('pictures.json')
            self._pictures = pictures(trained, file, self.log)
        except Exception as error:
            self.log(f'No pictures ({type(error).__name__}: {error}).')
        self.write()
        try:
            self.plan.tell_backends()
        except Exception as error:  # of a service that cannot be reached
            self.log(f'No curves ({type(error).__name__}: {error}).')

    def _html(self) -> str:
        plan, steps = self.plan, progress(self.plan)
        *before, judging = steps
        comparison, judges = {}, plan.trainings[judging.name] // 2
        if all(step.is_done for step in before):  # else it is of another run
            comparison = read_state(plan.work_dir / 'result/comparison.json')
        contests = plan.contests
        template = TEMPLATES.get_template('run.html.j2')
        return template.render(
            plan=plan,
            steps=steps,
            now=datetime.now().strftime('%Y-%m-%d %H:%M'),
            duration=lambda seconds: str(timedelta(seconds=round(seconds))),
            comparison=comparison,
            judges=judges,
            columns=list(COCO_COLUMNS),
            macs=macs_text,
            params=params_text,
            networks=_sketches(comparison),
            searches=[
                self._search(step) for step in steps if step.name in plan.searches
            ],
            candidates=_candidates(plan),
            winner=contests[judging.name].most_seen,
            contests=contests,
            pictures=self._pictures,
            shares=SHARES,
            front=_front(plan.work_dir),
            front_columns=COLUMNS,
            svg=svg,
        )

    def _search(self, step: Progress) -> Markup:
        """What the page says of a search."""
        if step.name in self._searches:
            return self._searches[step.name]
        folder = self.plan.work_dir / step.name
        if not (folder / 'trials.jsonl').is_file():
            return Markup()
        search = read_search(folder, self.plan.searches[step.name])
        template = TEMPLATES.get_template('run_search.html.j2')
        part = Markup(
            template.render(search=search, step=step, all=ALL, gate=_gate(folder))
        )
        if step.is_done:
            self._searches[step.name] = part
        return part


def _gate(folder: Path) -> str:
    """What was seen of a supernet before its search, if anything."""
    log = folder / 'console.log'
    lines = log.read_text(errors='replace').splitlines() if log.is_file() else []
    seen = [line[line.index(GATE) :] for line in lines if GATE in line]
    return seen[-1] if seen else ''


def _sketches(comparison: Mapping) -> Markup:
    """The baseline and what was found, as far as there is a verdict."""
    networks = []
    for each in comparison.get('networks', [])[:2]:
        legend = KINDS if KINDS.name in each else DILATIONS
        caption = f'{macs_text(each["macs"])} MACs  ·  {params_text(each["params"])}'
        blocks = each['stage_blocks'], each[legend.name], f'{caption} params'
        networks.append(Network(each['name'], *blocks, legend, each.get('strides')))
    if not networks:
        return Markup()
    return svg(architecture_figure(networks), 'the baseline and the found network')


def _candidates(plan: Plan) -> dict[str, dict]:
    """Of the run-off, as the searches had them, scores in points of 100."""
    found = read_state(plan.work_dir / 'run_off.json').get('candidates', [])
    own = dict(text='your detector', score=None, expected=None)
    named = {plan.baseline: own} if found else {}
    for each in found:
        scores = {key: 100 * each[key] for key in ('score', 'expected')}
        named[each['name']] = dict(
            scores, text=in_short(each['decided'], each.get('scale', 1.0))
        )
    return named


def _front(work_dir: Path) -> Front | None:
    record = read_state(work_dir / 'result/front.json')
    return Front.from_json(record) if record else None
