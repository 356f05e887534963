"""How long a step takes here and in how much memory: a few of its iterations, timed.

``python -m mmcr.workflow.estimate CONFIG`` prints what `Estimate` holds, as JSON. In a
process of its own, so that its memory is the step's and its end leaves nothing.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from mmcr.engine.launch import build_runner, read_config
from mmcr.errors import UserError
from mmcr.registry import HOOKS
from mmcr.training import InPlaceDistillationHook
from mmcr.workflow.continuation import validated_every
from mmcr.workflow.steps import tool_environment

TIMED = 3  # iterations after the first
ENOUGH = 20.0  # seconds after which no further one is timed


@dataclass(frozen=True)
class Estimate:
    """Of a config that trains a network or a supernet.

    Attributes:
        iteration: Seconds of a training iteration.
        iterations: How many the training has.
        batch: Seconds of scoring a batch of the test loader, without a search's
            sharing of common beginnings.
        batches: How many the test loader has.
        memory: Bytes at the most, of the device or, on a CPU, of the process.
        validated: Images that the training validates on, all times together.
        batch_size: Of the test loader.
        startup: Seconds until a process of it works.
    """

    iteration: float
    iterations: int
    batch: float
    batches: int
    memory: int
    validated: int = 0
    batch_size: int = 1
    startup: float = 0.0

    @property
    def training(self) -> float:
        """Seconds of the training, with its validations."""
        validation = self.batch * self.validated / self.batch_size
        return self.iteration * self.iterations + validation

    @property
    def testing(self) -> float:
        """Seconds of one pass over the test loader."""
        return self.batch * self.batches


def estimate(config: Path) -> Estimate:
    """Times a config's step in a process of its own.

    Raises:
        UserError: The step cannot run; with its own message.
    """
    begin = time.time()
    done = subprocess.run(
        [sys.executable, '-m', 'mmcr.workflow.estimate', str(config)],
        env=tool_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ['it printed nothing']
        raise UserError(
            f'{config.parent.name} cannot run: {lines[-1].removeprefix("error: ")} '
            f'(tried by python -m mmcr.workflow.estimate {config})'
        )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Estimate(**{**found, 'startup': found['startup'] - begin})


def measure(cfg: Config) -> Estimate:
    """Times a few iterations of the config's training and test in this process."""
    cfg.default_hooks = dict()
    hooks = [hook.copy() for hook in cfg.get('custom_hooks') or []]
    cfg.custom_hooks = []
    cfg.visualizer = dict(type='Visualizer')
    val_loader, val_cfg = cfg.get('val_dataloader'), cfg.get('val_cfg')
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.load_from, cfg.resume = None, False
    test_loader = cfg.test_dataloader
    cfg.test_dataloader = cfg.test_cfg = cfg.test_evaluator = None
    _without_weights(cfg.model)
    runner = build_runner(cfg)
    MMLogger.get_current_instance().setLevel('ERROR')
    model = runner.model
    backbone = getattr(getattr(model, 'module', model), 'backbone', None)
    space, rng = getattr(backbone, 'space', None), Random(0)
    for hook in hooks:
        if str(hook.get('type')).endswith(InPlaceDistillationHook.__name__):
            HOOKS.build(hook).before_train(runner)  # its forwards take time, too
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    optimizer = runner.build_optim_wrapper(cfg.optim_wrapper)
    batches = _endless(loader)

    def train() -> None:
        if space is not None:
            backbone.set_arch(space.sample(rng))
        model.train()
        model.train_step(next(batches), optimizer)

    started = time.time()
    iteration = _timed(train)
    batch, number, batch_size = 0.0, 0, 1
    if test_loader is not None:
        test = Runner.build_dataloader(test_loader, seed=0)
        number, images = len(test), _endless(test)
        batch_size = test_loader.get('batch_size', 1)

        @torch.no_grad()
        def score() -> None:
            model.eval()
            model.test_step(next(images))

        batch = _timed(score)
    loop = cfg.train_cfg
    validated = _validated(loop, val_loader, val_cfg) if val_loader else 0
    iterations = loop.get('max_iters') or loop.get('max_epochs', 1) * len(loader)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        memory = torch.cuda.max_memory_allocated()
    return Estimate(
        *(iteration, iterations, batch, number, memory, validated, batch_size),
        startup=started,
    )


def _validated(train_cfg: Mapping, loader: Mapping, val_cfg: Mapping) -> int:
    """Images that all validations of a training see."""
    end = train_cfg.get('max_iters') or train_cfg.get('max_epochs', 1)
    times = end // validated_every(train_cfg)
    paths = len(val_cfg.get('archs') or [None])
    return times * paths * len(DATASETS.build(loader['dataset']))


def _without_weights(model: dict) -> None:
    """What a network starts from takes no part in how long it takes."""
    for value in list(model.values()):
        if isinstance(value, dict):
            _without_weights(value)
    model.pop('init_cfg', None)


def _endless(loader):
    while True:
        yield from loader


def _timed(run: Callable[[], None]) -> float:
    """Median seconds; the first call, which fills caches, is left out."""

    def seconds() -> float:
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    begin = time.perf_counter()
    first = seconds()
    times = []
    while len(times) < TIMED and (not times or time.perf_counter() - begin < ENOUGH):
        if first > ENOUGH:
            return first
        times.append(seconds())
    return median(times)


def main() -> None:
    cfg = read_config(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        cfg.launcher = 'none'
        print(json.dumps(asdict(measure(cfg))))


if __name__ == '__main__':
    from mmcr.cli import user_errors

    with user_errors():
        main()
