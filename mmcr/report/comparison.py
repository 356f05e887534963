"""Networks of equal cost side by side: baseline and reallocated ones."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmcr.cost.complexity import Complexity
from mmcr.errors import UserError
from mmcr.files import write_bytes
from mmcr.report.sketch import DILATIONS, Legend, Network
from mmcr.report.tables import markdown_table

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
    """COCO's metrics in points of 100, by column.

    Args:
        metrics: As mmdet's evaluator returns them (``coco/bbox_mAP_50``), with
            or without prefix, from 0 to 1.
        kind: ``bbox`` or ``segm``.

    Returns:
        A value per column; ``None`` where it is missing or undefined
        (pycocotools writes -1 where there is no object of that size).
    """
    values = {name.split('/')[-1]: value for name, value in metrics.items()}
    points = {}
    for column, name in COCO_COLUMNS.items():
        value = values.get(f'{kind}_{name}')
        # NaN is smaller than nothing, and not larger either
        points[column] = 100 * value if value is not None and value >= 0 else None
    return points


@dataclass(frozen=True)
class Row:
    """One network of a comparison.

    Args:
        name: What to call it.
        stage_blocks: Blocks per stage (tau).
        values: Per stage one value per block, or one for all; ``None``: all 1.
        complexity: What the detector costs.
        metrics: What its evaluation returned, as in `coco_points`.
        legend: What the values are; the same in all rows of a comparison.
        strides: Of the stages, as in `Network`.
    """

    name: str
    stage_blocks: Sequence[int]
    values: Sequence[int | Sequence[int]] | None
    complexity: Complexity
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    legend: Legend = DILATIONS
    strides: Sequence[int] | None = None

    @property
    def ap(self) -> float | None:
        """AP in points of 100."""
        return coco_points(self.metrics)['AP']

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the detector for one image."""
        return self.complexity.macs

    @property
    def params(self) -> int:
        """Parameters of the detector."""
        return self.complexity.params

    @property
    def caption(self) -> str:
        """Its figures in one line, for a sketch."""
        figures = [f'{_macs(self.macs)} MACs', f'{_params(self.params)} params']
        if self.ap is not None:
            figures.append(f'{self.ap:.2f} AP')
        return '  ·  '.join(figures)

    @property
    def network(self) -> Network:
        """Its backbone, for a sketch."""
        return Network(
            self.name,
            self.stage_blocks,
            self.values,
            self.caption,
            self.legend,
            self.strides,
        )


def verdict(rows: Sequence[Row]) -> str:
    """Says in words whether the reallocated networks are ahead of the baseline.

    Args:
        rows: The baseline first.
    """
    baseline, *others = _checked(rows)
    sentences = [_standing(row, baseline) for row in others]
    if any(row.ap is not None for row in others) and baseline.ap is not None:
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
            row.network.text,
            *(
                '-' if value is None else f'{value:.2f}'
                for value in coco_points(row.metrics).values()
            ),
            _difference(row, rows[0]),
            _macs(row.macs),
            _params(row.params),
        ]
        for row in rows
    ]
    return markdown_table(columns, cells, words=(0, 1, 2))


def write_comparison(rows: Sequence[Row], folder: str | Path) -> str:
    """Writes ``comparison.md`` and, for programs, ``comparison.json``.

    The JSON file holds the verdict, how costs were counted and, per network,
    its architecture, its cost by part, the COCO columns in points of 100 and
    the metrics as they were given.

    Args:
        rows: The baseline first.
        folder: Where to write.

    Returns:
        The Markdown text: the table, the verdict and how to read them.

    Raises:
        UserError: There are no rows, or the baseline costs nothing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    said, conditions = verdict(rows), rows[0].complexity.conditions
    text = (
        f'{_table(rows)}\n{said}\n\nAP in points of 100. {_explained(rows)} '
        f'MACs: {conditions}\n'
    )
    record = dict(
        baseline=rows[0].name,
        verdict=said,
        costs=conditions,
        networks=[_record(row, rows[0]) for row in rows],
    )
    write_bytes(folder / 'comparison.md', text.encode())
    write_bytes(
        folder / 'comparison.json',
        json.dumps(record, indent=2, allow_nan=False).encode() + b'\n',
    )
    return text


def _explained(rows: Sequence[Row]) -> str:
    """How to read the column of the blocks' values."""
    legend = rows[0].legend
    meaning = f': {legend.title}' if legend.labels else ''
    words = f'{legend.name.capitalize()} block by block, a space between stages'
    return f'{words}{meaning}.'


def _record(row: Row, baseline: Row) -> dict:
    known = None not in (row.ap, baseline.ap)
    return dict(
        name=row.name,
        stage_blocks=list(row.stage_blocks),
        **{row.legend.name: row.network.blocks},
        macs=row.macs,
        params=row.params,
        parts={part: asdict(cost) for part, cost in row.complexity.parts.items()},
        points=coco_points(row.metrics),
        ap_difference=row.ap - baseline.ap if known else None,
        metrics={
            name: value if value == value else None  # JSON has no NaN
            for name, value in row.metrics.items()
        },
    )


def _checked(rows: Sequence[Row]) -> Sequence[Row]:
    if not rows or min(rows[0].macs, rows[0].params) <= 0:
        raise UserError(
            'A comparison needs a baseline with its multiply-accumulates '
            f'and parameters as first row, but got {list(rows[:1])}.'
        )
    return rows


def _standing(row: Row, baseline: Row) -> str:
    cost = (
        f'with {100 * row.macs / baseline.macs:.1f}% of its MACs and '
        f'{100 * row.params / baseline.params:.1f}% of its parameters'
    )
    if row.ap is None or baseline.ap is None:
        return f'{row.name} cannot be compared with {baseline.name}: there is no AP.'
    ahead = round(row.ap - baseline.ap, 2)
    if ahead == 0:
        return f'{row.name} is level with {baseline.name} at {row.ap:.2f} AP, {cost}.'
    direction = 'ahead of' if ahead > 0 else 'behind'
    return (
        f'{row.name} ({row.ap:.2f} AP) is {direction} {baseline.name} '
        f'({baseline.ap:.2f} AP) by {abs(ahead):.2f} points, {cost}.'
    )


def _difference(row: Row, baseline: Row) -> str:
    if row is baseline or row.ap is None or baseline.ap is None:
        return '-'
    return f'{row.ap - baseline.ap:+.2f}'.replace('-', '−')


def _macs(macs: int) -> str:
    return f'{macs / 1e9:.2f} G' if macs >= 1e9 else f'{macs / 1e6:.1f} M'


def _params(params: int) -> str:
    return f'{params / 1e6:.2f} M'
