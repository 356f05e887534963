"""A study of rankings: members of a space trained alone, and what searches said.

Every network is a step of its own (`workflow.steps`), so that a stopped study goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmcr.cost.budget import budget_space
from mmcr.cost.training_free import training_free_scores
from mmcr.engine.export import arch_fragment
from mmcr.errors import UserError
from mmcr.files import write_bytes, write_json
from mmcr.models import SearchableBackbone
from mmcr.models.detector import supernet_of
from mmcr.report.ranking import Ranking
from mmcr.report.ranking_page import write_ranking
from mmcr.search import read_journal
from mmcr.space import Arch, SearchSpace
from mmcr.workflow.steps import Step, StepRunner

METRIC = 'coco/bbox_mAP'


class RankingStudy(StepRunner):
    """Trains members of a space and compares them with the scores of searches.

    AP in points of 100 throughout.

    The members are spread over the stage space that the config searches, under its
    budget, and listed in ``members.json`` in the work dir: what `ListedSearcher` takes.

    Args:
        config: A config that follows ``CR_STEP``, as for `Pipeline`.
        work_dir: Where every network gets a folder, and the tables go.
        searches: By name, work dirs of finished searches that scored the members on
            all of archval (exhaustive, or of these members alone).
        members: How many members to train, three or more.
        seeds: How many times each, two or more, with the seeds 0, 1, 2, ... for all.
            Networks of one seed start from the same weights (`shared_chance`).
        depth: Of the ResNet.
        jobs: How many networks may train at a time.
        say: Where to tell how things go.

    Raises:
        UserError: `members` or `seeds` is too few for a ranking, the config searches
            no stage space under one budget, or one with fewer members, or a search
            has no score of one.
    """

    def __init__(
        self,
        config: str,
        work_dir: str,
        searches: Mapping[str, str],
        members: int = 12,
        seeds: int = 3,
        depth: int = 18,
        jobs: int = 1,
        say: Callable[[str], None] = print,
    ) -> None:
        for name, value, least in (('members', members, 3), ('seeds', seeds, 2)):
            if value < least:
                raise UserError(
                    f'{name} must be at least {least}, so that there is something to '
                    f'rank and its noise is known, but got {value}.'
                )
        super().__init__(config, work_dir, [], jobs, say)
        self.search_step = Step('search', f'crnas/stage_search_r{depth}')
        self.backbone, self.final = supernet_of(self.resolved(self.search_step))
        self.members = spread(list(self._space()), members)
        self.seeds = range(seeds)
        self.options = shared_chance(self.backbone)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        members = [dict(arch) for arch in self.members]
        write_json(self.work_dir / 'members.json', members)
        self.scores = {
            name: _scores(Path(folder, 'trials.jsonl'), self.members)
            for name, folder in searches.items()
        }
        self.network = f'faster_rcnn/faster-rcnn_cr-r{depth}_fpn_1x_coco'
        # seed by seed: a study stopped early has whole rows
        self.steps = [
            self._step(arch, seed) for seed in self.seeds for arch in self.members
        ]

    def _space(self) -> SearchSpace:
        budget = self.resolved(self.search_step).test_cfg.get('budget')
        if isinstance(budget, list) or self.backbone.supernet != 'stage':
            raise UserError(
                f'A study takes a stage space under one budget, but {self.config} has '
                f'supernet={self.backbone.supernet!r} and budget={budget}.'
            )
        if budget is None:
            return self.backbone.space
        return budget_space(self.backbone, self.final, budget)

    def run(self) -> str:
        """Trains what is not trained yet; returns the tables."""
        self.run_steps()
        return self.compare()

    def compare(self) -> str:
        """Writes ``ranking.md``, ``ranking.json`` and ``ranking.png``."""
        alone = {
            name_of(arch): [
                100 * self._tested(self._step(arch, seed)) for seed in self.seeds
            ]
            for arch in self.members
        }
        predicted = {
            **{
                f'supernet: {name}': {a: 100 * scores[a] for a in self.members}
                for name, scores in self.scores.items()
            },
            **training_free_scores(self.backbone, self.final, self.members),
        }
        named = {
            name: {name_of(arch): value for arch, value in values.items()}
            for name, values in predicted.items()
        }
        return write_ranking(Ranking(alone, named), self.work_dir)

    def _run(self, step: Step, futures: dict) -> None:
        super()._run(step, futures)
        self._tested(step)  # before the others train in vain

    def _tested(self, step: Step) -> float:
        metrics = self.tested_metrics(step.name)
        if METRIC not in metrics:
            raise UserError(
                f'A study needs a test_evaluator that says {METRIC}, as '
                f'mmdet.CocoMetric does, but that of {self.config} says '
                f'{", ".join(sorted(metrics))}. Give such a one, and another '
                f'--work-dir.'
            )
        return metrics[METRIC]

    def _step(self, arch: Arch, seed: int) -> Step:
        fragment = self.work_dir / 'archs' / f'{name_of(arch)}.py'
        cfg = {**self.backbone.arch_cfg(arch), **self.final}
        fragment.parent.mkdir(parents=True, exist_ok=True)
        # always, lest it is of an older config: steps tell by it what they are of
        text = arch_fragment(cfg, 'A member of a ranking study.')
        write_bytes(fragment, text.encode())
        return Step(
            f'{name_of(arch)}_seed{seed}',
            self.network,
            arch=str(fragment),
            tested=True,
            seed=seed,
            options=self.options,
        )


def shared_chance(supernet: SearchableBackbone) -> tuple[str, ...]:
    """Options by which networks of a stage space that have one seed have one fortune.

    Initial weights by name, images and their order, and what every iteration draws.
    """
    largest = {choice.name: max(choice.values) for choice in supernet.space.choices}
    blocks = ','.join(map(str, supernet.arch_cfg(Arch(largest))['stage_blocks']))
    hooks = 'default_hooks'  # beside those of the config, in whatever list they are
    return (
        f'{hooks}.paired_init.type=mmcr.PairedInitHook',
        f'{hooks}.paired_init.backbone.stage_blocks=[{blocks}]',
        f'{hooks}.exact_resume.type=mmcr.ExactResumeHook',
    )


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
    _, entries = read_journal(journal)
    scores = {
        Arch.from_json(entry['candidate']['arch']): entry['score']
        for entry in entries
        if entry['portion'] == [0, 1] and 'seed' not in entry['candidate']
    }
    missing = [name_of(arch) for arch in members if arch not in scores]
    if missing:
        raise UserError(
            f'A search to be compared must have scored all members on all of archval, '
            f'but {journal} lacks {", ".join(missing)}. Search exhaustively under the '
            f'same budget, or score the members alone: mmcr.ListedSearcher with '
            f"archs='.../members.json'."
        )
    return {arch: scores[arch] for arch in members}
