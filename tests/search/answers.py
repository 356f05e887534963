"""Scores for searchers to live on: any, but distinct and reproducible."""

from random import Random

from mmcr.search import Trial, run_search


def evaluate(proposals):
    for proposal in proposals:
        yield Trial(proposal, Random(proposal.key).random())


def find(searcher, evaluate=evaluate):
    """The best trial of a search."""
    return run_search(searcher, evaluate, {}, lambda trial: None)


def rounds(searcher, evaluate=evaluate):
    """Runs a search; returns its trials by round."""
    trials = []
    while proposals := searcher.ask():
        trials.append(list(evaluate(proposals)))
        searcher.tell(trials[-1])
    return trials


def additive(space):
    """A gain for every value of every choice, and scores that are their sums."""
    gain = {
        (c.name, v): Random(f'{c.name}{v}').random()
        for c in space.choices
        for v in c.values
    }
    return lambda arch: sum(gain[item] for item in arch.items())
