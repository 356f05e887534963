r"""Gives a reallocated backbone the weights of a public classifier or detector.

Block j of a stage takes the weights of block j; a block beyond the
checkpoint's depth starts as the identity:

    python tools/model_converters/reallocate_weights.py torchvision://resnet50 \
        configs/_base_/archs/r50_full-cr.py cr-r50.pth

A detector starts from the result by
init_cfg=dict(type='Pretrained', checkpoint='cr-r50.pth') of its backbone.
"""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmcr.checks import check_seed
from mmcr.cli import place, user_errors
from mmcr.engine.launch import add_trust, read_config
from mmcr.errors import UserError
from mmcr.files import check_output
from mmcr.models import reallocate
from mmcr.models.weights.checkpoint import (
    only_weights,
    read_weights,
    write_weights,
)
from mmcr.registry import MODELS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'checkpoint', type=place, help='file or address of the baseline'
    )
    parser.add_argument(
        'config', type=place, help='fragment (best_arch.py) or config with the backbone'
    )
    parser.add_argument('out', type=place, help='checkpoint to write, a new file')
    parser.add_argument(
        '--prefix', help="beginning of the names of the backbone's weights"
    )
    add_trust(parser)
    parser.add_argument(
        '--seed', type=int, default=0, help='of new blocks (default: %(default)s)'
    )
    return parser.parse_args()


def backbone_cfg(cfg: Config, path: str) -> dict:
    """The backbone of a fragment or of a whole config."""
    found = cfg.get('cr_backbone') or cfg.get('model', {}).get('backbone')
    if found is None:
        raise UserError(
            f'{path} must be a fragment with cr_backbone or a config with '
            f'model.backbone, but it has neither.'
        )
    found = dict(found)
    for name in ('_delete_', 'init_cfg', 'pretrained'):
        found.pop(name, None)
    return found


@user_errors()
def main() -> None:
    args = parse_args()
    check_seed('--seed', args.seed)
    check_output('The checkpoint to write', args.out)
    only_weights(args.trust_checkpoint)
    MMLogger.get_instance('reallocate_weights', log_level='ERROR')
    cfg = read_config(args.config)
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    weights = read_weights(args.checkpoint)
    torch.manual_seed(args.seed)
    backbone = MODELS.build(backbone_cfg(cfg, args.config))
    report = reallocate(weights, backbone, args.checkpoint, args.prefix)
    write_weights(Path(args.out), backbone.state_dict(), reallocation=str(report))
    print(report)
    print(f'Written: {args.out}')


if __name__ == '__main__':
    main()
