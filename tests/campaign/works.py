"""What the campaigns damage: searches and trainings, as small as they may be."""

import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace

import torch
from mmengine.config import Config
from pairs import quiet
from tiny import OPERATION, STAGE, left_by, train_cfg, write_checkpoint, write_data

from mmcr.engine.search_loop import ArchSearchLoop
from mmcr.models.weights.checkpoint import read_training
from mmcr.registry import MODELS
from mmcr.search import (
    EvolutionSearcher,
    ExhaustiveSearcher,
    GreedySearcher,
    HalvingSearcher,
    JointSearcher,
    Proposal,
    RacingGreedySearcher,
    Trial,
    read_journal,
)
from mmcr.search.candidate import proposal_key
from mmcr.space import Budget, Choice, SearchSpace

ROOT = Path(__file__).parents[2]
GROUP = 4  # candidates that are scored together: what a kill may cost
ITERATIONS = 4  # of a training, with a checkpoint after each


def space(budget: int | None = None) -> SearchSpace:
    choices = [Choice(name, (1, 2, 3)) for name in 'abcd']
    limit = None if budget is None else Budget.exactly(budget)
    return SearchSpace(choices, lambda name, value: value, limit)


def evolution(budget: int | None = None, **options) -> EvolutionSearcher:
    sizes = dict(population=6, generations=4, top=3, mutations=2, crossovers=2)
    return EvolutionSearcher(space(budget), **sizes, **options)


SEARCHERS = dict(
    exhaustive=lambda: ExhaustiveSearcher(space(8)),
    halving=lambda: HalvingSearcher(space(8), eta=2, finalists=3),
    greedy=lambda: GreedySearcher(space(), k=2),
    racing=lambda: RacingGreedySearcher(space(), k=2, slices=4, level=0.25),
    evolution=evolution,
    pareto=lambda: evolution(pareto=True),
    joint=lambda: JointSearcher(
        {
            'budget_7': HalvingSearcher(space(7), eta=2, finalists=3),
            'budget_8': evolution(8),
            'budget_9': evolution(9, pareto=True),
        }
    ),
)


@MODELS.register_module()
class CampaignBackbone(torch.nn.Module):
    """What a found network is built as, in no time."""

    out_channels = (1, 2, 3, 4)

    def __init__(self, **values) -> None:
        super().__init__()


class CheapLoop(ArchSearchLoop):
    """The search loop, its journal and its export, with scores drawn from keys."""

    gate = None  # it scores no images

    def __init__(self, folder: Path, kind: str) -> None:
        self._runner = SimpleNamespace(
            work_dir=str(folder),
            _load_from=str(ROOT / 'LICENSE'),  # any file that stays
            call_hook=lambda *args, **more: None,
            logger=SimpleNamespace(info=lambda text: None, warning=print),
        )
        self.searcher = SEARCHERS[kind]()
        self.final_backbone = {}
        backbone = SimpleNamespace(
            arch_cfg=lambda arch: dict(type='mmcr.CampaignBackbone', **arch)
        )
        self.candidates = SimpleNamespace(
            score='AP', backbone=backbone, stream=self._stream
        )

    def fingerprint(self) -> dict:
        return dict(score='AP')

    def check_score(self) -> None:
        pass

    def _stream(self, proposals: Sequence[Proposal], progress) -> Iterator[Trial]:
        for start in range(0, len(proposals), GROUP):
            group = proposals[start : start + GROUP]
            note(Path(self.runner.work_dir), group)
            for proposal in group:
                score = Random(proposal.key).random()
                yield Trial(proposal, score, {'AP': score, 'AP50': -1.0})


def note(folder: Path, proposals: Sequence[Proposal]) -> None:
    """Says what is begun; apart from the work dir, which is compared."""
    with folder.with_suffix('.begun').open('a') as file:
        file.write(json.dumps([proposal.key for proposal in proposals]) + '\n')


def begun(folder: Path) -> list[str]:
    """The keys of all that was begun, and forgets them."""
    path = folder.with_suffix('.begun')
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [key for line in lines for key in json.loads(line)]


def scored(folder: Path) -> set[str]:
    """The keys of all that a journal holds."""
    path = folder / 'trials.jsonl'
    if not path.exists() or b'\n' not in path.read_bytes():
        return set()
    return set(map(proposal_key, read_journal(path)[1]))


@dataclass(frozen=True)
class Work:
    """Something that is done in a folder, and goes on there when it is begun again."""

    name: str
    run: Callable[[Path], None]
    result: Callable[[Path], object]  # what must be the same, killed or not
    group: int | None = None  # how many trials a kill may cost; None: it has none


def searches() -> list[Work]:
    """The search loop with every searcher, cheap."""

    def work(kind: str) -> Work:
        return Work(kind, lambda folder: CheapLoop(folder, kind).run(), left_by, GROUP)

    return [work(kind) for kind in SEARCHERS]


def real(root: Path) -> list[Work]:
    """The search tool, and a training that is resumed.

    Args:
        root: Where data and checkpoints are, or go.
    """
    from searches import SEARCHES, cfg_of  # of tests/engine

    quiet()
    if not (root / 'archval.json').exists():
        write_data(root)
        for backbone in (STAGE, OPERATION):
            write_checkpoint(root / f'{backbone["supernet"]}.pth', backbone)

    def tool(name: str, cfg: Config, folder: Path, *arguments: str) -> None:
        quiet()
        config = folder.with_suffix('.py')
        config.write_text(''.join(f'{k} = {v!r}\n' for k, v in cfg.to_dict().items()))
        path = str(ROOT / 'tools' / name)
        sys.argv = [path, str(config), *arguments, '--work-dir', str(folder)]
        runpy.run_path(path, run_name='__main__')

    def search(kind: str) -> Work:
        def run(folder: Path) -> None:
            cfg = cfg_of(root, folder, kind)
            tool('search.py', cfg, folder, cfg.load_from)

        return Work(f'search.py: {kind}', run, left_by)

    def train(folder: Path) -> None:
        cfg = train_cfg(root, folder, iterations=ITERATIONS)
        cfg.default_hooks.checkpoint.max_keep_ckpts = 2
        tool('train.py', cfg, folder, '--resume')

    return [*map(search, SEARCHES), Work('train.py', train, _weights)]


def _weights(folder: Path) -> list:
    names = sorted(path.name for path in folder.glob('*.pth'))
    saved = read_training(folder / f'iter_{ITERATIONS}.pth')
    momenta = saved['optimizer']['state']
    named = {
        **saved['state_dict'],
        **{i: m['momentum_buffer'] for i, m in momenta.items()},
    }
    return [names, *((name, value.tolist()) for name, value in named.items())]


def parts(folder: Path) -> list[str]:
    """Files that a writer left half done."""
    return [path.name for path in folder.rglob('*') if path.name.endswith('.part')]


def silenced(file: Path) -> None:
    """Sends what this process says to a file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = open(descriptor, 'w', buffering=1)  # pytest has its own
