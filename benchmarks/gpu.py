"""All that wants a GPU: one command, sized for 25 minutes, one page.

    python benchmarks/gpu.py --out gpu

- step: a training step of ResNet-50's stage supernet at full width with shared first
  blocks, in time and memory, with and without AMP and recomputation (`with_cp`).
- search: a search on images of 800 pixels against the naive loop (`search_speed.py`).
- nccl: a short training and a search by torchrun on one device against those without.
- warm: a supernet that starts from a detector, on 2,000 images of the embedded data set
  (`warm.py`).

A part that fails says so on the page, and the others are run all the same. On a CPU,
where mmcv's operators have no half precision, AMP is left out.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from speed_results import hardware, versions
from training_steps import Trainee, batch_of, detector_cfg

from mmcr.cli import user_errors
from mmcr.cost.budget import budget_space
from mmcr.data import write_shapes
from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.files import write_bytes
from mmcr.models.detector import supernet_of
from mmcr.models.weights.checkpoint import write_weights
from mmcr.registry import MODELS
from mmcr.report.tables import markdown_table
from mmcr.workflow.reallocation import Reallocation
from mmcr.workflow.settings import settings_of
from mmcr.workflow.steps import TOOLS, tool_environment

HERE = Path(__file__).parent
LOOSE = [0.05, 0.1]  # IoU at which detections of random weights count
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    image: tuple[int, int] = (800, 1333)
    batch: int = 2
    base: int = 64  # base_channels of ResNet-50
    paths: int = 3
    repeats: int = 5
    pixels: int = 800  # of the images that are searched on
    archval: int = 200
    candidates: int = 32
    naive: int = 6
    halving: tuple[str, ...] = ()  # options of search_speed.py
    iterations: int = 20  # over NCCL
    images: int = 2000
    epochs: int = 4
    compared: int = 4  # paths of the warm supernet


SMALLEST = Sizes(
    *((64, 64), 1, 8, 2, 1),
    *(64, 20, 4, 1, ('--halving', 'rungs=2', 'eta=2', 'finalists=2')),
    *(2, 16, 1, 2),
)


def call(script: Path, *arguments: object, processes: int = 0) -> None:
    """Runs a script, by torchrun where a number of processes is given.

    Raises:
        UserError: It fails; with the end of what it said.
    """
    command = [sys.executable]
    if processes:
        command += ['-m', 'torch.distributed.run', '--standalone']
        command.append(f'--nproc_per_node={processes}')
    command += [str(script), *map(str, arguments)]
    done = subprocess.run(
        command, env=tool_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise UserError(f'{script.name} failed: {" / ".join(said)}')


def part_step(out: Path, sizes: Sizes) -> str:
    """Time and memory of steps at full width."""
    init_default_scope('mmdet')
    batch, small = batch_of(sizes.batch, *sizes.image), batch_of(1, 64, 64)
    cells = []
    for amp in (False, True) if DEVICE == 'cuda' else (False,):
        for with_cp in (False, True):
            trainee = Trainee(_full_width(sizes.base, with_cp), DEVICE, amp)
            rng, space = Random(0), trainee.model.backbone.space
            paths = [space.sample(rng) for _ in range(sizes.paths)]
            deepest = space.member([max(c.values) for c in space.choices])
            for path in paths:
                trainee.step(batch, path)  # warms up
            seconds = [
                trainee.timed(batch, path)[0]
                for _ in range(sizes.repeats)
                for path in paths
            ]
            peaks = [
                trainee.step_bytes(batch, small, path) for path in (paths[0], deepest)
            ]
            cells.append(
                [
                    'AMP' if amp else 'float32',
                    'with_cp' if with_cp else '-',
                    f'{1000 * median(seconds):.0f} ms',
                    *(f'{peak / 2**20:.0f} MiB' for peak in peaks),
                ]
            )
            del trainee
    columns = ['precision', 'recomputation', 'step', 'peak', 'of the deepest path']
    return (
        f'ResNet-50 with base_channels={sizes.base}, {sizes.batch} images of '
        f'{sizes.image[0]} x {sizes.image[1]}; peaks above what is there between '
        f'steps.\n\n{markdown_table(columns, cells, words=(0, 1))}'
    )


def _full_width(base: int, with_cp: bool) -> torch.nn.Module:
    cfg = detector_cfg(
        'r50-stage', base_channels=base, stem_channels=base, share='prefix'
    )
    cfg.backbone.with_cp = with_cp
    cfg.neck.in_channels = [4 * base * 2**i for i in range(4)]
    torch.manual_seed(0)
    return MODELS.build(cfg)


def part_search(out: Path, sizes: Sizes) -> str:
    """At 800 pixels, on random weights: they decide no cost."""
    searching, checkpoint = _supernet(out, sizes)
    call(
        HERE / 'search_speed.py',
        *(searching, checkpoint, '--out', out, '--device', DEVICE, '--seeds', 1),
        *('--repeats', 1, '--candidates', sizes.candidates, '--naive', sizes.naive),
        *sizes.halving,
    )
    return (out / 'search_speed.md').read_text()


def part_nccl(out: Path, sizes: Sizes) -> str:
    """One process in a group trains and searches as one without does."""
    searching, checkpoint = _supernet(out, sizes)
    training, listed = _shortened(out, searching, sizes)
    cells, scores = [], []
    for name, processes, launcher in (
        ('alone', 0, ()),
        ('nccl' if DEVICE == 'cuda' else 'gloo', 1, ('--launcher', 'pytorch')),
    ):
        seconds = []
        for tool, *arguments in (
            ('train.py', training),
            ('search.py', listed, checkpoint),
        ):
            start, folder = time.perf_counter(), out / f'{name}_{tool[:-3]}'
            options = '--work-dir', folder, '--check-images', 'none', *launcher
            call(TOOLS / tool, *arguments, *options, processes=processes)
            seconds.append(time.perf_counter() - start)
        lines = map(json.loads, (out / f'{name}_search/trials.jsonl').open())
        said = (each.get('score') for each in lines)  # the header has a score's name
        scores.append([score for score in said if isinstance(score, float)])
        cells.append([name, *(f'{each:.0f} s' for each in seconds)])
    first, second = scores
    if len(first) != len(second) or not first:
        raise UserError(f'The searches scored {len(first)} and {len(second)} networks.')
    apart = max(abs(a - b) for a, b in zip(first, second))
    table = markdown_table(['process', 'training', 'search'], cells, words=(0,))
    return (
        f'{table}\nScores of {len(first)} networks differ by {apart:g} at the most.\n'
    )


def _shortened(out: Path, searching: Path, sizes: Sizes) -> tuple[Path, Path]:
    """Configs of a training of a few iterations and of a search of a few networks."""
    few = dict(by_epoch=False, interval=sizes.iterations)
    train = read_config(out / 'steps/01_stage_supernet/config.py')
    train.train_cfg = dict(
        type='IterBasedTrainLoop', max_iters=sizes.iterations, val_interval=10**6
    )
    train.default_hooks.checkpoint.update(few)
    search = read_config(searching)
    backbone, final = supernet_of(search)
    members = list(budget_space(backbone, final, search.test_cfg.budget))
    archs = [list(arch.values()) for arch in members[:: len(members) // sizes.paths]]
    search.test_cfg.searcher = dict(type='mmcr.ListedSearcher', archs=archs)
    search.test_cfg.pop('gate', None)
    paths = out / 'short.py', out / 'listed.py'
    for path, cfg in zip(paths, (train, search)):
        write_bytes(path, cfg.pretty_text.encode())
    return paths


def _supernet(out: Path, sizes: Sizes) -> tuple[Path, Path]:
    """Config of a search on large images, and a checkpoint of random weights."""
    data, steps = out / 'data', out / 'steps'
    config, checkpoint = steps / '02_stage_search/config.py', out / 'supernet.pth'
    if checkpoint.exists():
        return config, checkpoint
    size = sizes.pixels, sizes.pixels
    _write_data(data, size, 2 * sizes.archval, sizes.archval, 4)
    cfg = read_config(HERE / 'shapes_r50.py')
    cfg.pop('reallocation')
    widths = [4 * sizes.base * 2**i for i in range(4)]
    cfg.model.test_cfg.rcnn.update(score_thr=0.0)
    cfg.model.backbone.update(
        base_channels=sizes.base,
        stem_channels=sizes.base,
        zero_init_residual=False,  # or all paths were alike before any training
    )
    cfg.model.neck.in_channels = widths
    _place(cfg, data, size)
    settings = settings_of(
        dict(
            archval=str(data / 'archval.json'),
            **dict(width=1.0, dilations=False),
            supernet=dict(test_evaluator=dict(iou_thrs=LOOSE)),
        )
    )
    Reallocation(cfg, 'r50', steps, settings).write()
    torch.manual_seed(0)
    model = MODELS.build(read_config(config).model)
    model.init_weights()
    write_weights(checkpoint, model.state_dict())
    return config, checkpoint


def _write_data(
    data: Path, size: tuple[int, int], trained: int, held_out: int, tested: int
) -> None:
    """Images of the embedded data set, some of the training's held out."""
    write_shapes(data, trained + held_out, size, split='train')
    write_shapes(data, tested, size, split='test')
    call(
        TOOLS / 'dataset_converters/split_coco.py',
        *(data / 'train.json', '--archval', held_out, '--out-dir', data),
    )


