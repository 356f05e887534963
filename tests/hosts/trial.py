"""What is tried with a host, and the page that tells it."""

import copy
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from mmengine.config import Config, ConfigDict
from nets import some_archs

from mmcr.cost.budget import budget_space
from mmcr.cost.complexity import _count
from mmcr.cost.macs import PRODUCTS
from mmcr.engine.export import arch_fragment
from mmcr.engine.launch import build_trainer
from mmcr.errors import UserError
from mmcr.search import Complete, Proposal
from mmcr.workflow.baseline import build

from .shrunk import (
    SIZE,
    candidates_of,
    host_cfg,
    is_csp,
    kind_of,
    mmdets,
    plain_loop,
    searchable,
    stays,
    theirs,
)
from .table import HOSTS, OUT, RUNS

CLOSE = 1e-4  # of scores that are not computed as mmdet does
#: The metric, and what moves with all detections, also where AP is 0.
COMPARED = ('coco/bbox_mAP', 'answers/score')
PAGE = """\
# Hosts

Made by `python -m tests.hosts`; do not edit.

Each is a config of mmdet's own, made small: a narrow supernet of stages in the place of
its backbone, drawn images of {size} pixels, one process on a CPU. What is tried:

- **strides**: the backbone that takes the place gives the neck the strides, and one of
  the host's own kind the channels, that mmdet's own does;
- **fragment**: a found backbone, merged into the config (`_base_.cr_arch`), keeps these
  and the weights to start from, or is refused because the host has another kind;
- **trained**: two iterations with a path drawn in each, all losses finite;
- **scores** of two paths by a search against a plain loop (the path's own detector with
  inherited weights and norms from scratch, mmdet's own test): equal to the bit with
  `plain`, and within {close} by default;
- **budget**: `of='detector'` is what a count of the whole found detector gives.

| host | backbone | strides | fragment | trained | scores, plain | by default | budget |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

From their config to a verdict, by `tools/reallocate.py` at the smallest size (slow
tests, ConvNeXt where mmpretrain is installed), went RTMDet, YOLOX, a Swin and

{runs}

Not in the table:

| host | |
| --- | --- |
{out}
"""


@dataclass(frozen=True)
class Row:
    """What came out of one host."""

    name: str
    backbone: str
    strides: str
    fragment: str
    trained: str
    plain: str
    default: str
    budget: str

    @property
    def text(self) -> str:
        return f'| {" | ".join(vars(self).values())} |'


def tried(name: str, root: Path, work_dir: Path) -> Row:
    """Tries a host; raises where something is not as the page says."""
    host = mmdets(name)
    kind = kind_of(host)
    strides = reused(host)
    return Row(
        f'`{name}`',
        kind if stays(host) else f'ResNet for {kind}',
        ', '.join(map(str, strides)),
        merged(host, name, work_dir),
        *scored(name, root, work_dir),
        budgeted(host_cfg(name, root, work_dir)),
    )


def reused(host: Config) -> list[int]:
    """The strides at the neck, which are those of mmdet's own backbone there."""
    channels, strides = theirs(host)
    ours = build(searchable(host))
    assert list(ours.out_strides) == strides, (ours.out_strides, strides)
    if stays(host):
        assert list(ours.out_channels) == channels, (ours.out_channels, channels)
    return strides


def merged(host: Config, name: str, work_dir: Path) -> str:
    """What becomes of a fragment in the host's config: it fits, or is refused."""
    own = host.model.backbone
    found = dict(type='mmcr.CRResNet', depth=own.get('depth', 50))
    if is_csp(host):
        found = searchable(host)
    elif own.type == 'ResNeXt':
        found.update(type='mmcr.CRResNeXt', groups=own.groups, base_width=4)
    found.update(stage_blocks=(2, 3, 4, 5), norm_eval=False)
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / 'best_arch.py').write_text(arch_fragment(found, 'found'))
    (work_dir / 'child.py').write_text(
        f"_base_ = ['mmdet::{name}.py', 'best_arch.py']\n"
        'model = dict(backbone=_base_.cr_arch)\n'
    )
    backbone = Config.fromfile(work_dir / 'child.py').model.backbone
    if not stays(host):
        try:
            build(backbone)
        except UserError as error:
            assert 'takes no' in str(error) and 'out_indices' in str(error), error
            return 'refused'
    net = build(backbone)
    channels, strides = theirs(host)
    assert (list(net.out_channels), list(net.out_strides)) == (channels, strides)
    assert net.stage_blocks == (2, 3, 4, 5)[: len(net.stage_blocks)]
    for key in ('frozen_stages', 'norm_cfg', 'norm_eval', 'style', 'out_indices'):
        assert backbone.get(key) == own.get(key), key
    if own.get('init_cfg'):
        assert net.init_cfg['type'] == 'mmcr.ReallocatedInit'
        assert net.init_cfg['checkpoint'] == own.init_cfg.checkpoint
    return 'fits'


def scored(name: str, root: Path, work_dir: Path) -> tuple[str, str, str]:
    """Trains, and scores two paths both ways and by a plain loop."""
    cfg = host_cfg(name, root, work_dir)
    runner = build_trainer(copy.deepcopy(cfg))
    runner.train()
    history = runner.message_hub.log_scalars
    losses = [log.current() for key, log in history.items() if 'loss' in key]
    assert losses and all(map(isfinite, losses)), losses
    runner.model.eval()
    archs = some_archs(runner.model.backbone.space, 2)
    proposals = [Proposal(Complete(arch)) for arch in archs]
    found = {}
    for plain in (True, False):
        candidates = candidates_of(cfg, runner.model, root, plain=plain)
        found[plain] = [trial.metrics for trial in candidates.evaluate(proposals)]
    loop = [plain_loop(cfg, candidates, arch, root) for arch in archs]
    assert loop[0] != loop[1] and all(isfinite(loop[0][key]) for key in COMPARED)
    assert found[True] == loop
    for ours, wanted in zip(found[False], loop):
        for key in COMPARED:
            assert abs(ours[key] - wanted[key]) <= CLOSE, (key, ours, wanted)
    return 'finite', 'equal', 'equal' if found[False] == loop else 'close'


def budgeted(cfg: Config) -> str:
    """A budget of the whole detector, against a count of a found one."""
    net = build(cfg.model.backbone)
    shape = SIZE, SIZE
    budget = dict(type='macs', of='detector', limit=1e15, shape=shape)
    space = budget_space(net, {}, budget, cfg.model)
    arch = some_archs(space, 1)[0]
    detector = ConfigDict(cfg.model, backbone=net.arch_cfg(arch))
    counted = sum(cost.macs for cost in _count(detector, shape, PRODUCTS)[0].values())
    assert space.cost_of(arch) == counted, (space.cost_of(arch), counted)
    return 'equal'


def page(rows: list[Row]) -> str:
    order = {f'`{name}`': i for i, name in enumerate(HOSTS)}
    rows = sorted(rows, key=lambda row: order[row.name])
    out = '\n'.join(f'| `{name}` | {why} |' for name, why in OUT.items())
    lines = '\n'.join(row.text for row in rows)
    runs = '\n'.join(f'- `{name}`' for name in RUNS)
    return PAGE.format(size=SIZE, close=f'{CLOSE:g}', rows=lines, out=out, runs=runs)
