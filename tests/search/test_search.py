import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from random import Random

import pytest

from mmcr.errors import UserError
from mmcr.search import (
    Complete,
    EvolutionSearcher,
    ExhaustiveSearcher,
    GreedySearcher,
    HalvingSearcher,
    JointSearcher,
    Journal,
    ListedSearcher,
    Partial,
    Proposal,
    RacingGreedySearcher,
    Searcher,
    Trial,
    UnrankedError,
    run_search,
)
from mmcr.space import (
    Arch,
    Budget,
    Choice,
    SearchSpace,
    operation_space,
    resnet_stage_space,
)


def bounded(cost):
    """A small space under a budget."""
    choices = [Choice(name, (1, 2, 3)) for name in 'abcd']
    return SearchSpace(choices, lambda name, value: value, Budget.exactly(cost))


# A new searcher of every kind; all of them pass the contract below.
SEARCHERS = {
    'exhaustive': lambda: ExhaustiveSearcher(resnet_stage_space(8)),
    'exhaustive without budget': lambda: ExhaustiveSearcher(operation_space([1, 2])),
    'greedy': lambda: GreedySearcher(operation_space([1, 2, 1]), seed=7),
    'greedy, one kept': lambda: GreedySearcher(operation_space([2, 2]), k=1),
    'greedy on stages': lambda: GreedySearcher(resnet_stage_space(), k=2),
    'greedy under a budget': lambda: GreedySearcher(bounded(9), k=2),
    'halving': lambda: HalvingSearcher(resnet_stage_space(10), eta=2, finalists=5),
    'halving, few members': lambda: HalvingSearcher(resnet_stage_space(8)),
    'racing': lambda: RacingGreedySearcher(
        operation_space([1, 2]), k=2, seed=3, slices=6
    ),
    'racing under a budget': lambda: RacingGreedySearcher(bounded(9), k=1, slices=5),
    'evolution': lambda: EvolutionSearcher(
        operation_space([2, 2]), 6, 4, top=3, mutations=2, crossovers=2, seed=2
    ),
    'evolution of all members': lambda: EvolutionSearcher(
        bounded(9), 5, 9, top=3, mutations=2, crossovers=2
    ),
    'evolution for a front': lambda: EvolutionSearcher(
        resnet_stage_space(), 5, 4, top=4, mutations=2, crossovers=2, pareto=True
    ),
    'joint': lambda: JointSearcher(
        {
            'evolution': EvolutionSearcher(
                bounded(8), 4, 3, top=2, mutations=1, crossovers=1
            ),
            'greedy': GreedySearcher(bounded(8), k=2),
            'racing': RacingGreedySearcher(bounded(9), k=1, slices=5),
            'halving': HalvingSearcher(bounded(8), finalists=3),
            'exhaustive': ExhaustiveSearcher(bounded(9)),
        }
    ),
}
# How many trials these take is known beforehand only as a bound.
AT_MOST = {'greedy under a budget', 'racing', 'racing under a budget', 'joint'}
BATCHES = 12


@pytest.fixture(params=SEARCHERS)
def kind(request):
    return request.param


@pytest.fixture
def new_searcher(kind):
    return SEARCHERS[kind]


def evaluate(proposals):
    """Scores like archval of some batches: reproducible, different for all."""
    for proposal in proposals:
        start, stop = (round(BATCHES * end) for end in proposal.portion)
        batches = range(start, max(stop, start + 1))
        scores = [_score(proposal.candidate, batch) for batch in batches]
        yield Trial(proposal, sum(scores) / len(scores), {'n': len(scores)})


@cache
def _score(candidate, batch):
    text = str(sorted(candidate.arch_for(batch).items()))
    return Random(text).random() + 0.1 * Random(f'{text}/{batch}').random()


def run(searcher, known=None, evaluate=evaluate):
    """Returns the best trial and what was evaluated."""
    trials = []

    def evaluated(proposals):
        for trial in evaluate(proposals):
            trials.append(trial)
            yield trial

    best = run_search(searcher, evaluated, known or {}, lambda trial: None)
    return best, trials


def coarse(proposal):
    """A score that many have."""
    return Random(proposal.key).randrange(7)


def as_known(trials):
    return {t.proposal.key: {'score': t.score, 'metrics': t.metrics} for t in trials}


def transcript(searcher):
    """All that a search asked, down to the completions, and what it found."""
    best, trials = run(searcher)
    asked = [
        [t.proposal.key, [t.proposal.candidate.arch_for(b).to_json() for b in range(3)]]
        for t in trials
    ]
    return asked, best.to_json(), searcher.to_json()


