"""What a run has scored, for the backends of mmengine's visualizer (TensorBoard)."""

from collections.abc import Mapping
from copy import deepcopy
from itertools import accumulate
from pathlib import Path

from mmengine.registry import VISUALIZERS

from mmcr.report.contest_table import ContestTable
from mmcr.search import read_journal


def write_curves(
    visualizer: Mapping,
    folder: Path,
    journals: Mapping[str, Path],
    contests: Mapping[str, ContestTable],
) -> None:
    """Tells the backends of a visualizer all scores, in points of 100.

    Of each search ``NAME/score`` and ``NAME/best``, the best so far, in the order of
    its journal; of each contest ``NAME/NETWORK`` and ``NAME/NETWORK_ahead``, of the
    baseline, with the seed as the step.

    Args:
        visualizer: Config of one.
        folder: Of a new folder for backends that write files.
        journals: Of the searches by name.
        contests: By name.
    """
    made = VISUALIZERS.build({**deepcopy(visualizer), 'save_dir': str(folder)})
    for name, journal in journals.items():
        _, trials = read_journal(journal)
        scores = [100 * trial['score'] for trial in trials]
        for step, pair in enumerate(zip(scores, accumulate(scores, max)), start=1):
            made.add_scalars(dict(zip((f'{name}/score', f'{name}/best'), pair)), step)
    for name, table in contests.items():
        own = table.aps.get(table.baseline, {})
        for network, row in table.aps.items():
            for seed, ap in sorted(row.items()):
                made.add_scalar(f'{name}/{network}', ap, seed)
                if network != table.baseline and seed in own:
                    made.add_scalar(f'{name}/{network}_ahead', ap - own[seed], seed)
    made.close()
