"""How to choose: search methods, and the journal of their trials.

Needs the standard library and `mmcr.space` only.
"""

from mmcr.search.candidate import Candidate, Complete, Partial, Proposal, Trial
from mmcr.search.driver import run_search
from mmcr.search.exhaustive import ExhaustiveSearcher
from mmcr.search.greedy import GreedySearcher
from mmcr.search.journal import Journal, JournalError
from mmcr.search.searcher import Searcher

__all__ = [
    'Candidate',
    'Complete',
    'ExhaustiveSearcher',
    'GreedySearcher',
    'Journal',
    'JournalError',
    'Partial',
    'Proposal',
    'Searcher',
    'Trial',
    'run_search',
]
