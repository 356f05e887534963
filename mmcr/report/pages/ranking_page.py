"""A ranking study in words, numbers and a picture."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmcr.report.ranking import Interval, Ranking
from mmcr.report.sketch import COLOURS, QUIET
from mmcr.report.tables import markdown_table, write_results


def write_ranking(ranking: Ranking, folder: str | Path) -> str:
    """Writes ``ranking.md``, ``ranking.json`` and ``ranking.png``; AP in points of 100.

    Returns the Markdown text: noise first, then the predictors, then the networks.
    """
    text = markdown(ranking)
    record = dict(
        noise_floor=asdict(ranking.noise_floor()),
        spread=ranking.spread(),
        reliability=ranking.reliability(),
        ceiling=ranking.ceiling(),
        chance=asdict(ranking.chance()),
        predictors={
            name: dict(
                tau=asdict(ranking.taus[name]),
                regret=asdict(ranking.regret(name)),
                values=dict(zip(ranking.networks, values.tolist())),
            )
            for name, values in ranking.predicted.items()
        },
        alone=dict(zip(ranking.networks, ranking.alone.tolist())),
    )
    write_results(folder, 'ranking', text, record)
    figure(ranking).savefig(Path(folder, 'ranking.png'), dpi=130)
    return text


def markdown(ranking: Ranking) -> str:
    """The study as Markdown."""
    networks, seeds = ranking.alone.shape
    text = f"""\
# Ranking

{networks} networks, each trained alone with {seeds} seeds; AP in points of 100, \
intervals of 95%.

- One network moves by {ranking.noise_floor()} AP (standard deviation) between seeds.
- The networks differ by {ranking.spread():.2f} AP (standard deviation, noise taken \
off): {ranking.reliability():.0%} of the variance of their means over seeds.
- A predictor that knows the true AP of every network is expected to have a tau of \
{ranking.ceiling():.2f} with these means.
- A network drawn at random is {ranking.chance()} AP behind the best measured. That \
one was chosen by its measured mean, which is rather lucky: all regrets lean high.
"""
    columns = ['predictor', 'tau', 'regret of its first choice', 'its first choice']
    predictors = [
        [name, str(tau), _words(ranking.regret(name)), _first(ranking, name)]
        for name, tau in ranking.taus.items()
    ]
    members = [
        [
            ranking.networks[i],
            f'{ranking.means[i]:.2f}',
            ', '.join(f'{ap:.2f}' for ap in ranking.alone[i]),
            *(f'{values[i]:.5g}' for values in ranking.predicted.values()),
        ]
        for i in (-ranking.means).argsort(kind='stable')
    ]
    names = ['network', 'AP alone, mean', 'by seed', *ranking.predicted]
    tables = [
        markdown_table(columns, predictors, words=(0, 3)),
        markdown_table(names, members, words=(0, 2)),
    ]
    return '\n'.join([text, *tables])


def _first(ranking: Ranking, predictor: str) -> str:
    """The first choice of a predictor, with the number of those that tie with it."""
    values = ranking.predicted[predictor]
    ties = int((values == values.max()).sum()) - 1
    return ranking.networks[values.argmax()] + f' and {ties} more' * (ties > 0)


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
        axes.set_title(f'{name}, tau {ranking.taus[name].value:.2f}', fontsize=9)
        axes.set_ylabel('AP alone', fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)
    return drawn