def print_transcripts():
    print(json.dumps([transcript(new()) for new in SEARCHERS.values()]))


class TestContract:
    """What holds for every kind of searcher."""

    def test_asks_nothing_twice_and_finishes_after_total_trials(
        self, kind, new_searcher
    ):
        searcher = new_searcher()
        total = searcher.total
        _, trials = run(searcher)
        assert len(as_known(trials)) == len(trials) and total == searcher.total
        assert len(trials) < total if kind in AT_MOST else len(trials) == total
        assert searcher.ask() == []

    def test_asks_the_same_until_told(self, new_searcher):
        searcher = new_searcher()
        first = searcher.ask()
        first_keys = [proposal.key for proposal in first]
        first.clear()
        assert [proposal.key for proposal in searcher.ask()] == first_keys
        assert first_keys
        with pytest.raises(UserError, match='no complete architecture'):
            searcher.best()

    def test_every_completion_is_a_member(self, new_searcher):
        searcher = new_searcher()
        _, trials = run(searcher)
        for trial in trials:
            candidate = trial.proposal.candidate
            for batch in range(3):
                completed = candidate.arch_for(batch)
                assert completed in searcher.space
                assert candidate.arch.items() <= completed.items()

    def test_best_is_the_best_complete_member(self, new_searcher):
        searcher = new_searcher()
        best, trials = run(searcher)
        on_all = [trial for trial in trials if trial.proposal.on_all]
        members = [t for t in on_all if t.proposal.candidate.arch in searcher.space]
        assert best == searcher.best() == max(members, key=lambda t: t.score)

    def test_of_equals_the_first_is_best(self, new_searcher):
        searcher = new_searcher()
        complete = []
        while proposals := searcher.ask():
            for p in proposals:
                if isinstance(p.candidate, Complete) and p.on_all:
                    complete.append(p)
            searcher.tell([Trial(p, coarse(p)) for p in reversed(proposals)])
        assert searcher.best().proposal == max(complete, key=coarse)

    @pytest.mark.parametrize('score', [-1, 0, 0.5])
    def test_equal_scores_name_no_best(self, new_searcher, score):
        def equal(proposals):
            return (Trial(p, score) for p in proposals)

        with pytest.raises(UnrankedError, match=f'every score is {float(score)}, so'):
            run(new_searcher(), evaluate=equal)

    def test_the_order_of_answers_does_not_matter(self, new_searcher):
        searcher = new_searcher()
        asked = []
        while proposals := searcher.ask():
            asked += [proposal.key for proposal in proposals]
            searcher.tell(list(evaluate(reversed(proposals))))
        best, trials = run(new_searcher())
        # a joint search may ask what it knows from an earlier round
        assert list(dict.fromkeys(asked)) == [t.proposal.key for t in trials]
        assert searcher.best() == best

    def test_wrong_answers_are_refused(self, new_searcher):
        searcher = new_searcher()
        answers = list(evaluate(searcher.ask()))
        stranger = Trial(Proposal(Complete(Arch({'a': 1}))), 1.0)
        wrong = (answers[1:], answers + answers[:1], [*answers[1:], stranger], [])
        for trials in wrong:
            with pytest.raises(ValueError, match='proposals .* needs one answer'):
                searcher.tell(trials)
        searcher.tell(answers)

    def test_resumes_from_a_journal_cut_at_any_line(self, new_searcher, tmp_path):
        header = {'searcher': new_searcher().to_json()}
        whole = Journal(tmp_path / 'whole.jsonl', header)
        best = run_search(new_searcher(), evaluate, whole.scores, whole.append)
        lines = whole.path.read_bytes().splitlines(keepends=True)
        path = tmp_path / 'cut.jsonl'
        for count in range(1, len(lines) + 1):
            # with the next line torn
            path.write_bytes(b''.join(lines[:count]) + b''.join(lines[count:])[:9])
            journal = Journal(path, header)
            missing = []
            found = run_search(new_searcher(), evaluate, journal.scores, missing.append)
            assert found == best
            for trial in missing:
                journal.append(trial)
            assert path.read_bytes() == whole.path.read_bytes()

    def test_every_trial_has_its_round(self, new_searcher):
        searcher, recorded = new_searcher(), []
        rounds = []
        while proposals := searcher.ask():
            rounds.append({p.key: searcher.askers().get(p.key, ()) for p in proposals})
            searcher.tell(list(evaluate(proposals)))
        run_search(new_searcher(), evaluate, {}, recorded.append)
        noted = [{} for _ in rounds]
        for trial in recorded:
            noted[trial.round][trial.proposal.key] = trial.asked_by
        assert noted == rounds

    def test_what_is_known_need_not_be_its_beginning(self, new_searcher):
        """Trials are done in any order, and so may be left out in a stop."""
        best, trials = run(new_searcher())
        resumed, again = run(new_searcher(), as_known(trials[1::2]))
        assert resumed == best
        assert again == trials[::2]