def _place(cfg: Config, data: Path, size: tuple[int, int] | None = None) -> None:
    """Puts a config's data elsewhere, its images to another size."""
    for part in ('train', 'val', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        dataset.data_root = f'{data}/'
        for step in dataset.pipeline:
            if size and 'scale' in step:
                step.scale = size
    cfg.train_dataloader.dataset.ann_file = 'archtrain.json'
    for part in ('val', 'test'):
        cfg[f'{part}_evaluator'].ann_file = str(data / 'test.json')


def part_warm(out: Path, sizes: Sizes) -> str:
    """A detector, the supernet that starts from it, its paths."""
    data = out / 'embedded'
    half = sizes.images // 2
    _write_data(data, (192, 192), sizes.images, half, half)
    cfg = read_config(HERE.parent / 'configs/demo/shapes.py')
    _place(cfg, data)
    cfg.train_cfg.update(max_epochs=sizes.epochs, val_interval=sizes.epochs)
    cfg.reallocation = dict(archval=str(data / 'archval.json'))
    cfg.default_hooks.logger.interval = 100
    write_bytes(out / 'mine.py', cfg.pretty_text.encode())
    folder = out / 'warm'
    call(HERE / 'warm.py', out / 'mine.py', '--out', folder, '--paths', sizes.compared)
    return (folder / 'warm.md').read_text()


PARTS: dict[str, Callable[[Path, Sizes], str]] = dict(
    step=part_step, search=part_search, nccl=part_nccl, warm=part_warm
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', required=True, type=Path, help='folder for all of it')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=[*PARTS])
    parser.add_argument('--smallest', action='store_true', help='to see that it runs')
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    sizes, failed = SMALLEST if args.smallest else Sizes(), []
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    known = ', '.join(map(' '.join, versions().items()))
    text = f'# On a GPU\n\n{hardware(DEVICE)}; {known}. `{" ".join(sys.argv)}`\n'
    for name in args.parts:
        start = time.perf_counter()
        try:
            found = PARTS[name](out, sizes)
        except Exception as error:  # the others are worth having all the same
            failed.append(name)
            found = f'Failed: {type(error).__name__}: {error}\n'
        taken = time.perf_counter() - start
        text += f'\n## {name.capitalize()}\n\n{found}\n{taken:.0f} s in all.\n'
        write_bytes(out / 'gpu.md', text.encode())
        print(f'{name}: {taken:.0f} s{" (failed)" * (name in failed)}', flush=True)
    print(text)
    if failed:
        raise UserError(f'{", ".join(failed)} failed: see {out}/gpu.md.')


if __name__ == '__main__':
    main()
