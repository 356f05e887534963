"""How much faster a search is than scoring candidates one at a time.

In one process, on the same supernet, images and candidates:

(a) the naive loop of DetNAS and MMRazor on mmengine's and mmdet's own parts, with
    pycocotools (`naive_search.py`);
(b) ours, exact: every candidate on all of archval;
(c) ours, with successive halving.

The cost of (a) is a sum over candidates, while (b) and (c) share work, the more
the more candidates there are. So each repeat times (a) on its own part of the
candidates, every n-th of them, and then (b) and (c) on all of them; seconds are per
candidate of the run. Repeats alternate between the orders a b c and c b a, each
gives one ratio, and the median is reported. Started again with the same setting, it
goes on where it was. Over all repeats (a) scores each of its
candidates once. Repeat r of (c) has archval in the random order of seed r. Not
counted are building model, loaders and evaluators, and the scoring of one candidate
before the first repeat. The number of threads is torch's: OMP_NUM_THREADS.

The split is taken by timers wrapped around the parts from outside. Everything that
happens during calibration, its loading too, counts as calibration. On a GPU the
timers have to wait for the device: there an extra round before the first repeat gives
the split, and the repeats run without timers.

    python benchmarks/search_speed.py benchmarks/shapes_r50.py CHECKPOINT --out DIR
"""

import argparse
import copy
import time
from contextlib import nullcontext
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner
from naive_search import NaiveSearch
from part_timers import PartTimers, watch_parts
from speed_results import Run, SpeedResults
from torch.utils.data import DataLoader

import mmcr.engine
import mmcr.models  # noqa: F401  registers the backbones
from mmcr.cli import user_errors
from mmcr.engine.launch import build_runner, read_config
from mmcr.errors import UserError
from mmcr.files import file_digest
from mmcr.scoring import CandidateEvaluator
from mmcr.scoring.loaders import build_loader, calibration_cfg
from mmcr.search import Complete, HalvingSearcher, Proposal, Trial, run_search
from mmcr.space import Arch, SearchSpace


class Members(SearchSpace):
    """A space with some of its members, for benchmarks on less than all."""

    def __init__(self, space: SearchSpace, members: list[Arch]) -> None:
        self.members = members
        super().__init__(space.choices, space.cost, space.budget)

    def __iter__(self):
        return iter(self.members)

    @property
    def size(self) -> int:
        return len(self.members)


class Benchmark:
    """The three ways to search, ready to run.

    Args:
        cfg: A search config with its checkpoint in `load_from`.
        args: The command line's.
    """

    def __init__(self, cfg: Config, args: argparse.Namespace) -> None:
        own = copy.deepcopy(cfg)  # a runner changes its config
        runner = build_runner(cfg)
        loop = runner.test_loop
        runner.load_or_resume()
        self.model = runner.model.to(args.device)
        self.args = args
        self.archval_cfg = own.test_dataloader
        self.candidates = loop.candidates
        members = list(loop.searcher.space)
        self.space = Members(loop.searcher.space, evenly(members, args.candidates))
        self.naive_members = evenly(self.space.members, args.naive)
        self.halving_options = args.halving or {}
        self.naive = self._naive(runner, own)

    def _naive(self, runner: Runner, cfg: Config) -> NaiveSearch:
        """On loaders of mmengine with the very batches of ours."""
        calibration_data = cfg.test_cfg.get('calibration_dataloader') or (
            calibration_cfg(cfg.train_dataloader, cfg.test_dataloader)
        )
        archval, calibration = (
            plain_loader(loader_cfg, ours)
            for loader_cfg, ours in (
                (self.archval_cfg, self.candidates.archval),
                (calibration_data, self.candidates.calibration),
            )
        )
        evaluator = runner.build_evaluator(
            dict(cfg.test_evaluator, backend='pycocotools')
        )
        evaluator.dataset_meta = archval.dataset.metainfo
        score, fp16 = self.candidates.score, self.args.fp16
        return NaiveSearch(self.model, evaluator, archval, calibration, score, fp16)

    def run(self, way: str, repeat: int, timers: PartTimers | None) -> Run:
        """Searches once; repeat decides (a)'s candidates and the order of (c)."""
        if way == 'a':
            return self._run_naive(repeat, timers)
        archval = self.candidates.archval
        if way == 'c':
            archval = build_loader(self.archval_cfg, 'archval', seed=repeat)
        evaluator = self.evaluator(archval)
        search = self._exact if way == 'b' else self._halving
        with self._watched(timers):
            start = time.perf_counter()
            trials = search(evaluator)
            seconds = time.perf_counter() - start
        scores = {trial.proposal.candidate.arch: trial.score for trial in trials}
        return Run(seconds, self.space.size, scores, timers and timers.seconds)

    def _run_naive(self, repeat: int, timers: PartTimers | None) -> Run:
        archs = self.naive_members[repeat % self.args.repeats :: self.args.repeats]
        with self._watched(timers):
            start = time.perf_counter()
            scores = self.naive.evaluate(archs)
            seconds = time.perf_counter() - start
        scores = dict(zip(archs, scores))
        return Run(seconds, len(archs), scores, timers and timers.seconds)

    def _exact(self, evaluator: CandidateEvaluator) -> list[Trial]:
        return list(evaluator.evaluate([Proposal(Complete(a)) for a in self.space]))

    def _halving(self, evaluator: CandidateEvaluator) -> list[Trial]:
        searcher = HalvingSearcher(self.space, **self.halving_options)
        return [run_search(searcher, evaluator.evaluate, {}, lambda trial: None)]

    def _watched(self, timers: PartTimers | None):
        return watch_parts(timers, self.model) if timers else nullcontext()

    def evaluator(self, archval: DataLoader) -> CandidateEvaluator:
        """A new one: it knows no batch norms from the repeat before."""
        ours = self.candidates
        return CandidateEvaluator(
            self.model,
            ours.evaluator,
            archval,
            ours.calibration,
            score=ours.score,
            num_minibatches=ours.num_minibatches,
            fp16=self.args.fp16,
            plain=self.args.plain,
        )

    def setting(self) -> dict:
        """What was benchmarked, for the record."""
        ours = self.candidates
        return dict(
            config=Path(self.args.config).name,
            checkpoint=Path(self.args.checkpoint).name,
            checkpoint_digest=file_digest(self.args.checkpoint),
            cfg_options=self.args.cfg_options,
            repeats=self.args.repeats,
            device=self.args.device,
            fp16=self.args.fp16,
            plain=self.args.plain,
            candidates=self.space.size,
            naive_candidates=len(self.naive_members),
            archval_images=len(self.naive.archval.dataset),
            calibration_images=len(self.naive.calibration.dataset),
            batch_size=ours.archval.batch_size,
            halving=HalvingSearcher(self.space, **self.halving_options).to_json(),
        )

    def warm_up(self) -> None:
        """Whatever happens once per process: it is of no search's cost."""
        arch = self.space.members[0]
        self.naive.evaluate([arch])
        evaluator = self.evaluator(self.candidates.archval)
        evaluator.evaluate([Proposal(Complete(arch))])


