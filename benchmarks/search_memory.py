"""How much host memory the detections of a search take, by number of candidates.

A ResNet stage supernet with random weights, whose detector keeps 100 boxes of every
image, scores architectures of 33 blocks in one process, in groups of `group_size`. The
peak of resident memory counts above what it was after one candidate alone; every figure
is of a process of its own. Beside detections it holds what grows with the candidates in
any case: the batch norm statistics of their paths, and what the allocator does not give
back.

    python benchmarks/search_memory.py --out DIR

Linux only.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from speed_results import hardware, versions

import mmcr.models  # noqa: F401  registers the backbones
from mmcr.cli import user_errors
from mmcr.data import CLASSES, write_shapes
from mmcr.errors import UserError
from mmcr.scoring import CandidateEvaluator, UnroundedCocoMetric
from mmcr.scoring.loaders import build_loader
from mmcr.search import Complete, Proposal
from mmcr.space import resnet_stage_space

BLOCKS = 33
SIDE = 64  # of an image, in pixels
BOXES = 100


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', required=True, help='folder for the figures')
    parser.add_argument(
        '--candidates', type=int, nargs='+', default=[8, 64, 374], metavar='N'
    )
    parser.add_argument(
        '--group-size',
        type=int,
        nargs='+',
        default=[64, 374],
        metavar='N',
        help='candidates that share a pass over archval',
    )
    parser.add_argument('--images', type=int, default=64, help='of archval')
    return parser.parse_args()


def detector() -> dict:
    """Faster R-CNN, as narrow as may be: its detections are as large as any."""
    path, _ = Config._get_cfg_path('mmdet::_base_/models/faster-rcnn_r50_fpn.py', '')
    cfg = Config.fromfile(path).model
    cfg.backbone = dict(
        type='mmcr.CRResNet',
        depth=18,
        base_channels=8,
        norm_eval=False,
        supernet='stage',
    )
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    cfg.roi_head.bbox_roi_extractor.update(out_channels=16)
    cfg.roi_head.bbox_head.update(
        in_channels=16, fc_out_channels=16, num_classes=len(CLASSES)
    )
    cfg.test_cfg.rpn.update(nms_pre=BOXES, max_per_img=BOXES)
    cfg.test_cfg.rcnn.update(score_thr=0.0, max_per_img=BOXES)
    return cfg


def loader_cfg(root: Path) -> dict:
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        ),
    ]
    # as Resize would say that nothing was resized
    pipeline.insert(1, dict(type='Resize', scale=(SIDE, SIDE), keep_ratio=True))
    return dict(
        batch_size=8,
        num_workers=0,
        dataset=dict(
            type='CocoDataset',
            data_root=f'{root}/',
            ann_file='archval.json',
            data_prefix=dict(img='archval/'),
            metainfo=dict(classes=CLASSES),
            test_mode=True,
            pipeline=pipeline,
        ),
    )


def peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmHWM:'):
            return 1024 * int(line.split()[1])
    raise UserError('Peaks of memory are read in /proc/self/status, as on Linux.')


def measure(root: Path, count: int, group_size: int) -> dict:
    """Scores `count` candidates in groups; in a new process."""
    torch.manual_seed(0)
    archval = build_loader(loader_cfg(root), 'archval')
    evaluator = Evaluator(UnroundedCocoMetric(ann_file=f'{root}/archval.json'))
    evaluator.dataset_meta = archval.dataset.metainfo
    model = MODELS.build(detector())
    calibration = build_loader(loader_cfg(root), 'calibration', num_images=8)
    candidates = CandidateEvaluator(
        model, evaluator, archval, calibration, group_size=group_size
    )
    members = list(resnet_stage_space(BLOCKS))
    proposals = [
        Proposal(Complete(members[i * len(members) // count])) for i in range(count)
    ]
    candidates.evaluate(proposals[:1])
    before = peak_bytes()
    start = time.perf_counter()
    candidates.evaluate(proposals)
    return dict(
        candidates=count,
        group_size=group_size,
        peak_growth_mib=(peak_bytes() - before) / 2**20,
        seconds_per_candidate=(time.perf_counter() - start) / count,
    )


def table(setting: dict, rows: list[dict]) -> str:
    """The figures as Markdown."""
    lines = [
        '# Host memory of a search',
        '',
        f'{setting["date"]}; {setting["hardware"]}; threads: {setting["threads"]}; '
        f'{setting["images"]} archval images, up to {BOXES} detections on each.',
        '',
        f'    {setting["command"]}',
        '',
        '| `group_size` | candidates | peak above one candidate |',
        '| ---: | ---: | ---: |',
    ]
    for row in rows:
        lines.append(
            f'| {row["group_size"]} | {row["candidates"]} | '
            f'{row["peak_growth_mib"]:.0f} MiB |'
        )
    packages = (f'{name} {number}' for name, number in setting['versions'].items())
    return '\n'.join([*lines, '', f'Versions: {", ".join(packages)}.', ''])


@user_errors()
def main() -> None:
    args = parse_args()
    largest = resnet_stage_space(BLOCKS).size
    if not 0 < min(args.candidates) <= max(args.candidates) <= largest:
        raise UserError(
            f'--candidates must be from 1 to {largest}, the architectures of {BLOCKS} '
            f'blocks, but got {args.candidates}.'
        )
    peak_bytes()
    MMLogger.get_instance('memory', log_level='ERROR')
    init_default_scope('mmdet')
    setting = dict(
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        command=' '.join(['python', *sys.argv]),
        hardware=hardware('cpu'),
        threads=torch.get_num_threads(),
        versions=versions(),
        images=args.images,
    )
    rows = []
    with tempfile.TemporaryDirectory() as root:
        write_shapes(root, args.images, (SIDE, SIDE), split='archval')
        for group_size in args.group_size:
            for count in args.candidates:
                # forked: it holds all imports, but nothing of the run before
                with multiprocessing.get_context('fork').Pool(1) as pool:
                    rows.append(pool.apply(measure, (Path(root), count, group_size)))
                print(rows[-1], flush=True)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(setting=setting, rows=rows), indent=2)
    (out / 'search_memory.json').write_text(text)
    (out / 'search_memory.md').write_text(table(setting, rows))
    print(table(setting, rows))


if __name__ == '__main__':
    main()
