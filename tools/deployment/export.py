r"""Exports a trained detector to ONNX or OpenVINO, and scores it as it runs there.

    python tools/deployment/export.py work_dirs/mine/result/mine_cr.py \
        work_dirs/mine/result/best.pth --to onnx

best.onnx is backbone, neck and dense head, best.bbox_head.onnx that of a two-stage
detector per RoI, and best.onnx.json says what went in and what it scored.
"""

import argparse
from pathlib import Path

from mmcr.checks import check_integer
from mmcr.cli import place, user_errors
from mmcr.data.checks import check_config
from mmcr.engine.launch import (
    add_cfg_options,
    add_check_images,
    add_trust,
    read_config,
)
from mmcr.errors import UserError
from mmcr.models.runtimes import PRECISIONS, SUFFIXES, check_runtime
from mmcr.models.weights.checkpoint import check_there, only_weights
from mmcr.registry import config_errors
from mmcr.workflow.deploy import export

RUNTIMES = dict(onnx='onnxruntime', openvino='openvino')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=place, help='config of the detector')
    parser.add_argument('checkpoint', type=place, help='checkpoint of the detector')
    parser.add_argument(
        '--to', required=True, choices=RUNTIMES, help='what is to run the detector'
    )
    parser.add_argument(
        '--out',
        type=place,
        help='the file to write, a new one that ends in .onnx or .xml (default: beside '
        'the checkpoint)',
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='fp32',
        help='fp16: weights of 16 bits; int8: convolutions and matrix products in '
        'integers, their ranges from training images (default: %(default)s)',
    )
    parser.add_argument(
        '--calibration-images',
        type=int,
        default=32,
        metavar='N',
        help='of the training set, for int8 (default: %(default)s)',
    )
    parser.add_argument(
        '--images',
        type=int,
        metavar='N',
        help='score on the first N images of the test set (default: on all)',
    )
    add_cfg_options(parser)
    add_check_images(parser)
    add_trust(parser)
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    runtime = RUNTIMES[args.to]
    suffix = SUFFIXES[runtime]
    out = Path(args.out or Path(args.checkpoint).with_suffix(suffix))
    if out.suffix != suffix:
        raise UserError(f'The file for {args.to} must end in {suffix}, but got {out}.')
    check_integer('--calibration-images', args.calibration_images)
    if args.images is not None:
        check_integer('--images', args.images)
    check_there(args.checkpoint)
    check_runtime(runtime, args.precision)
    only_weights(args.trust_checkpoint)
    cfg = read_config(args.config, args.cfg_options)
    with config_errors(f'The data of {args.config} cannot be understood'):
        print(check_config(cfg, args.check_images), flush=True)
    given = args.precision, args.images, args.calibration_images
    record = export(cfg, args.checkpoint, out, *given)
    score = record['score']
    difference = round(score['difference'], 4) + 0.0  # no -0
    print(
        f'{score["metric"]} on {record["images"]} images: torch {score["torch"]:.4f}, '
        f'{runtime} ({args.precision}) {score["runtime"]:.4f}, difference '
        f'{difference:+.4f}.\n'
        f'Written to {out.parent}: {", ".join(record["files"].values())} and '
        f'{out.name}.json.'
    )


if __name__ == '__main__':
    main()
