"""A ranking study in words, numbers and a picture."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmcr.files import write_bytes
from mmcr.report.ranking import Interval, Ranking
from mmcr.report.sketch import COLOURS, QUIET

TABLE = '| predictor | tau | regret of its first choice | its first choice |\n'


def write_ranking(ranking: Ranking, folder: str | Path) -> str:
    """Writes ``ranking.md``, ``ranking.json`` and ``ranking.png``.

    Args:
        ranking: AP in points of 100.
        folder: Where to write.

    Returns:
        The Markdown text: noise first, then the predictors, then the networks.
    """
    folder = Path(folder)
    text = markdown(ranking)
    write_bytes(folder / 'ranking.md', text.encode())
    record = dict(
        noise_floor=asdict(ranking.noise_floor()),
        spread=ranking.spread(),
        reliability=ranking.reliability(),
        ceiling=ranking.ceiling(),
        chance=asdict(ranking.chance()),
        predictors={
            name: dict(
                tau=asdict(ranking.tau(name)),
                regret=asdict(ranking.regret(name)),
                values=dict(zip(ranking.networks, values.tolist())),
            )
            for name, values in ranking.predicted.items()
        },
        alone=dict(zip(ranking.networks, ranking.alone.tolist())),
    )
    write_bytes(
        folder / 'ranking.json',
        json.dumps(record, indent=2, allow_nan=False).encode() + b'\n',
    )
    figure(ranking).savefig(folder / 'ranking.png', dpi=130)
    return text


def markdown(ranking: Ranking) -> str:
    """The study as Markdown."""
    networks, seeds = ranking.alone.shape
    lines = [
        '# Ranking\n\n',
        f'{networks} networks, each trained alone with {seeds} seeds; AP in points of '
        f'100, intervals of 95%.\n\n',
        f'- One network moves by {ranking.noise_floor()} AP (standard deviation) '
        f'between seeds.\n',
        f'- The networks differ by {ranking.spread():.2f} AP (standard deviation, '
        f'noise taken off): {100 * ranking.reliability():.0f}% of the variance of '
        f'their means over seeds.\n',
        f'- A predictor that knows the true AP of every network is expected to have a '
        f'tau of {ranking.ceiling():.2f} with these means.\n',
        f'- A network drawn at random is {ranking.chance()} AP behind the best '
        f'measured. That one was chosen by its measured mean, which is rather lucky: '
        f'all regrets lean high.\n\n',
        TABLE,
        '| --- | ---: | ---: | --- |\n',
    ]
    for name, values in ranking.predicted.items():
        first = ranking.networks[values.argmax()]
        ties = int((values == values.max()).sum()) - 1
        lines.append(
            f'| {name} | {ranking.tau(name)} | {_words(ranking.regret(name))} | {first}'
            f'{f" and {ties} more" if ties else ""} |\n'
        )
    lines += [
        '\n| network | AP alone, mean | by seed |'
        + ''.join(f' {name} |' for name in ranking.predicted)
        + '\n| --- | ---: | --- |'
        + ' ---: |' * len(ranking.predicted)
        + '\n'
    ]
    for i in (-ranking.means).argsort(kind='stable'):
        by_seed = ', '.join(f'{ap:.2f}' for ap in ranking.alone[i])
        cells = ''.join(f' {v[i]:.5g} |' for v in ranking.predicted.values())
        lines.append(
            f'| {ranking.networks[i]} | {ranking.means[i]:.2f} | {by_seed} |{cells}\n'
        )
    return ''.join(lines)


def _words(regret: Interval) -> str:
    return 'none: the best measured' if regret.low is None else str(regret)


def figure(ranking: Ranking) -> Figure:
    """AP alone over what each predictor says; bars from lowest to highest seed."""
    count = len(ranking.predicted)
    columns = min(3, count)
    rows = -(-count // columns)
    drawn = Figure(figsize=(3.2 * columns, 2.8 * rows), layout='constrained')
    # a mean of equal numbers may miss them by the last digit
    low = np.maximum(0, ranking.means - ranking.alone.min(1))
    high = np.maximum(0, ranking.alone.max(1) - ranking.means)
    for place, (name, values) in enumerate(ranking.predicted.items()):
        axes = drawn.add_subplot(rows, columns, place + 1)
        axes.errorbar(
            values,
            ranking.means,
            yerr=(low, high),
            fmt='o',
            markersize=4,
            color=COLOURS[3],
            ecolor=QUIET,
            elinewidth=1,
        )
        axes.set_title(f'{name}, tau {ranking.tau(name).value:.2f}', fontsize=9)
        axes.set_ylabel('AP alone', fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)
    return drawn
