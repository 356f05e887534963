"""A search on a user's data from beginning to end, step by step.

Computation reallocation (CR-NAS, Sec. 3) or DetNAS.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mmengine.config import ConfigDict

from mmcr.cost.complexity import measure
from mmcr.engine.export import arch_fragment
from mmcr.errors import UserError
from mmcr.files import write_bytes
from mmcr.models.detector import supernet_of
from mmcr.report.comparison import Row, write_comparison
from mmcr.report.sketch import KINDS, draw_architectures
from mmcr.space import Arch
from mmcr.workflow.steps import ROOT, Step, StepRunner

METHODS = ('crnas', 'detnas')
#: What the networks that are trained and tested are called, by step.
NETWORKS = dict(
    baseline='baseline',
    stage_cr='stage CR',
    full_cr='full CR',
    shufflenetv2='ShuffleNetV2',
    found='DetNAS',
)


def crnas_steps(depth: int) -> list[Step]:
    """CR-NAS for a ResNet of that depth, every step after those it needs."""
    network = f'faster_rcnn/faster-rcnn_cr-r{depth}_fpn_1x_coco'
    baseline = str(ROOT / f'configs/_base_/archs/r{depth}_baseline.py')
    return [
        Step('stage_supernet', f'crnas/supernet_r{depth}'),
        Step('baseline', network, arch=baseline, tested=True),
        Step('stage_search', f'crnas/stage_search_r{depth}', supernet='stage_supernet'),
        Step('op_supernet', f'crnas/op_supernet_r{depth}', arch='stage_search'),
        Step('stage_cr', network, arch='stage_search', tested=True),
        Step(
            'op_search',
            f'crnas/op_search_r{depth}',
            arch='stage_search',
            supernet='op_supernet',
        ),
        Step('full_cr', network, arch='op_search', tested=True),
    ]


def detnas_steps(shufflenetv2: str) -> list[Step]:
    """DetNAS with its baseline, whose config fragment is given."""
    network = 'detnas/faster-rcnn_detnas-300m_fpn_90k_coco'
    return [
        Step('supernet', 'detnas/supernet_fpn_300m_coco'),
        Step('shufflenetv2', network, arch=shufflenetv2, tested=True),
        Step('search', 'detnas/search_fpn_300m_coco', supernet='supernet'),
        Step('found', network, arch='search', tested=True),
    ]


class Pipeline(StepRunner):
    """Runs the steps for a user's config.

    Args:
        config: A config whose ``_base_`` is
            ``'.../configs/{{$CR_STEP:crnas/supernet_r18}}.py'``.
        work_dir: Where every step gets a folder.
        depth: Of the ResNet of CR-NAS, 18 or 50; ``None``: 18.
        jobs: How many steps may run at a time where none needs the other.
        say: Where to tell how things go.
        fast: Whether to search by halving and racing; CR-NAS only.
        method: One of `METHODS`.

    Raises:
        UserError: `jobs` is less than 1, an option is not one of the method, the
            config does not follow ``CR_STEP``, a step failed, or the work dir is in
            use or holds steps of another config, other data or another supernet.
    """

    def __init__(
        self,
        config: str,
        work_dir: str,
        depth: int | None = None,
        jobs: int = 1,
        say: Callable[[str], None] = print,
        fast: bool = False,
        method: str = METHODS[0],
    ) -> None:
        _check_method(method, depth, fast)
        self.shufflenetv2 = Path(work_dir).resolve() / 'shufflenetv2.py'
        if method == 'detnas':
            steps = detnas_steps(str(self.shufflenetv2))
        else:
            steps = crnas_steps(depth or 18)
        super().__init__(config, work_dir, steps, jobs, say, fast)
        self.method = method

    def run(self) -> str:
        """Runs what is not done yet; returns the table of the networks."""
        self._check_follows()
        if self.method == 'detnas':
            self._write_shufflenetv2()
        self.run_steps()
        return self.compare()

    def _check_follows(self) -> None:
        first, network = self.steps[:2]
        supernet, baseline = (
            self.resolved(step).get('model', {}).get('backbone', {}).get('supernet')
            # the published architecture for one that may not be there yet
            for step in (first, replace(network, arch=None))
        )
        mode = 'block' if self.method == 'detnas' else 'stage'
        if (supernet, baseline) != (mode, None):
            kind = 'stage supernet' if mode == 'stage' else 'supernet'
            raise UserError(
                f'The config must change with the variable CR_STEP, but {self.config} '
                f'has the backbone of supernet={supernet} in the step of the {kind} '
                f'and of supernet={baseline} in that of the baseline. Let it inherit '
                f"from '{ROOT}/configs/{{{{$CR_STEP:crnas/supernet_r18}}}}.py'."
            )

    def _write_shufflenetv2(self) -> None:
        """Writes the fragment of the baseline, as deep and wide as what is searched."""
        (search,) = (step for step in self.steps if step.supernet)
        backbone, final = supernet_of(self.resolved(search))
        plain = Arch({choice.name: 0 for choice in backbone.space.choices})
        fragment = arch_fragment(
            {**backbone.arch_cfg(plain), **final},
            'ShuffleNetV2 as it is, with 3x3 convolutions alone.',
        )
        self.work_dir.mkdir(parents=True, exist_ok=True)
        write_bytes(self.shufflenetv2, fragment.encode())

    def compare(self) -> str:
        """Writes the table and the picture of the networks, copies the found one."""
        *_, last_search = (step for step in self.steps if step.supernet)
        for name in ('best_arch.json', 'best_arch.py'):
            shutil.copy(self.work_dir / last_search.name / name, self.work_dir / name)
        rows = [self._row(step) for step in self.steps if step.tested]
        draw_architectures(
            [row.network for row in rows], self.work_dir / 'architectures.png'
        )
        return write_comparison(rows, self.work_dir)

    def _row(self, step: Step) -> Row:
        cfg = self.resolved(step)
        return Row(
            name=NETWORKS[step.name],
            complexity=measure(cfg, tuple(cfg.get('cost_shape', (800, 1088)))),
            metrics=self.tested_metrics(step.name),
            **_shown(cfg.model.backbone),
        )


def _shown(backbone: ConfigDict) -> dict:
    """What a row shows of a backbone's blocks."""
    if 'blocks' in backbone:
        kinds = backbone.blocks
        stage_blocks = tuple(len(stage) for stage in kinds)
        return dict(stage_blocks=stage_blocks, values=kinds, legend=KINDS)
    return dict(
        stage_blocks=tuple(backbone.stage_blocks), values=backbone.get('dilations')
    )


def _check_method(method: str, depth: int | None, fast: bool) -> None:
    if method not in METHODS:
        raise UserError(
            f'method must be one of {", ".join(METHODS)}, but got {method}.'
        )
    if method == 'detnas' and depth is not None:
        raise UserError(
            f'depth is of the ResNet of crnas, but got depth={depth} with detnas. '
            f'Leave it out; the depth of DetNASNet is its stage_blocks, in the config.'
        )
    if method == 'detnas' and fast:
        raise UserError(
            'A fast search takes the place of an exhaustive or a greedy one (crnas), '
            'but detnas searches by evolution, which has no fast form. Leave --fast '
            'out; fewer generations in test_cfg.searcher make it shorter.'
        )
