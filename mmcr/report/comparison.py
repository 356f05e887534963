"""Networks of equal cost side by side, and what trainings under paired seeds say."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmcr.cost.complexity import Complexity
from mmcr.report.paired import Difference, floor, verdict
from mmcr.report.sketch import Network
from mmcr.report.tables import markdown_table, write_results

#: Columns of COCO's metrics, and the ends of their names in mmdet.
COCO_COLUMNS = {
    'AP': 'mAP',
    'AP50': 'mAP_50',
    'AP75': 'mAP_75',
    'APs': 'mAP_s',
    'APm': 'mAP_m',
    'APl': 'mAP_l',
}


def coco_points(
    metrics: Mapping[str, float | None], kind: str = 'bbox'
) -> dict[str, float | None]:
    """COCO's metrics in points of 100, by column; ``None``: missing or undefined.

    Args:
        metrics: As mmdet's evaluator returns them (``coco/bbox_mAP_50``), with or
            without prefix, from 0 to 1; -1 where there is no object of that size.
        kind: ``bbox`` or ``segm``.
    """
    values = {name.split('/')[-1]: value for name, value in metrics.items()}
    points = {}
    for column, name in COCO_COLUMNS.items():
        value = values.get(f'{kind}_{name}')
        # NaN is smaller than nothing, and not larger either
        points[column] = 100 * value if value is not None and value >= 0 else None
    return points


@dataclass(frozen=True)
class Row(Network):
    """One network of a comparison, all of one legend; its caption says its figures.

    Args:
        complexity: What the detector costs.
        metrics: What its evaluation returned, as in `coco_points`.
        trainings: What it took, in trainings of the baseline; ``None``: not shown.
    """

    complexity: Complexity = field(kw_only=True)
    metrics: Mapping[str, float | None] = field(default_factory=dict, kw_only=True)
    trainings: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        cost = self.complexity
        figures = [f'{macs_text(cost.macs)} MACs', f'{params_text(cost.params)} params']
        if self.ap is not None:
            figures.append(f'{self.ap:.2f} AP')
        object.__setattr__(self, 'caption', '  ·  '.join(figures))

    @property
    def ap(self) -> float | None:
        """AP in points of 100."""
        return coco_points(self.metrics)['AP']


@dataclass(frozen=True)
class Contestant:
    """What a run-off knows of a network.

    Args:
        name: Of its folders.
        text: Its architecture in short.
        score: With inherited weights on archval; ``None`` of the baseline.
        expected: The score without the luck of these images.
        aps: Trained alone, on archval, under the seeds that choose, in points of 100;
            ``None`` where it had been dropped.
    """

    name: str
    text: str
    score: float | None = None
    expected: float | None = None
    aps: Sequence[float | None] = ()


def _table(rows: Sequence[Row]) -> str:
    """One line per network."""
    columns = ['network', 'stages', rows[0].legend.name, *COCO_COLUMNS]
    columns += ['AP − baseline', 'MACs', 'params']
    if costed := any(row.trainings is not None for row in rows):
        columns.append('trainings')
    cells = [
        [
            row.name,
            str(list(row.stage_blocks)),
            row.text,
            *(
                '-' if value is None else f'{value:.2f}'
                for value in coco_points(row.metrics).values()
            ),
            _difference(row, rows[0]),
            macs_text(row.complexity.macs),
            params_text(row.complexity.params),
            *(['-' if row.trainings is None else f'{row.trainings:.2f}'] * costed),
        ]
        for row in rows
    ]
    return markdown_table(columns, cells, words=(0, 1, 2))


def write_comparison(
    rows: Sequence[Row],
    folder: str | Path,
    difference: Difference,
    contestants: Sequence[Contestant] = (),
    use: str = '',
    warning: str = '',
    about: str = '',
) -> str:
    """Writes ``comparison.md`` and, for programs, ``comparison.json``.

    The JSON file holds the verdict with its figures, how costs were counted and, per
    network, its architecture, its cost by part, the COCO columns in points of 100 and
    the metrics as they were given; then the run-off.

    Args:
        rows: The baseline and the network that was found, their metrics the means
            over the seeds that judge; then others to be shown beside them.
        folder: Where to write.
        difference: The second's AP minus the first's, seed by seed.
        contestants: Of the run-off that chose the second.
        use: The files that the verdict recommends.
        warning: What speaks against believing it.
        about: Of the rows, in sentences.

    Returns:
        The Markdown text, the verdict in its last paragraph.
    """
    baseline, found, *_ = rows
    said = f'{verdict(found.name, baseline.name, difference)} {_costs(found, baseline)}'
    conditions, legend = baseline.complexity.conditions, baseline.legend
    meaning = f': {legend.title}' if legend.labels else ''
    seeds = ', '.join(f'{value:+.2f}' for value in difference.by_seed)
    chosen = _run_off(contestants)
    text = (
        f'{_table(rows)}\nAP in points of 100, means over {len(difference.by_seed)} '
        f'seeds that had no part in the choice; differences by seed: {seeds}. '
        f'{legend.name.capitalize()} block by block, a space between stages{meaning}. '
        f'MACs: {conditions}{about and " " + about}\n\n{chosen}**Verdict.** {said}'
        f'{f" Use {use}." if use else ""}{warning and " " + warning}\n'
    )
    record = dict(
        baseline=baseline.name,
        verdict=said,
        kind=difference.kind,
        difference=dict(
            asdict(difference.interval),
            by_seed=list(difference.by_seed),
            p=difference.p,
            visible=difference.visible,
        ),
        use=use,
        warning=warning,
        costs=conditions,
        networks=[_record(row, baseline) for row in rows],
        run_off=[asdict(each) for each in contestants],
    )
    write_results(folder, 'comparison', text, record)
    return text


def _run_off(contestants: Sequence[Contestant]) -> str:
    """What chose, as a table with its noise."""
    if not contestants:
        return ''
    seeds = max(len(each.aps) for each in contestants)
    cells = [
        [
            each.name,
            each.text,
            *(
                '-' if x is None else f'{100 * x:.2f}'
                for x in (each.score, each.expected)
            ),
            ', '.join('-' if ap is None else f'{ap:.2f}' for ap in each.aps) or '-',
        ]
        for each in contestants
    ]
    columns = ['candidate', 'architecture', 'score', 'expected', 'AP alone']
    table = markdown_table(columns, cells, words=(0, 1))
    noise = floor({each.name: each.aps for each in contestants if each.aps})
    known = (
        ''
        if noise is None
        else (
            f' A difference of two networks moves by {noise:.2f} AP (standard '
            f'deviation) from seed to seed.'
        )
    )
    chose = 'the seed' if seeds == 1 else f'the {seeds} seeds'
    alone = (
        f'trained without them, under {chose} that chose' if seeds else 'not trained'
    )
    return (
        f'{table}\nThe run-off on archval. Score: with inherited weights; expected: '
        f'without the luck of these images; AP alone: {alone}.{known}\n\n'
    )


def _record(row: Row, baseline: Row) -> dict:
    return dict(
        name=row.name,
        stage_blocks=list(row.stage_blocks),
        strides=row.strides and list(row.strides),
        **{row.legend.name: row.blocks},
        macs=row.complexity.macs,
        params=row.complexity.params,
        parts={part: asdict(cost) for part, cost in row.complexity.parts.items()},
        points=coco_points(row.metrics),
        trainings=row.trainings,
        ap_difference=_ahead(row, baseline),
        metrics={
            name: value if value == value else None  # JSON has no NaN
            for name, value in row.metrics.items()
        },
    )


def _ahead(row: Row, baseline: Row) -> float | None:
    return None if None in (row.ap, baseline.ap) else row.ap - baseline.ap


def _costs(row: Row, baseline: Row) -> str:
    own, other = row.complexity, baseline.complexity
    return (
        f'It has {100 * own.macs / other.macs:.1f}% of the MACs of {baseline.name} and '
        f'{100 * own.params / other.params:.1f}% of its parameters.'
    )


def _difference(row: Row, baseline: Row) -> str:
    ahead = _ahead(row, baseline)
    if row is baseline or ahead is None:
        return '-'
    return f'{ahead:+.2f}'.replace('-', '−')


def in_short(decided: Mapping[str, Sequence], scale: float = 1.0) -> str:
    """Arguments of a backbone: blocks of a stage together, ``111 1112``.

    Of plain numbers ``3 4 6 3``. With the scale of its images, if it is another.
    """
    values = [_in_short(value) for value in decided.values()]
    if scale != 1:
        values.append(f'{scale:g} times the image scale')
    return '; '.join(values)


def _in_short(value: Sequence) -> str:
    if any(isinstance(each, tuple | list) for each in value):
        stages = ([each] if isinstance(each, int) else each for each in value)
        return ' '.join(''.join(map(str, stage)) for stage in stages)
    return ' '.join(map(str, value))


def macs_text(macs: int) -> str:
    """Such as ``2.00 G``."""
    return f'{macs / 1e9:.2f} G' if macs >= 1e9 else f'{macs / 1e6:.1f} M'


def params_text(params: int) -> str:
    """Such as ``3.00 M``."""
    return f'{params / 1e6:.2f} M'
