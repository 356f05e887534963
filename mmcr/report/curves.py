"""What a run has scored, for the backends of mmengine's visualizer (TensorBoard)."""

from collections.abc import Mapping
from copy import deepcopy
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
    """Tells the backends of a visualizer all scores, AP in points of 100.

    Of each search ``NAME/score`` in the order of its journal, and ``NAME/best``, the
    best so far of complete architectures on all of archval; of each contest
    ``NAME/NETWORK`` and ``NAME/NETWORK_ahead``, of the baseline, with the seed as the
    step.

    Args:
        visualizer: Config of one.
        folder: Of a new folder for backends that write files.
        journals: Of the searches by name.
        contests: By name.
    """
    # mmengine hands out one visualizer for a name: a runner's has files of its own.
    own = dict(name=f'curves of {folder}', save_dir=str(folder))
    made = VISUALIZERS.build({**deepcopy(visualizer), **own})
    for name, journal in journals.items():
        header, trials = read_journal(journal)
        unit = 100 if 'mAP' in header.get('score', 'score') else 1
        choices, best = len(header['space']['choices']), None
        for step, trial in enumerate(trials, start=1):
            scalars = {f'{name}/score': unit * trial['score']}
            complete = len(trial['candidate']['arch']) == choices
            if complete and trial['portion'] == [0, 1]:
                score = trial['score']
                best = score if best is None else max(best, score)
            if best is not None:
                scalars[f'{name}/best'] = unit * best
            made.add_scalars(scalars, step)
    for name, table in contests.items():
        own = table.aps.get(table.baseline, {})
        for network, row in table.aps.items():
            for seed, ap in sorted(row.items()):
                made.add_scalar(f'{name}/{network}', ap, seed)
                if network != table.baseline and seed in own:
                    made.add_scalar(f'{name}/{network}_ahead', ap - own[seed], seed)
    made.close()
