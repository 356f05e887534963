"""The run-off: which of a search's best is the best, and does it beat the baseline.

The seeds and the images that choose are not those that judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcr.errors import UserError
from mmcr.files import read_state, write_json
from mmcr.report.paired import Difference
from mmcr.workflow.contests.contest import Contest
from mmcr.workflow.settings import LEAST, MOST

BASELINE = 'baseline'
CHOOSING = 3  # of so many trainings one is for choosing
FIRST_CHOOSING_SEED = 1000  # after the run's own; those before it judge


@dataclass(frozen=True)
class Schedule:
    """What a number of trainings is used for.

    Attributes:
        rounds: Of choosing, how many candidates each has; each is trained with one
            more seed, and so is the baseline.
        judges: Seeds under which the winner meets the baseline.
    """

    rounds: tuple[int, ...]
    judges: int

    @classmethod
    def of(cls, trainings: int, candidates: int) -> 'Schedule':
        """By sequential halving (Karnin et al., ICML 2013) in a third of them.

        Args:
            trainings: At most so many.
            candidates: That there are.
        """
        left = trainings // CHOOSING
        entrants, rounds = min(candidates, left - 1), []
        while entrants > 1 and entrants < left:
            rounds.append(entrants)
            left -= entrants + 1
            entrants = -(-entrants // 2)
        spent = sum(entrants + 1 for entrants in rounds)
        return cls(tuple(rounds), (trainings - spent) // 2)

    @property
    def choosing(self) -> int:
        """Trainings that choose."""
        return sum(entrants + 1 for entrants in self.rounds)


class RunOff:
    """Candidates trained against each other, and the best against the baseline.

    In every round of choosing the candidates that are left and the baseline are
    trained with a further seed; the better half goes on. The winner then meets the
    baseline under seeds of their own. What was chosen is kept in ``run_off.json``: a
    later run with more trainings has more seeds judge.

    Args:
        work_dir: Of the whole work.
        choosing: The contest of the candidates and the baseline; scored on images
            that were held out of their training.
        judging: The same networks, trained and tested as the user does.
        candidates: Names of the candidates, the best of the search first.
        trainings: How many may be made, `LEAST` or more.
        seed: The first that judges.
    """

    def __init__(
        self,
        work_dir: Path,
        choosing: Contest,
        judging: Contest,
        candidates: Sequence[str],
        trainings: int,
        seed: int = 0,
    ) -> None:
        if trainings < LEAST:
            raise UserError(
                f'A run-off takes {LEAST} trainings at least, two seeds of the '
                f'baseline and of the winner, but got {trainings}.'
            )
        self.state_file = Path(work_dir) / 'run_off.json'
        self.choosing, self.judging = choosing, judging
        self.candidates = list(candidates)
        self.schedule = Schedule.of(trainings, len(self.candidates))
        state = read_state(self.state_file)
        if state.get('candidates') == self.candidates:
            rounds = self._known(state.get('rounds'))
            judges = (trainings - sum(n + 1 for n in rounds)) // 2
            self.schedule = Schedule(rounds, max(2, judges))
        self.seeds = range(seed, seed + self.schedule.judges)
        self.choosing_seeds = [
            seed + FIRST_CHOOSING_SEED + i for i in range(len(self.schedule.rounds))
        ]

    def _known(self, rounds: object) -> tuple[int, ...]:
        """The rounds of an earlier run, which are those of some schedule."""
        for trainings in range(LEAST, MOST + 1):
            known = Schedule.of(trainings, len(self.candidates)).rounds
            if list(known) == rounds:
                return known
        raise UserError(
            f'{self.state_file} must hold the rounds of a run-off, but holds '
            f'{rounds!r}. Put back the file that was there, or remove it to choose '
            f'anew.'
        )

    def run(self, lock: int) -> str:
        """Trains what is not trained yet; returns the winner's name."""
        write_json(
            self.state_file,
            dict(candidates=self.candidates, rounds=self.schedule.rounds),
        )
        left = self.candidates
        for i, entrants in enumerate(self.schedule.rounds):
            left = self._ranked(left, self.choosing_seeds[:i])[:entrants]
            seed = self.choosing_seeds[i]
            self.choosing.run([(name, seed) for name in (BASELINE, *left)], lock)
        self.winner = self._ranked(left, self.choosing_seeds)[0]
        both = BASELINE, self.winner
        self.judging.run([(name, seed) for seed in self.seeds for name in both], lock)
        return self.winner

    def _ranked(self, names: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """By mean AP; by the search's order where nothing is trained yet."""
        if not seeds:
            return list(names)

        def mean(name: str) -> float:
            return sum(self.choosing.ap(name, seed) for seed in seeds) / len(seeds)

        return sorted(names, key=mean, reverse=True)

    def chosen_by(self) -> dict[str, list[float | None]]:
        """AP of everything that was trained for choosing, seed by seed.

        ``None`` where a candidate had been dropped.
        """
        left, table = self.candidates, {}
        for i, entrants in enumerate(self.schedule.rounds):
            left = self._ranked(left, self.choosing_seeds[:i])[:entrants]
            for name in (BASELINE, *left):
                row = table.setdefault(name, [None] * len(self.choosing_seeds))
                row[i] = self.choosing.ap(name, self.choosing_seeds[i])
        return table

    def judged(self) -> dict[str, list[float]]:
        """AP of the baseline and of the winner under the seeds that judge."""
        return {
            name: [self.judging.ap(name, seed) for seed in self.seeds]
            for name in (BASELINE, self.winner)
        }

    def difference(self) -> Difference:
        """The winner's AP minus the baseline's."""
        baseline, found = self.judged().values()
        return Difference([f - b for f, b in zip(found, baseline)])

    def metrics(self, name: str) -> Mapping[str, float]:
        """Of a network that was judged: the mean of what its tests said."""
        said = [self.judging.metrics(name, seed) for seed in self.seeds]
        return {
            key: sum(each[key] for each in said) / len(said)
            for key in said[0]
            if all(isinstance(each.get(key), int | float) for each in said)
        }
