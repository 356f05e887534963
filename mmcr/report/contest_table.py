"""Trainings of a contest so far: AP by network and seed, and paired differences."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from matplotlib.figure import Figure

from mmcr.files import read_state
from mmcr.report.paired import Difference, floor
from mmcr.report.score_figure import WIDTH
from mmcr.report.sketch import COLOURS, INK, QUIET, RULE

ROW = 0.36  # of the figure, in inches
#: How names end of what is tested beside a contest (`workflow.contests.warm_finals`).
BESIDE = '_given', '_extracted', '_alone'


@dataclass(frozen=True)
class ContestTable:
    """Networks that were trained and tested under the same seeds.

    Attributes:
        aps: By network and seed, AP in points of 100.
        baseline: That of the networks that the others are compared with.
    """

    aps: Mapping[str, Mapping[int, float]]
    baseline: str

    @cached_property
    def seeds(self) -> list[int]:
        return sorted({seed for row in self.aps.values() for seed in row})

    @cached_property
    def differences(self) -> dict[str, Difference]:
        """By network, its AP minus the baseline's under the seeds of both."""
        own, found = self.aps.get(self.baseline, {}), {}
        for name, row in self.aps.items():
            both = [seed for seed in self.seeds if seed in row and seed in own]
            if name != self.baseline and both:
                found[name] = Difference([row[seed] - own[seed] for seed in both])
        return found

    @property
    def most_seen(self) -> str:
        """The network that has met the baseline under the most seeds, if any."""
        met = self.differences
        return max(met, key=lambda name: len(met[name].by_seed), default='')

    @cached_property
    def noise(self) -> float | None:
        """As `paired.floor`."""
        rows = {
            name: [row.get(seed) for seed in self.seeds]
            for name, row in self.aps.items()
        }
        return floor(rows) if len(rows) > 1 else None

    def figure(self) -> Figure:
        """The differences: the mean with its interval, and below it a dot a seed."""
        names = list(self.differences)
        height = ROW * len(names) + 0.8
        figure = Figure(figsize=(WIDTH, height), layout='constrained')
        axes = figure.add_subplot()
        for y, difference in enumerate(self.differences.values()):
            seeds, mean = difference.by_seed, difference.interval
            below = [y + 0.22] * len(seeds)
            axes.scatter(seeds, below, s=22, color=COLOURS[1], zorder=2)
            if mean.low is not None:
                axes.hlines(y, mean.low, mean.high, color=COLOURS[3], linewidth=2)
            axes.scatter(
                [mean.value], [y], s=44, marker='D', color=COLOURS[3], zorder=3
            )
        axes.axvline(0, color=QUIET, linewidth=1, zorder=1)
        axes.set_yticks(range(len(names)), names)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(f'AP − {self.baseline} (points)', color=INK, parse_math=False)
        axes.grid(axis='x', **RULE)
        axes.spines[['top', 'right', 'left']].set_visible(False)
        return figure


def trainings_of(folder: Path) -> list[Path]:
    """The folders of a contest's trainings, without those of what is beside it."""
    return [
        training
        for training in sorted(folder.glob('*_seed*'))
        if not training.name.rpartition('_seed')[0].endswith(BESIDE)
    ]


def read_contest(folder: Path, metric: str, baseline: str) -> ContestTable:
    """What the tests of a contest have said, as far as they are done.

    Args:
        folder: Has a folder ``NAME_seedN`` for each training.
        metric: Of the tests, from 0 to 1.
        baseline: Name of the network that the others are compared with.
    """
    aps: dict[str, dict[int, float]] = {}
    for training in trainings_of(folder):
        name, _, seed = training.name.rpartition('_seed')
        said = sorted(training.glob('test/*/*.json'))
        if said and seed.isdecimal() and read_state(training / 'step.json').get('done'):
            value = read_state(said[-1]).get(metric)
            if value is not None:
                aps.setdefault(name, {})[int(seed)] = 100 * value
    return ContestTable(aps, baseline)
