r"""Takes one architecture's weights out of a trained supernet.

    python tools/model_converters/extract_subnet.py \
        configs/crnas/supernet_r50.py work_dirs/supernet_r50/epoch_25.pth \
        work_dirs/stage_search_r50/best_arch.json r50.pth

The result holds the fixed backbone's weights; a detector starts from it by
init_cfg=dict(type='Pretrained', checkpoint='r50.pth') of its backbone. Its norms
have the supernet's statistics, which fit no single path: train before testing.
"""

import argparse
from pathlib import Path

from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmcr.cli import place, user_errors
from mmcr.engine.export import read_arch
from mmcr.engine.launch import add_trust, read_config
from mmcr.errors import UserError
from mmcr.files import check_output
from mmcr.models import SearchableBackbone, inherit_weights
from mmcr.models.weights.checkpoint import (
    only_weights,
    read_weights,
    write_weights,
)
from mmcr.models.weights.compatibility import backbone_of_detector
from mmcr.registry import MODELS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of the supernet or of its search')
    parser.add_argument('checkpoint', help="the supernet's checkpoint")
    parser.add_argument('arch', help='best_arch.json of a search')
    parser.add_argument('out', type=place, help='checkpoint to write, a new file')
    add_trust(parser)
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    check_output('The checkpoint to write', args.out)
    only_weights(args.trust_checkpoint)
    MMLogger.get_instance('extract_subnet', log_level='ERROR')
    cfg = read_config(args.config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    backbone_cfg = cfg.get('model', {}).get('backbone')
    if backbone_cfg is None:
        raise UserError(f'{args.config} must define model.backbone, but it does not.')
    backbone_cfg = {
        key: value
        for key, value in backbone_cfg.items()
        if key not in ('init_cfg', 'pretrained')
    }
    supernet = MODELS.build(backbone_cfg)
    if not isinstance(supernet, SearchableBackbone) or supernet.space is None:
        raise UserError(
            f'The backbone in {args.config} must be a supernet, but it is a fixed '
            f'{type(supernet).__name__}. Give the config that the supernet was '
            f'trained with.'
        )
    arch = read_arch(args.arch)
    weights = read_weights(args.checkpoint)
    supernet.load_state_dict(backbone_of_detector(weights, supernet, args.checkpoint))
    fixed = MODELS.build(supernet.arch_cfg(arch))
    inherit_weights(supernet, fixed, arch)
    write_weights(Path(args.out), fixed.state_dict(), arch=arch.to_json())
    print(f'Written: {args.out}, {type(fixed).__name__} with {dict(arch)}')


if __name__ == '__main__':
    main()
