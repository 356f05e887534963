"""Networks of equal cost side by side: baseline and reallocated ones."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmcr.cost.complexity import Complexity
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
    """

    complexity: Complexity = field(kw_only=True)
    metrics: Mapping[str, float | None] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        cost = self.complexity
        figures = [f'{_macs(cost.macs)} MACs', f'{_params(cost.params)} params']
        if self.ap is not None:
            figures.append(f'{self.ap:.2f} AP')
        object.__setattr__(self, 'caption', '  ·  '.join(figures))

    @property
    def ap(self) -> float | None:
        """AP in points of 100."""
        return coco_points(self.metrics)['AP']


def verdict(rows: Sequence[Row]) -> str:
    """Says in words whether the other networks are ahead of the first, the baseline."""
    baseline, *others = rows
    sentences = [_standing(row, baseline) for row in others]
    if any(_ahead(row, baseline) is not None for row in others):
        sentences.append(
            'Each network was trained once, with one seed: between two '
            'runs of the same network AP varies as well, so a difference '
            'of this size may be noise. Repeat with other seeds before '
            'relying on it.'
        )
    return ' '.join(sentences)


def _table(rows: Sequence[Row]) -> str:
    """One line per network."""
    columns = ['network', 'stages', rows[0].legend.name, *COCO_COLUMNS]
    columns += ['AP − baseline', 'MACs', 'params']
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
            _macs(row.complexity.macs),
            _params(row.complexity.params),
        ]
        for row in rows
    ]
    return markdown_table(columns, cells, words=(0, 1, 2))


def write_comparison(rows: Sequence[Row], folder: str | Path) -> str:
    """Writes ``comparison.md`` and, for programs, ``comparison.json``.

    The JSON file holds the verdict, how costs were counted and, per network, its
    architecture, its cost by part, the COCO columns in points of 100 and the metrics as
    they were given.

    Args:
        rows: The baseline first.
        folder: Where to write.

    Returns:
        The Markdown text: the table, the verdict and how to read them.
    """
    said, conditions = verdict(rows), rows[0].complexity.conditions
    legend = rows[0].legend
    meaning = f': {legend.title}' if legend.labels else ''
    text = (
        f'{_table(rows)}\n{said}\n\nAP in points of 100. {legend.name.capitalize()} '
        f'block by block, a space between stages{meaning}. MACs: {conditions}\n'
    )
    record = dict(
        baseline=rows[0].name,
        verdict=said,
        costs=conditions,
        networks=[_record(row, rows[0]) for row in rows],
    )
    write_results(folder, 'comparison', text, record)
    return text


def _record(row: Row, baseline: Row) -> dict:
    return dict(
        name=row.name,
        stage_blocks=list(row.stage_blocks),
        **{row.legend.name: row.blocks},
        macs=row.complexity.macs,
        params=row.complexity.params,
        parts={part: asdict(cost) for part, cost in row.complexity.parts.items()},
        points=coco_points(row.metrics),
        ap_difference=_ahead(row, baseline),
        metrics={
            name: value if value == value else None  # JSON has no NaN
            for name, value in row.metrics.items()
        },
    )


def _ahead(row: Row, baseline: Row) -> float | None:
    return None if None in (row.ap, baseline.ap) else row.ap - baseline.ap


def _standing(row: Row, baseline: Row) -> str:
    own, other = row.complexity, baseline.complexity
    cost = (
        f'with {100 * own.macs / other.macs:.1f}% of its MACs and '
        f'{100 * own.params / other.params:.1f}% of its parameters'
    )
    ahead = _ahead(row, baseline)
    if ahead is None:
        return f'{row.name} cannot be compared with {baseline.name}: there is no AP.'
    ahead = round(ahead, 2)
    if ahead == 0:
        return f'{row.name} is level with {baseline.name} at {row.ap:.2f} AP, {cost}.'
    direction = 'ahead of' if ahead > 0 else 'behind'
    return (
        f'{row.name} ({row.ap:.2f} AP) is {direction} {baseline.name} '
        f'({baseline.ap:.2f} AP) by {abs(ahead):.2f} points, {cost}.'
    )


def _difference(row: Row, baseline: Row) -> str:
    ahead = _ahead(row, baseline)
    if row is baseline or ahead is None:
        return '-'
    return f'{ahead:+.2f}'.replace('-', '−')


def _macs(macs: int) -> str:
    return f'{macs / 1e9:.2f} G' if macs >= 1e9 else f'{macs / 1e6:.1f} M'


def _params(params: int) -> str:
    return f'{params / 1e6:.2f} M'