def evenly(items: list, count: int | None) -> list:
    """So many of them, evenly spread; ``None`` is all."""
    count = len(items) if count is None else min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def plain_loader(cfg: dict, ours: DataLoader) -> DataLoader:
    """mmengine's own loader of the images of ours, in the same batches."""
    cfg = copy.deepcopy(cfg)
    cfg.pop('batch_sampler', None)
    # an order of ours counts from the images that the config's data set has left
    left, drawn = cfg['dataset'].get('indices'), list(ours.sampler)
    if isinstance(left, (list, tuple)):
        drawn = [left[i] for i in drawn]
    cfg['dataset'] = dict(cfg['dataset'], indices=drawn)
    sampler = dict(type='DefaultSampler', shuffle=False)
    return Runner.build_dataloader(dict(cfg, sampler=sampler, drop_last=False))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of a stage search')
    parser.add_argument('checkpoint', help='checkpoint of its supernet')
    parser.add_argument('--out', required=True, help='folder for the results')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument(
        '--seeds', type=int, default=5, help='of (c); beyond the repeats (c) runs alone'
    )
    parser.add_argument('--candidates', type=int, help='default: the whole space')
    parser.add_argument('--naive', type=int, help='candidates of (a); default: all')
    parser.add_argument('--archval', type=int, help='images; default: all')
    parser.add_argument('--calibration', type=int, help="images; default: the config's")
    parser.add_argument('--device', default=get_device())
    parser.add_argument('--fp16', action='store_true', help='all three under autocast')
    parser.add_argument(
        '--plain', action='store_true', help="ours in mmdet's arithmetic, bit for bit"
    )
    parser.add_argument(
        '--halving', nargs='+', action=DictAction, help='options of HalvingSearcher'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args()


def load_config(args: argparse.Namespace) -> Config:
    """The search config as the command line has it."""
    # which step a config like ours is read for
    cfg = read_config(args.config, args.cfg_options)
    if 'searcher' not in (cfg.get('test_cfg') or {}):
        raise UserError(
            f'The benchmark needs a search config, but {args.config} has '
            f'test_cfg={cfg.get("test_cfg")}. Inherit one of configs/crnas.'
        )
    if args.archval is not None:
        cfg.test_dataloader.dataset.indices = args.archval
    if args.calibration is not None:
        cfg.test_cfg.calibration_images = args.calibration
    cfg.load_from, cfg.launcher = args.checkpoint, 'none'
    cfg.work_dir, cfg.log_level = args.out, 'ERROR'
    return cfg


@user_errors()
def main() -> None:
    args = parse_args()
    benchmark = Benchmark(load_config(args), args)
    naive = len(benchmark.naive_members)
    if not 1 <= args.repeats <= naive:
        raise UserError(
            f'--repeats must be from 1 to the number of candidates of the naive loop, '
            f'{naive}, which it deals out, but got {args.repeats}.'
        )
    results = SpeedResults(args.out, benchmark.setting())
    benchmark.warm_up()
    cuda = args.device.startswith('cuda')
    if cuda:
        for way in 'abc':
            results.add_split(way, benchmark.run(way, 0, PartTimers(cuda=True)))
    for repeat in range(max(args.repeats, args.seeds)):
        ways = 'abc' if repeat < args.repeats else 'c'
        for way in ways[:: -1 if repeat % 2 else 1]:
            if repeat in results.runs[way]:
                continue
            run = benchmark.run(way, repeat, None if cuda else PartTimers())
            results.add(way, repeat, run)
            results.write()
    print(results.table())


if __name__ == '__main__':
    main()
