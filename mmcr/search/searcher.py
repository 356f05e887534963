"""The contract between a search method and whoever evaluates for it."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress

from mmcr.errors import UserError
from mmcr.search.candidate import Complete, Proposal, Trial
from mmcr.space import SearchSpace

Rounds = Generator[list[Proposal], list[Trial], None]

REMEDY = (
    'Check that the class names and ids of the annotations are those that the detector '
    'was trained on, that the checkpoint is of a trained supernet, and that the score '
    'is defined on these images, and use more of them where it is coarse. The trials '
    'stay in the journal; other settings need another work dir.'
)


class UnrankedError(UserError):
    """A search whose scores say nothing about which architecture is best."""


class Searcher(ABC):
    """Asks round by round what to score; never evaluates by itself.

    A kind of search is one generator, `rounds`. What it asks depends on its options and
    on the answers alone, so a stopped search resumes by replay: a new searcher that is
    told the same answers asks the same again.

    Attributes:
        kind: Its name in journals.
        options: Names of the attributes that decide what is asked, for journals.
        fast: Registry name of its quicker form, which takes the same options.
        about: What a report says: the `method` in a sentence or two, what a `round`
            is called, and what those candidates are that it `kept`.
    """

    kind: str
    options: tuple[str, ...] = ()
    fast: str | None = None
    about: Mapping[str, str] = {}

    def __init__(self, space: SearchSpace):
        self.space = space
        self._told: dict[str, Trial] = {}  # by proposal
        self._rounds = self.rounds()
        self._round = None

    @abstractmethod
    def rounds(self) -> Rounds:
        """Yields the proposals of each round, one at least; is sent their trials.

        The trials come in that order; equal proposals are asked once, answered alike.
        """

    @property
    @abstractmethod
    def total(self) -> int:
        """How many trials the search takes in all, at most."""

    @property
    def work(self) -> float:
        """What the search takes in all, in candidates scored on all of archval."""
        return self.total

    def to_json(self) -> dict:
        """Returns the kind, the options that decide what is asked, and `about`."""
        options = {name: getattr(self, name) for name in self.options}
        about = {'about': dict(self.about)} if self.about else {}
        return {'kind': self.kind, **options, **about}

    def askers(self) -> Mapping[str, tuple[str, ...]]:
        """Returns by key of a proposal who asks it now, where that are several."""
        return {}

    def ask(self) -> list[Proposal]:
        """Returns the distinct proposals of the round; none when all is finished."""
        if self._round is None:
            self._round = next(self._rounds)
        return list({proposal.key: proposal for proposal in self._round}.values())

    def tell(self, trials: list[Trial]) -> None:
        """Takes the answers to the whole round, in any order.

        Raises:
            ValueError: A proposal has no answer or several, or was not asked.
        """
        asked = [proposal.key for proposal in self.ask()]
        answers = {trial.proposal.key: trial for trial in trials}
        if Counter(asked) != Counter(trial.proposal.key for trial in trials):
            missing = [key for key in asked if key not in answers]
            strange = [key for key in answers if key not in asked]
            raise ValueError(
                f'each of the {len(asked)} proposals of a round needs one answer, but '
                f'got {len(trials)} (unanswered: {missing}; not asked: {strange})'
            )
        ordered = [answers[proposal.key] for proposal in self._round]
        for trial in ordered:
            self._told.setdefault(trial.proposal.key, trial)
        self._round = []
        with suppress(StopIteration):
            self._round = self._rounds.send(ordered)

    @property
    def complete(self) -> list[Trial]:
        """Trials so far of complete architectures on all of archval."""
        return [
            trial
            for trial in self._told.values()
            if isinstance(trial.proposal.candidate, Complete) and trial.proposal.on_all
        ]

    def best(self) -> Trial:
        """Returns the best trial so far of a complete architecture on all of archval.

        Of equals the one that was proposed first.

        Raises:
            UnrankedError: There are several, their scores are all equal, and no step
                before has chosen among them; or the scores are all -1, which says that
                there was nothing to measure.
            UserError: There is none yet.
        """
        told = self._told.values()
        complete = [t for t in told if isinstance(t.proposal.candidate, Complete)]
        finalists = self.complete
        if not finalists:
            raise UserError(
                'no complete architecture has been scored on all of archval yet; let '
                'the search finish'
            )
        partial = [t for t in told if not isinstance(t.proposal.candidate, Complete)]
        scores = [trial.score for trial in finalists]
        if not name_a_best(scores, compared(complete), compared(partial)):
            raise UnrankedError(
                f'the scores do not tell which architecture is the best: of '
                f'{len(scores)} at the end, every score is {scores[0]}, so none is '
                f'named. {REMEDY}'
            )
        return ranked(finalists)[0]


def compared(trials: Iterable[Trial]) -> list[list[float]]:
    """The scores that compare: of as many decided choices, on the same slice."""
    scores: dict[tuple, list[float]] = {}
    for trial in trials:
        place = len(trial.proposal.candidate.arch), trial.proposal.portion
        scores.setdefault(place, []).append(trial.score)
    return list(scores.values())


def all_tie(compared: Iterable[Sequence[float]]) -> bool:
    """Whether there are scores that compare, and all such are equal."""
    distinct = [len(set(scores)) for scores in compared if len(scores) > 1]
    return bool(distinct) and max(distinct) == 1


def name_a_best(
    finalists: Sequence[float],
    complete: Sequence[Sequence[float]],
    partial: Sequence[Sequence[float]],
) -> bool:
    """Whether scores tell which architecture is the best.

    Args:
        finalists: Of complete architectures on all of archval, one at least.
        complete: Of complete architectures, the `compared` ones, the finalists' among
            them.
        partial: Of partial ones.
    """
    if set(finalists) == {-1}:  # there was nothing to measure
        return False
    if len(finalists) == 1:  # the rounds before have decided, if there was a choice
        return not all_tie([*complete, *partial])
    # a last choice that changes nothing leaves what was decided before it
    before = any(len(set(scores)) > 1 for scores in partial) and set(finalists) != {0}
    return len(set(finalists)) > 1 or before


def ranked(trials: Iterable) -> list:
    """Returns trials, or whatever has a `score`, by falling score; equals in order."""
    return sorted(trials, key=lambda trial: trial.score, reverse=True)
