"""How long the published ResNet-50s take beside the plain one, as they run deployed.

    OMP_NUM_THREADS=1 python benchmarks/deployed_speed.py --out results

times backbone and FPN of the baseline, of reallocated stages and of stages and
dilations, which have the same multiply-accumulates, by each runtime on the CPU. All
take turns in one run; what counts are ratios within a round. Writes
DIR/deployed_speed.json and prints the table. How far sums over blocks are off is told
by latency_table.py.
"""

import argparse
import json
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmcr.cli import place, user_errors
from mmcr.cost.latency import RUNTIMES
from mmcr.cost.timing import conditions, rounds_of, spread_of, warnings_of
from mmcr.engine.launch import add_shape, shape_of
from mmcr.files import check_output, write_bytes
from mmcr.models.runtimes import check_runtime, session_of
from mmcr.registry import MODELS

ARCHS = Path(__file__).parents[1] / 'configs/_base_/archs'
NETWORKS = {
    'baseline': 'r50_baseline.py',
    'stages': 'r50_stage-cr.py',
    'stages and dilations': 'r50_full-cr.py',
}


class Features(nn.Module):
    """Backbone and FPN with random weights.

    Args:
        arch: A file of `ARCHS`.
    """

    def __init__(self, arch: str) -> None:
        super().__init__()
        cfg = Config.fromfile(ARCHS / arch)
        cfg.cr_backbone.pop('_delete_')
        neck = dict(type='FPN', out_channels=256, num_outs=5)
        self.backbone = MODELS.build(cfg.cr_backbone)
        self.neck = MODELS.build(dict(neck, in_channels=cfg.cr_neck_in_channels))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.neck(self.backbone(images))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=place, required=True, help='folder of the result')
    parser.add_argument(
        '--runtime', nargs='+', choices=RUNTIMES, default=list(RUNTIMES), help='all'
    )
    parser.add_argument(
        '--clock',
        choices=['wall', 'processor'],
        default='wall',
        help='as that of latency_table.py (default: wall)',
    )
    parser.add_argument('--repeats', type=int, default=5, help='rounds (default: 5)')
    add_shape(parser, 800, 1333)
    return parser.parse_args()


def measure(about: dict, shape: tuple[int, ...]) -> dict:
    """Seconds of each network by round, and the conditions (`about`)."""
    runtime, repeats, clock = (about[name] for name in ('runtime', 'rounds', 'clock'))
    image, runs = torch.randn(1, 3, *shape), []
    with torch.no_grad():
        for arch in NETWORKS.values():
            net = Features(arch)
            net.eval()
            run = net if runtime == 'torch' else session_of(net, image, runtime)
            runs.append(lambda run=run: run(image))
        columns = list(zip(*rounds_of(runs, 'cpu', repeats, clock)))
    about['spread_percent'] = round(100 * median(map(spread_of, columns)), 2)
    about['warnings'] = warnings_of(about, 'cpu')
    return dict(about=about, seconds=dict(zip(NETWORKS, columns)))


def row(runtime: str, result: dict) -> str:
    """A line of the table: each network's ratio to the baseline, with its range."""
    first = result['seconds']['baseline']
    cells = [runtime, f'{median(first):.2f} s']
    for name in list(NETWORKS)[1:]:
        ratios = [a / b for a, b in zip(result['seconds'][name], first)]
        cells.append(f'{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})')
    cells.append(f'{result["about"]["spread_percent"]:.0f}%')
    return f'| {" | ".join(cells)} |'


@user_errors()
def main() -> None:
    args = parse_args()
    for runtime in args.runtime:
        if runtime != 'torch':
            check_runtime(runtime)
    out = Path(args.out) / 'deployed_speed.json'
    out.parent.mkdir(parents=True, exist_ok=True)
    check_output('--out', out)
    MMLogger.get_instance('deployed_speed', log_level='ERROR')
    init_default_scope('mmdet')
    # before all: what a runtime does is no load of others to the next one
    abouts = [conditions('cpu', args.repeats, r, args.clock) for r in args.runtime]
    results = {about['runtime']: measure(about, shape_of(args)) for about in abouts}
    write_bytes(out, (json.dumps(results, indent=1) + '\n').encode())
    print(f'| runtime | {" | ".join(NETWORKS)} | spread |')
    print(f'| --- |{" ---: |" * (len(NETWORKS) + 1)}')
    for runtime, result in results.items():
        print(row(runtime, result))
    for result in results.values():
        print(*result['about']['warnings'], sep='\n')


if __name__ == '__main__':
    main()
