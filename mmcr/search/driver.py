"""Run a search: ask, look up or evaluate, write down, tell."""

from collections.abc import Callable, Mapping

from mmcr.errors import UserError
from mmcr.search.candidate import Proposal, Trial
from mmcr.search.searcher import Searcher


def run_search(
    searcher: Searcher,
    evaluate: Callable[[list[Proposal]], list[Trial]],
    journal_scores: Mapping[str, dict],
    record: Callable[[Trial], None],
    group_size: int,
) -> Trial:
    """Runs a search to its end and returns its best trial.

    Every process of a distributed search runs this alike; none of it depends on
    anything but the arguments.

    Args:
        searcher: A new one: known scores are told to it again.
        evaluate: Scores a few proposals together.
        journal_scores: What an earlier run has scored, as `Journal.scores`.
        record: Called for every new trial as soon as its group is scored.
        group_size: How many proposals to evaluate together at most.

    Raises:
        UserError: `group_size` is less than 1.
    """
    if group_size < 1:
        raise UserError(f'group_size must be at least 1, but got {group_size}')
    while proposals := searcher.ask():
        known = [p for p in proposals if p.key in journal_scores]
        todo = [p for p in proposals if p.key not in journal_scores]
        trials = [Trial(p, **journal_scores[p.key]) for p in known]
        for start in range(0, len(todo), group_size):
            for trial in evaluate(todo[start : start + group_size]):
                record(trial)
                trials.append(trial)
        searcher.tell(trials)
    return searcher.best()
