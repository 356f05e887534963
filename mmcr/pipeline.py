"""Computation reallocation from beginning to end, step by step (CR-NAS, Sec. 3)."""

import shutil
from collections.abc import Callable

from mmcr.analysis.comparison import Row, write_comparison
from mmcr.analysis.complexity import measure
from mmcr.analysis.sketch import Network, draw_architectures
from mmcr.errors import UserError
from mmcr.steps import ROOT, Step, StepRunner

NETWORKS = dict(baseline='baseline', stage_cr='stage CR', full_cr='full CR')


def steps(depth: int) -> list[Step]:
    """The pipeline for a ResNet of that depth, every step after those it needs."""
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


class Pipeline(StepRunner):
    """Runs the steps for a user's config.

    Args:
        config: A config whose ``_base_`` is
            ``'.../configs/{{$CR_STEP:crnas/supernet_r18}}.py'``.
        work_dir: Where every step gets a folder.
        depth: Of the ResNet.
        jobs: How many steps may run at a time where none needs the other.
        say: Where to tell how things go.
        fast: Whether to search by halving and racing.

    Raises:
        UserError: `jobs` is less than 1, the config does not follow
            ``CR_STEP``, a step failed, or the work dir is in use or holds steps
            of another config, other data or another supernet.
    """

    def __init__(
        self,
        config: str,
        work_dir: str,
        depth: int = 18,
        jobs: int = 1,
        say: Callable[[str], None] = print,
        fast: bool = False,
    ) -> None:
        super().__init__(config, work_dir, steps(depth), jobs, say, fast)

    def run(self) -> str:
        """Runs what is not done yet; returns the table of the three networks."""
        self._check_follows()
        self.run_steps()
        return self.compare()

    def _check_follows(self) -> None:
        supernet, baseline = (
            self.resolved(step).get('model', {}).get('backbone', {}).get('supernet')
            for step in self.steps[:2]
        )
        if (supernet, baseline) != ('stage', None):
            raise UserError(
                f'The config must change with the variable CR_STEP, but {self.config} '
                f'has the backbone of supernet={supernet} in the step of the stage '
                f'supernet and of supernet={baseline} in that of the baseline. Let it '
                f"inherit from '{ROOT}/configs/{{{{$CR_STEP:crnas/supernet_r18}}}}.py'."
            )

    def compare(self) -> str:
        """Writes the table and the picture of the three networks."""
        for name in ('best_arch.json', 'best_arch.py'):
            shutil.copy(self.work_dir / 'op_search' / name, self.work_dir / name)
        rows = []
        for step in self.steps:
            if step.tested:
                cfg = self.resolved(step)
                rows.append(
                    Row(
                        name=NETWORKS[step.name],
                        stage_blocks=tuple(cfg.model.backbone.stage_blocks),
                        dilations=cfg.model.backbone.get('dilations'),
                        complexity=measure(
                            cfg, tuple(cfg.get('cost_shape', (800, 1088)))
                        ),
                        metrics=self.tested_metrics(step.name),
                    )
                )
        draw_architectures(
            [
                Network(row.name, row.stage_blocks, row.dilations, row.caption)
                for row in rows
            ],
            self.work_dir / 'architectures.png',
        )
        return write_comparison(rows, self.work_dir)
