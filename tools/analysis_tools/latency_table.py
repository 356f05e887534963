"""Measures how long the blocks of a search's networks take on this device.

The table is what a budget of type 'latency' reads.
"""

import argparse

import torch

from mmcr.cli import place, user_errors
from mmcr.cost.beside import with_neck_and_heads
from mmcr.cost.latency import RUNTIMES, latency_table, summary
from mmcr.engine.launch import add_cfg_options, add_shape, read_config, shape_of
from mmcr.files import check_output
from mmcr.models.detector import supernet_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=place, help='config file of the search')
    add_shape(parser, 800, 1333)
    parser.add_argument(
        '--out',
        type=place,
        default='latency.json',
        help='the table, a new file (default: latency.json)',
    )
    parser.add_argument(
        '--device',
        help='cpu, cuda or cuda:N (default: the GPU where there is one, for torch)',
    )
    parser.add_argument(
        '--runtime',
        choices=RUNTIMES,
        default='torch',
        help='what runs the blocks, as the network is deployed; all but torch on the '
        'CPU (default: torch)',
    )
    parser.add_argument(
        '--of',
        choices=['backbone', 'detector'],
        default='backbone',
        help='detector: with its neck and heads, as reallocations over image scales '
        'want it; by torch (default: backbone)',
    )
    parser.add_argument(
        '--clock',
        choices=['wall', 'processor'],
        default='wall',
        help='processor: the time that this process computes, for a CPU that is busy '
        'otherwise; of one thread alone (default: wall)',
    )
    parser.add_argument(
        '--repeats',
        type=int,
        default=30,
        help='rounds; medians are taken (default: 30)',
    )
    parser.add_argument(
        '--check',
        type=int,
        default=5,
        metavar='M',
        help='how many whole backbones to time beside the blocks (default: 5)',
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.of == 'detector' and args.runtime != 'torch':
        parser.error('--of detector is timed by torch: leave --runtime out.')
    return args


@user_errors()
def main() -> None:
    args = parse_args()
    check_output('--out', args.out)
    cfg = read_config(args.config, args.cfg_options)
    backbone, final = supernet_of(cfg)
    on_gpu = args.runtime == 'torch' and torch.cuda.is_available()
    device = args.device or ('cuda' if on_gpu else 'cpu')
    given = shape_of(args), device, args.repeats, args.check, args.runtime, args.clock
    table = latency_table(backbone, final, *given)
    if args.of == 'detector':
        table = with_neck_and_heads(table, cfg.model, backbone, final, device)
    table.write(args.out)
    print(summary(table))
    print(f'Written to {args.out}.')


if __name__ == '__main__':
    main()
