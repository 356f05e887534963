"""One small search of every kind."""

from mmengine.runner import Runner
from tiny import OPERATION, STAGE, search_cfg

GREEDY = dict(type='mmcr.GreedySearcher', k=2, seed=4)
HALVING = dict(type='mmcr.HalvingSearcher', eta=2, rungs=2, finalists=2)
RACING = dict(type='mmcr.RacingGreedySearcher', k=2, slices=3, level=0.25)
EVOLUTION = dict(
    type='mmcr.EvolutionSearcher',
    population=3,
    generations=2,
    top=2,
    mutations=1,
    crossovers=1,
    pareto=True,
)
# of all: every architecture meets it
MACS = dict(type='macs', limit=1e12, shape=(96, 96), of='detector')
SEARCHES = dict(
    exhaustive=(STAGE, {}),
    halving=(STAGE, dict(searcher=HALVING)),
    greedy=(OPERATION, dict(searcher=GREEDY, num_minibatches=3)),
    racing=(OPERATION, dict(searcher=RACING)),
    evolution=(STAGE, dict(searcher=EVOLUTION, budget=MACS)),
    joint=(STAGE, dict(searcher=HALVING, budget=[7, 8])),
)
GROUP = 3


def cfg_of(root, work_dir, kind, checkpoint=None, **more):
    """Of a search of the data and the supernets at `root`."""
    backbone, options = SEARCHES[kind]
    checkpoint = checkpoint or root / f'{backbone["supernet"]}.pth'
    options = dict(options, group_size=GROUP)
    return search_cfg(root, work_dir, checkpoint, backbone, **{**options, **more})


def search(*args, **more):
    """Its metrics."""
    return Runner.from_cfg(cfg_of(*args, **more)).test()
