"""Run a search: ask, look up or evaluate, write down, tell."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count

from mmcr.search.candidate import Proposal, Trial
from mmcr.search.searcher import Searcher


def run_search(
    searcher: Searcher,
    evaluate: Callable[[list[Proposal]], Iterable[Trial]],
    journal_scores: Mapping[str, dict],
    record: Callable[[Trial], None],
) -> Trial:
    """Runs a search to its end and returns its best trial.

    Every process of a distributed search runs this alike; nothing depends on the order
    in which trials are done.

    Args:
        searcher: A new one: known scores are told to it again.
        evaluate: Yields a trial for each of the distinct proposals, in any order, each
            as soon as it is done.
        journal_scores: What an earlier run has scored, as `Journal.scores`.
        record: Called for every new trial as it comes, and for a known one when it is
            asked again in a later round.

    Raises:
        ValueError: `evaluate` has left a proposal out or made up another.
    """
    known = dict(journal_scores)
    for number in count():
        proposals = searcher.ask()
        if not proposals:
            return searcher.best()
        askers = searcher.askers()
        trials = []
        for trial in _answers(proposals, known, evaluate):
            key = trial.proposal.key
            # -1: new; a journal of before rounds does not say when it was asked
            last = known[key].get('round', number) if key in known else -1
            trial = replace(trial, round=number, asked_by=askers.get(key, ()))
            if last < number:
                record(trial)
                known[key] = trial.result()
            trials.append(trial)
        searcher.tell(trials)


def _answers(
    proposals: list[Proposal], known: Mapping[str, dict], evaluate: Callable
) -> Iterator[Trial]:
    """Those to known proposals first."""
    asked = {p.key: p for p in proposals}
    yield from [Trial(p, **known[key]) for key, p in asked.items() if key in known]
    if todo := [p for key, p in asked.items() if key not in known]:
        yield from evaluate(todo)
