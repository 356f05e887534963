r"""Takes the detector of one path out of a trained supernet, ready to be used.

    python tools/model_converters/extract_subnet.py \
        work_dirs/mine/02_stage_search/config.py \
        work_dirs/mine/01_stage_supernet/epoch_12.pth \
        work_dirs/mine/02_stage_search/best_arch.json found.pth \
        --detector my_detector.py

found.pth has the path's own weights: backbone, neck and heads, the batch norms
re-estimated on the search's calibration images, so that a test on the images of archval
gives the search's score. found.py is a plain config for mmdet's own tools. The backbone
alone starts another detector by init_cfg=dict(type='Pretrained',
checkpoint='found.pth', prefix='backbone.').
"""

import argparse
from pathlib import Path

from mmengine.logging import MMLogger

from mmcr.cli import place, user_errors
from mmcr.engine.export import read_arch
from mmcr.engine.extract import opened, path_config, write_config, write_path
from mmcr.engine.launch import add_trust, read_config
from mmcr.errors import UserError
from mmcr.files import check_output
from mmcr.models.detector import supernet_of
from mmcr.models.weights.checkpoint import check_there, only_weights


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'config', type=place, help='config of the search, or of the supernet'
    )
    parser.add_argument('checkpoint', type=place, help="the supernet's checkpoint")
    parser.add_argument(
        'arch', type=place, help='best_arch.json of a search, or one of its front'
    )
    parser.add_argument(
        'out', type=place, help='checkpoint to write, a new file that ends in .pth'
    )
    parser.add_argument(
        '--detector',
        type=place,
        metavar='CONFIG',
        help='config of the detector, for data and schedule of the one that is '
        "written (default: the search's, tested on archval)",
    )
    parser.add_argument(
        '--calibration-images',
        type=int,
        metavar='N',
        help='for the norms (default: as many as in the search; 0: the statistics that '
        'the training left, which fit no single path)',
    )
    add_trust(parser)
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    out = Path(args.out)
    if out.suffix != '.pth':
        raise UserError(f'The checkpoint to write must end in .pth, but got {out}.')
    for path in out, out.with_suffix('.py'):
        check_output('The file to write', str(path))
    only_weights(args.trust_checkpoint)
    MMLogger.get_instance('extract_subnet', log_level='ERROR')
    cfg = read_config(args.config)
    cfg.log_level = 'ERROR'
    supernet_of(cfg)
    arch = read_arch(args.arch)
    check_there(args.checkpoint)
    detector = args.detector and read_config(args.detector)
    with opened(cfg, args.checkpoint, args.calibration_images) as candidates:
        write_path(out, candidates, arch, args.checkpoint)
    write_config(out.with_suffix('.py'), path_config(cfg, arch, detector))
    print(f'Written: {out} and {out.with_suffix(".py").name} with {dict(arch)}')


if __name__ == '__main__':
    main()
