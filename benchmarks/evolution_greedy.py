"""Evolution, greedy and random search among R50's dilations at equal evaluations.

Scores are made up, so that the best of the 3^16 architectures is known: sums over the
blocks, with or without a part for pairs of blocks, and with or without noise. What is
left open in a greedy candidate is completed at random for each of ten mini-batches, as
in the search of a supernet.
"""

import argparse
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from statistics import fmean, median, quantiles, stdev

from mmcr.search import (
    Complete,
    EvolutionSearcher,
    GreedySearcher,
    Proposal,
    Searcher,
    Trial,
)
from mmcr.space import Arch, operation_space

SPACE = operation_space([3, 4, 6, 3])
BATCHES = 10
NEAR = tuple(range(16))  # each block and the next one make a pair
FAR = tuple(i // 2 + i % 2 * 8 for i in range(16))  # 0, 8, 1, 9, ...
LANDSCAPES = {
    'sums': dict(),
    'sums, noise': dict(noise=0.3),
    'near pairs': dict(pairs=0.5),
    'near pairs, noise': dict(pairs=0.5, noise=0.3),
    'far pairs': dict(pairs=0.5, order=FAR),
    'far pairs, noise': dict(pairs=0.5, order=FAR, noise=0.3),
}
SMALL = dict(population=15, top=5, mutations=6, crossovers=6)
KEPT = (3, 24)  # by greedy search, the paper's and for about 1,000 evaluations


@dataclass(frozen=True)
class Landscape:
    """True scores of all architectures, in standard deviations of a random one.

    Args:
        seed: Of everything in it.
        pairs: Share of the variance that is of pairs of blocks.
        order: Of the blocks; those next to each other in it are the pairs.
        noise: Standard deviation of a score on all of archval.
    """

    seed: int
    pairs: float = 0.0
    order: tuple[int, ...] = NEAR
    noise: float = 0.0

    @cached_property
    def tables(self) -> tuple[list[dict], list[dict]]:
        """Parts of the score by value of a block, and by those of a pair, in order."""
        rng = Random(f'landscape {self.seed}')
        choices = [SPACE.choices[i] for i in self.order]
        rows = [{v: rng.gauss(0, 1) for v in choice.values} for choice in choices]
        squares = [
            {(a, b): rng.gauss(0, 1) for a in one.values for b in other.values}
            for one, other in pairwise(choices)
        ]
        for tables, share in ((rows, 1 - self.pairs), (squares, self.pairs)):
            for part in tables:
                for key in part:
                    part[key] *= (share / len(tables)) ** 0.5
        return rows, squares

    def raw(self, arch: Arch) -> float:
        rows, squares = self.tables
        values = list(arch.values())
        values = [values[i] for i in self.order]
        own = sum(row[value] for row, value in zip(rows, values))
        return own + sum(part[pair] for part, pair in zip(squares, pairwise(values)))

    @cached_property
    def scale(self) -> float:
        rng = Random(f'scale {self.seed}')
        return stdev(self.raw(SPACE.sample(rng)) for _ in range(2000))

    @cached_property
    def best(self) -> float:
        """The highest score of all, by dynamic programming along the order."""
        rows, squares = self.tables
        best = dict(rows[0])
        for row, square in zip(rows[1:], squares):
            best = {
                b: part + max(score + square[a, b] for a, score in best.items())
                for b, part in row.items()
            }
        return max(best.values()) / self.scale

    def score(self, arch: Arch) -> float:
        return self.raw(arch) / self.scale

    def measured(self, proposal: Proposal) -> Trial:
        """With noise that is the same whenever the proposal is asked for."""
        candidate = proposal.candidate
        batches = range(1 if isinstance(candidate, Complete) else BATCHES)
        score = fmean(self.score(candidate.arch_for(batch)) for batch in batches)
        noise = Random(f'noise {self.seed} {proposal.key}').gauss(0, self.noise)
        return Trial(proposal, score + noise)


def regret(searcher: Searcher, landscape: Landscape, evaluations: int) -> float:
    """How far the result of so many evaluations is from the best of all."""
    trials = islice(_trials(searcher, landscape), evaluations)
    complete = [t for t in trials if isinstance(t.proposal.candidate, Complete)]
    found = max(complete, key=lambda trial: trial.score)
    short = landscape.best - landscape.score(found.proposal.candidate.arch)
    return max(short, 0.0)  # sums in two orders round differently


def _trials(searcher: Searcher, landscape: Landscape) -> Iterator[Trial]:
    while proposals := searcher.ask():
        trials = [landscape.measured(proposal) for proposal in proposals]
        yield from trials
        searcher.tell(trials)


def methods(kept: int, evaluations: int) -> dict[str, Callable[[int], Searcher]]:
    """By name, what makes a new searcher for a seed."""

    def evolution(seed: int, generations: int = 100, **options) -> Searcher:
        return EvolutionSearcher(SPACE, generations=generations, seed=seed, **options)

    return {
        f'greedy, k={kept}': lambda seed: GreedySearcher(SPACE, kept, seed),
        'evolution, as in DetNAS': evolution,
        'evolution, population 15': lambda seed: evolution(seed, **SMALL),
        'random': lambda seed: evolution(seed, 1, population=evaluations),
    }


def table(kept: int, seeds: int) -> list[str]:
    """Median and quartiles of the regret, as lines of Markdown."""
    evaluations = GreedySearcher(SPACE, k=kept).total
    lines = [
        f'## {evaluations} evaluations',
        '',
        '| search | ' + ' | '.join(LANDSCAPES) + ' |',
        '| --- |' + ' --- |' * len(LANDSCAPES),
    ]
    for name, new in methods(kept, evaluations).items():
        cells = []
        for options in LANDSCAPES.values():
            found = [
                regret(new(seed), Landscape(seed, **options), evaluations)
                for seed in range(seeds)
            ]
            low, _, high = quantiles(found, n=4, method='inclusive')
            cells.append(f'{median(found):.2f} ({low:.2f} to {high:.2f})')
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
        print(lines[-1], flush=True)
    return [*lines, '']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, default=50, help='landscapes of each kind')
    parser.add_argument('--out', type=Path, help='file for the tables, in Markdown')
    args = parser.parse_args()
    lines = [line for kept in KEPT for line in table(kept, args.seeds)]
    if args.out:
        head = (
            f'{args.seeds} landscapes of each kind, {date.today()}, Python '
            f'{platform.python_version()}'
        )
        args.out.write_text('\n'.join([head, '', *lines]))


if __name__ == '__main__':
    main()