@pytest.mark.parametrize(
    'kind, options, name',
    [
        (GreedySearcher, dict(k=2, seed=5), 'greedy'),
        (HalvingSearcher, dict(eta=2, rungs=5, finalists=3), 'halving'),
        (RacingGreedySearcher, dict(k=2, seed=5, slices=9, level=0.1), 'racing'),
    ],
)
def test_json_form_holds_what_decides(kind, options, name):
    obj = kind(operation_space([2]), **options).to_json()
    assert obj == {'kind': name, **options, 'about': dict(kind.about)}


def test_same_in_every_process():
    """Strings hash differently from process to process; nothing may depend on it."""
    here = json.loads(json.dumps([transcript(new()) for new in SEARCHERS.values()]))
    program = [sys.executable, '-c', 'import test_search as t; t.print_transcripts()']
    env = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    for seed in ('1', '2'):
        env['PYTHONHASHSEED'] = seed
        how = dict(cwd=Path(__file__).parent, env=env, capture_output=True, check=True)
        assert json.loads(subprocess.run(program, **how).stdout) == here


class TestExhaustive:
    def test_asks_for_every_member_in_order(self):
        space = resnet_stage_space(8)
        searcher = ExhaustiveSearcher(space)
        assert [proposal.candidate.arch for proposal in searcher.ask()] == list(space)
        assert {proposal.portion for proposal in searcher.ask()} == {(0.0, 1.0)}

    def test_refuses_a_large_space_and_names_a_way_out(self):
        with pytest.raises(UserError, match=r'43,046,721, .*max_trials=5,000.*Greedy'):
            ExhaustiveSearcher(operation_space([3, 4, 6, 3]))
        large = ExhaustiveSearcher(resnet_stage_space(), max_trials=10_000)
        assert large.total == 10_000
        with pytest.raises(UserError, match='max_trials=152'):
            ExhaustiveSearcher(resnet_stage_space(16), max_trials=152)


class TestProposalsAndTrials:
    def test_equal_proposals_and_only_they_have_equal_keys(self):
        space = operation_space([2])
        a, b = Arch({'a': 1, 'b': 2}), Arch({'b': 2, 'a': 1})
        assert Proposal(Complete(a)).key == Proposal(Complete(b), (0, 1)).key
        proposals = [
            Proposal(Complete(a)),
            Proposal(Complete(a), (0.0, 0.5)),
            Proposal(Complete(a.updated({'a': 2}))),
            Proposal(Partial(a, space, 0)),
            Proposal(Partial(a, space, 1)),
            *(
                Proposal(Partial(Arch({'stage1': 2}), resnet_stage_space(n), 0))
                for n in (None, 8, 16)
            ),
        ]
        assert len({p.key for p in proposals}) == len(set(proposals)) == len(proposals)

    def test_budgets_are_equal_in_what_they_allow(self):
        def partial(budget, factor=1):
            choices = operation_space([2]).choices
            cost = SearchSpace(choices, lambda _, value: factor * value, budget)
            return Partial(Arch({}), cost, 0)

        whole, fraction = partial(Budget(4, 6)), partial(Budget(4.0, 6.0))
        assert whole == fraction and Proposal(whole).key == Proposal(fraction).key
        assert whole.to_json()['budget'] == [4.0, 6.0]
        # milliseconds on another device, say
        other = partial(Budget(4, 6), factor=2)
        assert whole != other and Proposal(whole).key != Proposal(other).key

    @pytest.mark.parametrize('portion', [(0.5, 0.5), (-0.1, 1), (0, 1.1), (1, 0)])
    def test_a_portion_is_a_slice(self, portion):
        with pytest.raises(ValueError, match='0 <= start < stop <= 1 must hold'):
            Proposal(Complete(Arch({'a': 1})), portion)

    @pytest.mark.parametrize('score', [float('nan'), float('inf')])
    def test_a_score_is_finite(self, score):
        with pytest.raises(UserError, match=f'finite number, but a=1 scored {score}'):
            Trial(Proposal(Complete(Arch({'a': 1}))), score)

    def test_json_form_of_a_trial(self):
        proposal = Proposal(Complete(Arch({'a': 1})), (0.0, 0.5))
        trial = Trial(proposal, 1, {'AP': 0.25, 'APs': float('nan'), 'seen': 8})
        assert json.loads(json.dumps(trial.to_json(), allow_nan=False)) == {
            'candidate': {'arch': {'a': 1}},
            'portion': [0.0, 0.5],
            'score': 1.0,
            'metrics': {'AP': 0.25, 'APs': None, 'seen': 8},
        }


