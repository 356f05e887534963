"""Greedy search in which the candidates of a step race over slices of archval."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import count
from math import fsum

from mmcr.checks import check_integer, is_number
from mmcr.errors import UserError
from mmcr.search.candidate import Candidate, Proposal
from mmcr.search.greedy import Decision, GreedySearcher
from mmcr.search.searcher import Rounds
from mmcr.space import SearchSpace

MAX_SLICES = 24  # the exact test lists 2 ** (slices / 2) sums


class RacingGreedySearcher(GreedySearcher):
    """Stops scoring a candidate of a step when it has clearly fallen behind.

    A candidate is scored on one slice at a time, and its value is the mean over the
    slices it has run on; that is not quite the paper's score, one AP over all of
    archval. All candidates of a step see the same images and the same random
    completions in a slice, so their scores are compared slice by slice.

    The rule: all run on the fewest slices on which the test can decide at all
    (``2 ** -slices <= level``). From then on, before each further slice, every
    candidate below the `k` best means is tested against the k-th of them with
    `sign_flip_p_value`, and leaves the race at ``p <= level``. The race ends when `k`
    are left or the slices are used up. A step with no more than `k` candidates is not
    scored. The complete architectures kept after the last choice are scored on all of
    archval at once.

    Args:
        space: Its choices are decided in their order.
        k: As in `GreedySearcher`.
        seed: Likewise.
        slices: Into how many equal ones archval is cut; each has a mini-batch at least.
        level: Bounds the chance to drop a candidate that is as good as its opponent in
            one test of the two, fixed beforehand. Several looks at growing data and
            candidates, and an opponent chosen by its score, make the chance larger that
            a step drops one of its true `k` best.

    Raises:
        UserError: An option is out of range, or the slices are too few for a test
            at this level.
    """

    kind = 'racing'
    options = ('k', 'seed', 'slices', 'level')
    about = dict(
        GreedySearcher.about,
        method=GreedySearcher.about['method'] + ' The candidates of a step race over '
        'slices of archval, which are parts of a random order of its images. Scores '
        'are means over the slices that a candidate has run on; they compare among '
        'candidates with the same slices only, and are ranked among these.',
    )

    def __init__(
        self,
        space: SearchSpace,
        k: int = 3,
        seed: int = 0,
        slices: int = 10,
        level: float = 0.05,
    ):
        super().__init__(space, k, seed)
        check_integer('slices', slices)
        if not is_number(level) or not 0 < level <= 0.5:
            raise UserError(f'0 < level <= 0.5 must hold, but got level={level!r}')
        self.slices, self.level = slices, level
        self.first_look = next(m for m in count(1) if 0.5**m <= level)
        if not self.first_look <= slices <= MAX_SLICES:
            raise UserError(
                f'slices must be from {self.first_look}, with which a test can reach '
                f'level={level}, to {MAX_SLICES}, but got {slices}'
            )

    def rounds(self) -> Rounds:
        finalists = yield from self._decide_all()
        yield [Proposal(candidate) for candidate in finalists]

    def _keep_best_of(self, candidates: list[Candidate]) -> Decision:
        scores = {candidate: [] for candidate in candidates}
        left, done = candidates, 0
        while len(left) > self.k and done < self.slices:
            until = max(done + 1, self.first_look)
            trials = yield [
                Proposal(candidate, (i / self.slices, (i + 1) / self.slices))
                for candidate in left
                for i in range(done, until)
            ]
            for trial in trials:
                scores[trial.proposal.candidate].append(trial.score)
            done = until
            left = self._still_racing(scores, left)
        return left[: self.k]

    def _still_racing(
        self, scores: dict[Candidate, list[float]], left: list[Candidate]
    ) -> list[Candidate]:
        """Returns who stays in the race, by falling mean."""
        racing = set(left)
        # in the order of `scores` before sorting: of equals the one proposed first
        left = [candidate for candidate in scores if candidate in racing]
        left.sort(key=lambda candidate: fsum(scores[candidate]), reverse=True)
        leaders, behind = left[: self.k], left[self.k :]

        def lost(candidate: Candidate) -> bool:
            pairs = zip(scores[leaders[-1]], scores[candidate])
            return sign_flip_p_value([a - b for a, b in pairs]) <= self.level

        return leaders + [candidate for candidate in behind if not lost(candidate)]

    @property
    def total(self) -> int:
        return self._at_most(self.slices)

    @property
    def work(self) -> float:
        return self._at_most(1)

    def _at_most(self, slices: int) -> int:
        """If no race ended before its last slice, and it had so many."""
        sizes = self._step_sizes()
        races = sum(size for size in sizes if size > self.k)
        return races * slices + min(self.k, sizes[-1])


def sign_flip_p_value(differences: Sequence[float]) -> float:
    """The exact one-sided paired randomisation test, Fisher's, of a positive sum.

    Where two candidates are equally good, each difference is as likely to come with the
    other sign. The p-value is the share of the ``2 ** n`` sign patterns whose sum is no
    smaller than that of the `differences`, one at least.
    """
    half = len(differences) // 2
    right = sorted(_signed_sums(differences[half:]))
    # sums that are equal but for rounding count as equal
    observed = sum(differences) - 1e-9 * max(map(abs, differences))
    reaching = sum(
        len(right) - bisect_left(right, observed - left)
        for left in _signed_sums(differences[:half])
    )
    return reaching / 2 ** len(differences)


def _signed_sums(numbers: Sequence[float]) -> list[float]:
    sums = [0.0]
    for number in numbers:
        sums = [total + signed for total in sums for signed in (number, -number)]
    return sums
