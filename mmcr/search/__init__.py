"""How to choose: search methods, and the journal of their trials.

Needs the standard library and `mmcr.space` only.
"""

from mmcr.search.candidate import Candidate, Complete, Partial, Proposal, Trial
from mmcr.search.driver import run_search
from mmcr.search.evolution import EvolutionSearcher
from mmcr.search.exhaustive import ExhaustiveSearcher
from mmcr.search.greedy import GreedySearcher
from mmcr.search.halving import HalvingSearcher
from mmcr.search.joint import JointSearcher
from mmcr.search.journal import Journal, JournalError, read_journal
from mmcr.search.listed import ListedSearcher
from mmcr.search.racing import RacingGreedySearcher, sign_flip_p_value
from mmcr.search.searcher import Searcher, UnrankedError

__all__ = [
    'Candidate',
    'Complete',
    'EvolutionSearcher',
    'ExhaustiveSearcher',
    'GreedySearcher',
    'HalvingSearcher',
    'JointSearcher',
    'Journal',
    'JournalError',
    'ListedSearcher',
    'Partial',
    'Proposal',
    'RacingGreedySearcher',
    'Searcher',
    'Trial',
    'UnrankedError',
    'read_journal',
    'run_search',
    'sign_flip_p_value',
]
