"""A study of rankings: members of a space trained alone, and what searches said.

Every network is a step of its own (`workflow.steps`), so that a stopped study goes on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from mmcr.cost.training_free import training_free_scores
from mmcr.errors import UserError
from mmcr.files import write_json
from mmcr.report.pages.ranking_page import write_ranking
from mmcr.report.ranking import Ranking
from mmcr.space import Arch, Budget
from mmcr.workflow.baseline import understand
from mmcr.workflow.contests.candidates import complete_trials
from mmcr.workflow.contests.contest import Contest
from mmcr.workflow.contests.finals import most_blocks
from mmcr.workflow.place import alone
from mmcr.workflow.recipe import Options, network, stage_draft
from mmcr.workflow.screen import Screen
from mmcr.workflow.steps import Step

DEFAULTS = Options()


class RankingStudy:
    """Trains members of a space and compares them with the scores of searches.

    AP in points of 100 throughout.

    The members are spread over the detector's stage space, of as many blocks as it
    has, and listed in ``members.json`` in the work dir: what `ListedSearcher` takes.

    Args:
        cfg: A detector's config, as for `Reallocation`.
        work_dir: Where every network gets a folder, and the tables go.
        searches: By name, work dirs of finished searches that scored the members on
            all of archval (exhaustive, or of these members alone).
        members: How many members to train, three or more.
        seeds: How many times each, two or more, with the seeds 0, 1, 2, ... for all.
            Networks of one seed start from the same weights and see the same images
            (`mmcr.PairedInitHook`, `mmcr.ExactResumeHook`).
        options: Of the recipe; they decide the space.

    Raises:
        UserError: `members` or `seeds` is too few for a ranking, the space has fewer
            members, or a search has no score of one.
    """

    def __init__(
        self,
        cfg: Config,
        work_dir: str | Path,
        searches: Mapping[str, str],
        members: int = 12,
        seeds: int = 3,
        options: Options = DEFAULTS,
    ) -> None:
        for name, value, least in (('members', members, 3), ('seeds', seeds, 2)):
            if value < least:
                raise UserError(
                    f'{name} must be at least {least}, so that there is something to '
                    f'rank and its noise is known, but got {value}.'
                )
        self.work_dir = Path(work_dir)
        self.baseline, self.options = understand(cfg), options
        self.supernet, self.final = stage_draft(self.baseline, options)
        own = self.supernet.space.member(self.baseline.stage_blocks)
        cost = self.supernet.space.cost_of(own)
        self.members = spread(
            list(self.supernet.space.under(Budget.exactly(cost))), members
        )
        self.seeds = range(seeds)
        with alone(self.work_dir):  # also for a search that is still to come
            listed = [dict(arch) for arch in self.members]
            write_json(self.work_dir / 'members.json', listed)
        self.scores = {
            name: _scores(Path(folder, 'trials.jsonl'), self.members)
            for name, folder in searches.items()
        }
        # seed by seed: a study stopped early has whole rows
        self.trainings = [
            (name_of(arch), seed) for seed in self.seeds for arch in self.members
        ]
        networks = {name_of(arch): self._network(arch) for arch in self.members}
        self.contest = Contest(
            self.work_dir,
            networks,
            most_blocks(self.supernet),
            Screen([], finished=self._check),
        )

    def _network(self, arch: Arch) -> Config:
        return network(self.baseline, self._blocks(arch), self.options)

    def _blocks(self, arch: Arch) -> dict:
        return dict(stage_blocks=self.supernet.arch_cfg(arch)['stage_blocks'])

    def run(self) -> str:
        """Trains what is not trained yet; returns the tables."""
        with alone(self.work_dir) as lock:
            self.contest.run(self.trainings, lock)
        return self.compare()

    def compare(self) -> str:
        """Writes ``ranking.md``, ``ranking.json`` and ``ranking.png``."""
        trained = {
            name: [self.contest.ap(name, seed) for seed in self.seeds]
            for name in map(name_of, self.members)
        }
        predicted = {
            **{
                f'supernet: {name}': {a: 100 * scores[a] for a in self.members}
                for name, scores in self.scores.items()
            },
            **training_free_scores(self.supernet, self.final, self.members),
        }
        named = {
            name: {name_of(arch): value for arch, value in values.items()}
            for name, values in predicted.items()
        }
        return write_ranking(Ranking(trained, named), self.work_dir)

    def _check(self, step: Step) -> None:
        """Stops after the first network that cannot be compared."""
        self.contest.ap(*step.name.rsplit('_seed', 1))


def name_of(arch: Arch) -> str:
    """Short, for files and tables: the values in order, as ``3-1-2-2``."""
    return '-'.join(map(str, _values(arch)))


def spread(archs: Sequence[Arch], count: int) -> list[Arch]:
    """Architectures far from each other, the extremes first.

    The first is the one farthest from the mean of all; each further one is the one
    whose nearest among those taken is farthest away. The distance is the sum over the
    choices, each in units of its range.

    Args:
        archs: Of one space, in an order that decides ties.
        count: How many to take.

    Raises:
        UserError: There are fewer.
    """
    if len(archs) < count:
        raise UserError(
            f'{count} members are to be trained, but the space has {len(archs)} under '
            f'this budget. Train fewer, or search another budget.'
        )
    points = {arch: _values(arch) for arch in archs}
    columns = list(zip(*points.values()))
    ranges = [max(column) - min(column) or 1 for column in columns]

    def distance(a: Sequence[float], b: Sequence[float]) -> float:
        return sum(abs(x - y) / size for x, y, size in zip(a, b, ranges))

    mean = [sum(column) / len(archs) for column in columns]
    taken = [max(archs, key=lambda arch: distance(points[arch], mean))]
    nearest = dict.fromkeys(archs, float('inf'))
    while len(taken) < count:
        for arch in archs:
            new = distance(points[arch], points[taken[-1]])
            nearest[arch] = min(nearest[arch], new)
        taken.append(max(archs, key=nearest.__getitem__))
    return taken


def _values(arch: Arch) -> tuple[int, ...]:
    return tuple(arch[name] for name in sorted(arch))


def _scores(journal: Path, members: Sequence[Arch]) -> dict[Arch, float]:
    """Of the members, on all of archval."""
    trials = complete_trials(journal, len(members[0]))
    scores = {arch: trial.score for arch, trial in trials.items()}
    missing = [name_of(arch) for arch in members if arch not in scores]
    if missing:
        raise UserError(
            f'A search to be compared must have scored all members on all of archval, '
            f'but {journal} lacks {", ".join(missing)}. Search exhaustively under the '
            f'same budget, or score the members alone: mmcr.ListedSearcher with '
            f"archs='.../members.json'."
        )
    return {arch: scores[arch] for arch in members}