def test_only_what_is_scored_on_all_of_archval_is_best():
    class Parts(ExhaustiveSearcher):
        def rounds(self):
            for portion in ((0, 0.5), (0.5, 1), (0, 1)):
                yield [Proposal(Complete(a), portion) for a in self.space]

    searcher = Parts(resnet_stage_space(8))
    for _ in range(2):
        searcher.tell([Trial(p, 0.9) for p in searcher.ask()])
        with pytest.raises(UserError, match='on all of archval yet'):
            searcher.best()
    searcher.tell([Trial(p, i / 100) for i, p in enumerate(searcher.ask())])
    assert searcher.best().score == 0.08


class TestDriver:
    def test_each_trial_is_recorded_before_the_next_is_evaluated(self):
        events = []

        def logged(proposals):
            for proposal, trial in zip(proposals, evaluate(proposals)):
                events.append(('done', proposal.key))
                yield trial

        def record(trial):
            events.append(('recorded', trial.proposal.key))

        searcher = ExhaustiveSearcher(resnet_stage_space(8))
        keys = [proposal.key for proposal in searcher.ask()]
        run_search(searcher, logged, {}, record)
        assert events == [(what, key) for key in keys for what in ('done', 'recorded')]

    def test_a_round_evaluates_what_is_missing_together(self):
        rounds = []

        def logged(proposals):
            rounds.append(len(proposals))
            return evaluate(proposals)

        run(GreedySearcher(operation_space([1, 2])), evaluate=logged)
        assert rounds == [3, 9, 9]

    def test_equal_proposals_are_evaluated_once(self):
        a, b, c = list(resnet_stage_space(8))[:3]

        class Repeating(Searcher):
            total = 3
            answers = []

            def rounds(self):
                for archs in ((a, b, a), (b, c, b)):
                    answers = yield [Proposal(Complete(arch)) for arch in archs]
                    self.answers.append([t.proposal.candidate.arch for t in answers])

        searcher = Repeating(resnet_stage_space(8))
        assert [p.candidate.arch for p in searcher.ask()] == [a, b]
        _, trials = run(searcher)
        assert [t.proposal.candidate.arch for t in trials] == [a, b, c]
        assert searcher.answers == [[a, b, a], [b, c, b]]


def of_one(space, score):
    return run(
        ListedSearcher(space, [[3, 4, 6, 3]]), {}, lambda ps: [Trial(ps[0], score)]
    )


def test_a_single_architecture_needs_no_other_but_a_score():
    space = resnet_stage_space()
    assert of_one(space, 0.0)[0].score == 0
    with pytest.raises(UnrankedError, match='of 1 at the end, every score is -1.0'):
        of_one(space, -1)


def test_early_rungs_may_tie_and_the_last_may_not():
    def scored(tied):
        def evaluate(proposals):
            for p in proposals:
                yield Trial(p, 0.0 if tied(p) else Random(p.key).random())

        space = resnet_stage_space(8)
        return run(HalvingSearcher(space, rungs=2, finalists=2), {}, evaluate)[0]

    assert scored(lambda proposal: not proposal.on_all).score > 0
    with pytest.raises(UnrankedError, match='of 3 at the end'):
        scored(lambda proposal: proposal.on_all)


def test_a_budget_that_ranks_nothing_is_named():
    searchers = {n: ExhaustiveSearcher(resnet_stage_space(n)) for n in (7, 8, 9)}
    joint = JointSearcher({f'budget_{n}': s for n, s in searchers.items()})

    def evaluate(proposals):
        for p in proposals:
            blocks = sum(p.candidate.arch.values())
            yield Trial(p, 0.3 if blocks == 8 else Random(p.key).random())

    with pytest.raises(UnrankedError) as error:
        run(joint, {}, evaluate)
    assert 'budget_8: ' in str(error.value) and 'budget_9' not in str(error.value)
    assert searchers[9].best().score > 0.5


def test_a_last_choice_that_changes_nothing_leaves_the_others():
    def scored(last):
        def evaluate(proposals):
            for p in proposals:
                arch = p.candidate.arch
                yield Trial(p, last if 'd' in arch else sum(arch.values()))

        space = SearchSpace([Choice(name, (1, 2)) for name in 'abcd'])
        return run(GreedySearcher(space, k=1), {}, evaluate)[0].proposal.candidate.arch

    assert scored(0.3) == dict(a=2, b=2, c=2, d=1)
    with pytest.raises(UnrankedError):
        scored(0)
