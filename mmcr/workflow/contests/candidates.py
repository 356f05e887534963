"""The best of the searches, as the networks that a run-off trains."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from mmengine.config import Config

from mmcr.scoring.smoothing import smoothed
from mmcr.search import Complete, Proposal, Trial, read_journal
from mmcr.space import Arch
from mmcr.workflow.baseline import build


@dataclass(frozen=True)
class Candidate:
    """An architecture that a search has scored.

    Attributes:
        name: Of its folders: the search and its place in it.
        trial: What the search measured, on all of archval with inherited weights.
        expected: The score without the luck of these images (`scoring.smoothing`).
        backbone: Arguments of all of the network's backbone.
        decided: Those that the search has decided.
        scale: Of the images that it was scored on, in those of the baseline.
    """

    name: str
    trial: Trial
    expected: float
    backbone: Mapping
    decided: Mapping
    scale: float = 1.0

    def to_json(self) -> dict:
        arch = self.trial.proposal.candidate.arch
        return dict(
            name=self.name,
            arch=arch.to_json(),
            score=self.trial.score,
            metrics=self.trial.metrics,
            expected=self.expected,
            backbone=dict(self.backbone),
            decided=dict(self.decided),
            scale=self.scale,
        )

    @classmethod
    def from_json(cls, obj: Mapping) -> 'Candidate':
        proposal = Proposal(Complete(Arch.from_json(obj['arch'])))
        trial = Trial(proposal, obj['score'], obj['metrics'])
        return cls(
            *(obj['name'], trial, obj['expected']),
            *(_tuples_in(obj[key]) for key in ('backbone', 'decided')),
            obj.get('scale', 1.0),
        )


@dataclass(frozen=True)
class Searched:
    """A search that is done.

    Attributes:
        name: For people.
        step: Its folder.
        cfg: Its config.
        decides: Arguments of the backbone.
        scale: Of its images, in those of the baseline.
    """

    name: str
    step: str
    cfg: Config
    decides: Sequence[str]
    scale: float = 1.0


def best_candidates(
    searches: Sequence[Searched],
    work_dir: Path,
    count: int,
    baseline: Mapping,
    keeps: Callable[[Arch], bool] = lambda arch: True,
) -> list[Candidate]:
    """The best of each kind of search in turn, of the last one first.

    Searches that decide the same, at several scales of images, are one kind.

    Args:
        searches: In the order in which they were run.
        work_dir: Has the folders of the steps.
        count: How many to take.
        baseline: Arguments of the baseline, which is no candidate.
        keeps: Whether an architecture may be one.
    """
    kinds = {}
    for search in reversed(searches):
        found = _of_search(search, work_dir, count + 1, keeps)
        kinds.setdefault(tuple(search.decides), []).extend(found)
    ranked = [
        sorted(kind, key=lambda each: each.expected, reverse=True)
        for kind in kinds.values()
    ]
    known = [
        (_plain({name: baseline[name] for name in names if name in baseline}), 1.0)
        for names in kinds
    ]
    taken = []
    for candidate in filter(
        None, (each for row in zip_longest(*ranked) for each in row)
    ):
        own = _plain(candidate.decided), candidate.scale
        if own not in known:
            known.append(own)
            taken.append(candidate)
    return taken[:count]


def complete_trials(journal: Path, choices: int) -> dict[Arch, Trial]:
    """Of the architectures that decide all choices, scored on all of archval."""
    _, entries = read_journal(journal)
    trials = {}
    for entry in entries:
        arch = Arch.from_json(entry['candidate']['arch'])
        if entry['portion'] == [0, 1] and len(arch) == choices:
            proposal = Proposal(Complete(arch))
            trials[arch] = Trial(proposal, entry['score'], entry['metrics'])
    return trials


def _of_search(
    search: Searched, work_dir: Path, count: int, keeps: Callable[[Arch], bool]
) -> list[Candidate]:
    supernet = build(search.cfg.model.backbone)
    choices = len(supernet.space.choices)
    trials = complete_trials(work_dir / search.step / 'trials.jsonl', choices)
    expected = smoothed({arch: trial.score for arch, trial in trials.items()})
    best = sorted(filter(keeps, expected), key=expected.__getitem__, reverse=True)
    final = search.cfg.test_cfg.get('final_backbone') or {}
    found = []
    for place, arch in enumerate(best[:count], start=1):
        backbone = {**supernet.arch_cfg(arch), **final}
        decided = {key: backbone[key] for key in search.decides if key in backbone}
        own = f'{search.name}_{place}', trials[arch], expected[arch]
        found.append(Candidate(*own, backbone, decided, search.scale))
    return found


def _plain(arguments: Mapping) -> dict:
    """Arguments to be compared: dilations of 1 are as good as none."""
    plain = _tuples_in(arguments)
    if set(_leaves(plain.get('dilations', ()))) <= {1}:
        plain.pop('dilations', None)
    return plain


def _tuples_in(arguments: Mapping) -> dict:
    """As a search wrote them, before JSON made lists of tuples."""
    return {name: _tuples(value) for name, value in arguments.items()}


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _leaves(value: object) -> list:
    if isinstance(value, tuple):
        return [leaf for each in value for leaf in _leaves(each)]
    return [value]
