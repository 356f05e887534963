r"""Draws the effective receptive fields of a detector's levels (CR-NAS, Fig. 1).

    python tools/analysis_tools/erf.py my_detector.py best.pth \
        --against result/my_detector_cr.py result/best.pth --images test

Writes erf.png, erf.md and erf.json. Without a checkpoint a network has the weights that
its config starts it from.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmcr.checks import check_integer
from mmcr.cli import place, user_errors
from mmcr.engine.launch import add_shape, add_trust, read_config, shape_of
from mmcr.errors import UserError
from mmcr.files import check_output, made_folder
from mmcr.models.weights.checkpoint import only_weights
from mmcr.report.erf import (
    Field,
    fields_figure,
    fields_record,
    fields_table,
    receptive_fields,
)
from mmcr.report.pages.detector import detector_of
from mmcr.report.tables import write_results
from mmcr.scoring.loaders import build_loader


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=place, help='config of a detector')
    parser.add_argument('checkpoint', nargs='?', type=place, help='of it, trained')
    parser.add_argument(
        '--against',
        nargs='+',
        type=place,
        metavar='CONFIG CHECKPOINT',
        help='another detector, below it: its config and, if it has one, checkpoint',
    )
    parser.add_argument(
        '--images',
        choices=('random', 'test'),
        default='random',
        help='normal noise, or images of test_dataloader, resized to --shape (default: '
        'random)',
    )
    parser.add_argument(
        '--count', type=int, default=20, help='of the images (default: 20)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of noise and weights')
    add_shape(parser, 512, 512)
    parser.add_argument(
        '--out', type=place, default='.', help='folder to write to (default: this one)'
    )
    add_trust(parser)
    return parser.parse_args()


def images_of(
    args: argparse.Namespace, cfg: Config, detector: nn.Module
) -> Iterator[Tensor]:
    """One image at a time, (1, 3, height, width)."""
    shape = shape_of(args)
    if args.images == 'random':
        random = torch.Generator().manual_seed(args.seed)
        for _ in range(args.count):
            yield torch.randn(1, 3, *shape, generator=random)
        return
    loader = cfg.get('test_dataloader') or {}
    if not loader.get('dataset'):
        raise UserError(
            f'--images test takes those of test_dataloader, but {cfg.filename} has '
            f'none with a dataset. Add one, or leave --images out.'
        )
    loader = build_loader(dict(loader, batch_size=1), 'test_dataloader')
    for data in islice(loader, args.count):
        inputs = detector.data_preprocessor(data)['inputs']
        yield nn.functional.interpolate(inputs, shape, mode='bilinear')


def measured(args: argparse.Namespace) -> dict[str, list[Field]]:
    """The fields of the detectors by name."""
    networks = {}
    others = [[*args.against, None][:2]] if args.against else []
    for path, checkpoint in ([args.config, args.checkpoint], *others):
        cfg = read_config(path)
        torch.manual_seed(args.seed)
        detector = detector_of(cfg, path, checkpoint)
        name = Path(path).stem
        name = f'{name} (2)' if name in networks else name
        networks[name] = receptive_fields(detector, images_of(args, cfg, detector))
    return networks


@user_errors()
def main() -> None:
    args = parse_args()
    check_integer('--count', args.count)
    only_weights(args.trust_checkpoint)
    if len(args.against or ()) > 2:
        raise UserError(
            f'--against takes a config and a checkpoint, but got {args.against}.'
        )
    MMLogger.get_instance('erf', log_level='ERROR')
    out = Path(args.out)
    with made_folder(out):
        for name in ('erf.png', 'erf.md', 'erf.json'):
            check_output('What is written', out / name)
        networks = measured(args)
        text = fields_table(networks)
        write_results(out, 'erf', text, fields_record(networks))
        fields_figure(networks).savefig(out / 'erf.png', dpi=150)
    print(f'{text}Written to {out}.')


if __name__ == '__main__':
    main()
