"""The run-off: which of a search's best is the best, and does it beat the baseline.

The seeds and the images that choose are not those that judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcr.checks import is_integer, is_list
from mmcr.files import read_state
from mmcr.report.paired import Difference
from mmcr.workflow.contests.contest import Contest

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
    def of(
        cls, trainings: int | None, candidates: int, begun: Mapping | None = None
    ) -> 'Schedule':
        """By sequential halving (Karnin et al., ICML 2013) in a third of them.

        Args:
            trainings: At most so many; ``None``: as begun.
            candidates: That there are.
            begun: What `begun` says: it keeps its rounds, and judges may only be added.
        """
        if begun:
            kept = cls(tuple(begun['rounds']), begun['judges'])
            more = ((trainings or 0) - kept.choosing) // 2
            return cls(kept.rounds, max(kept.judges, more))
        left = trainings // CHOOSING
        entrants, rounds = min(candidates, left - 1), []
        while entrants > 1 and entrants < left:
            rounds.append(entrants)
            left -= entrants + 1
            entrants = -(-entrants // 2)
        schedule = cls(tuple(rounds), 0)
        return cls(schedule.rounds, (trainings - schedule.choosing) // 2)

    @property
    def choosing(self) -> int:
        """Trainings that choose."""
        return sum(entrants + 1 for entrants in self.rounds)


def begun(work_dir: Path) -> dict:
    """What an earlier start of the run-off has settled, if there was one."""
    state = read_state(Path(work_dir) / 'run_off.json')
    rounds, judges = state.get('rounds'), state.get('judges')
    fits = is_list(rounds) and all(is_integer(entrants, 1) for entrants in rounds)
    known = is_list(state.get('candidates')) and isinstance(state.get('searches'), dict)
    return state if fits and known and is_integer(judges, 1) else {}


class RunOff:
    """Candidates trained against each other, and the best against the baseline.

    In every round of choosing the candidates that are left and the baseline are
    trained with a further seed; the better half goes on. The winner then meets the
    baseline under seeds of their own.

    Args:
        choosing: The contest of the candidates and the baseline; scored on images
            that were held out of their training.
        judging: The same networks, trained and tested as the user does.
        candidates: Names of the candidates, the best of the search first.
        schedule: How many of them meet how often.
        seed: The first that judges.

    Attributes:
        winner: Of the candidates, after `run`.
        chose: After `run`, by network that was trained for choosing its AP, seed by
            seed; ``None`` where it had been dropped.
    """

    def __init__(
        self,
        choosing: Contest,
        judging: Contest,
        candidates: Sequence[str],
        schedule: Schedule,
        seed: int = 0,
    ) -> None:
        self.choosing, self.judging = choosing, judging
        self.candidates, self.schedule = list(candidates), schedule
        self.seeds = range(seed, seed + schedule.judges)
        first = seed + FIRST_CHOOSING_SEED
        self.choosing_seeds = range(first, first + len(schedule.rounds))

    def run(self, lock: int) -> None:
        """Trains what is not trained yet."""
        left, self.chose = self.candidates, {}
        for i, (seed, entrants) in enumerate(
            zip(self.choosing_seeds, self.schedule.rounds)
        ):
            left = left[:entrants]
            self.choosing.run([(name, seed) for name in (BASELINE, *left)], lock)
            for name in (BASELINE, *left):
                row = self.chose.setdefault(name, [None] * len(self.choosing_seeds))
                row[i] = self.choosing.ap(name, seed)
            left = sorted(left, key=lambda name: -sum(self.chose[name][: i + 1]))
        self.winner = left[0]
        both = BASELINE, self.winner
        self.judging.run([(name, seed) for seed in self.seeds for name in both], lock)

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
