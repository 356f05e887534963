"""Run a search: ask, look up or evaluate, write down, tell."""

from collections.abc import Callable, Iterable, Mapping

from mmcr.search.candidate import Proposal, Trial
from mmcr.search.searcher import Searcher


def run_search(
    searcher: Searcher,
    evaluate: Callable[[list[Proposal]], Iterable[Trial]],
    journal_scores: Mapping[str, dict],
    record: Callable[[Trial], None],
) -> Trial:
    """Runs a search to its end and returns its best trial.

    Every process of a distributed search runs this alike; none of it depends on
    anything but the arguments, nor on the order in which trials are done.

    Args:
        searcher: A new one: known scores are told to it again.
        evaluate: Yields a trial for each of the proposals, which are distinct, in
            any order, each as soon as it is done.
        journal_scores: What an earlier run has scored, as `Journal.scores`.
        record: Called for every new trial as it comes.

    Raises:
        ValueError: `evaluate` has left a proposal out or made up another.
    """
    known = dict(journal_scores)
    while proposals := searcher.ask():
        todo = [p for p in proposals if p.key not in known]
        trials = [Trial(p, **known[p.key]) for p in proposals if p.key in known]
        for trial in evaluate(todo) if todo else ():
            record(trial)
            known[trial.proposal.key] = dict(score=trial.score, metrics=trial.metrics)
            trials.append(trial)
        searcher.tell(trials)
    return searcher.best()
