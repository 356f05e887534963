"""Tests a trained detector."""

import argparse
from pathlib import Path

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmengine.config import Config
from mmengine.runner import Runner

from mmcr.cli import place, user_errors
from mmcr.engine.launch import (
    add_common_arguments,
    build_runner,
    load_config,
)
from mmcr.engine.outputs import work_dir_of
from mmcr.errors import UserError
from mmcr.files import check_output
from mmcr.models.detector import unwrapped
from mmcr.models.weights.checkpoint import check_there
from mmcr.models.weights.compatibility import load_detector


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=place, help='config file')
    parser.add_argument('checkpoint', type=place, help='checkpoint file')
    add_common_arguments(parser)
    parser.add_argument(
        '--out', type=place, help='write the predictions to this .pkl file, a new one'
    )
    parser.add_argument(
        '--show', action='store_true', help='show the predictions in a window'
    )
    parser.add_argument(
        '--show-dir',
        type=place,
        help='write painted images to this folder in the work dir',
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds to show each image'
    )
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out must name a .pkl or .pickle file, but got {args.out}.')
    check_there(args.checkpoint)
    cfg.load_from = args.checkpoint
    if args.show_dir and ('..' in Path(args.show_dir).parts or args.show_dir[0] == '/'):
        raise UserError(
            f'--show-dir must name a folder inside of the one that this run makes in '
            f'the work dir, so that no image is overwritten, but got {args.show_dir}.'
        )
    if args.show or args.show_dir:
        add_painter(cfg)
        cfg = trigger_visualization_hook(cfg, args)
    with work_dir_of(cfg):  # --out may lie beside what the run makes
        if args.out is not None:
            check_output('--out', args.out)
        run(build_runner(cfg), args)


def add_painter(cfg: Config) -> None:
    """Gives a config without them the hook and the visualizer that paint images."""
    hook, painter = 'mmdet.DetVisualizationHook', 'mmdet.DetLocalVisualizer'
    cfg.default_hooks = dict(cfg.get('default_hooks') or {})
    given = cfg.default_hooks.get('visualization')
    cfg.default_hooks['visualization'] = given or dict(type=hook)
    cfg.visualizer = cfg.get('visualizer') or dict(type=painter)


def run(runner: Runner, args: argparse.Namespace) -> None:
    # mmengine would load what fits and test the rest with random weights
    load_detector(unwrapped(runner.model), args.checkpoint)
    if args.out is not None:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    runner.test()


if __name__ == '__main__':
    main()
