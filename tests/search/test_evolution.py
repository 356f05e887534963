from collections import Counter
from itertools import count, product
from random import Random

import pytest
from answers import evaluate, find, rounds
from published import detnas_300m

from mmcr.errors import UserError
from mmcr.search import EvolutionSearcher, ExhaustiveSearcher, Trial
from mmcr.search.pareto import Point, pareto_front, select
from mmcr.space import (
    Arch,
    Budget,
    BudgetError,
    Choice,
    SearchSpace,
    detnas_size,
    detnas_space,
    mobilenetv2_stage_space,
    operation_space,
    resnet_stage_space,
)

R50 = operation_space([3, 4, 6, 3])
DETNAS = detnas_300m().under(Budget(0, 300e6))
UNCOUNTED = SearchSpace(  # costs from 8 to 32, no two sums alike
    detnas_space(detnas_size('3.8G')).choices,
    lambda name, kind: Random(f'{name} is {kind}').random(),
)
SMALL = dict(population=10, generations=5, top=3, mutations=4, crossovers=4)


def arch_of(trial):
    return trial.proposal.candidate.arch


def archs_of(generations):
    return [arch_of(trial) for trials in generations for trial in trials]


def best_of(trials, number):
    ranked = sorted(trials, key=lambda trial: trial.score, reverse=True)
    return [arch_of(trial) for trial in ranked[:number]]


def changes(arch, other):
    """How many values differ."""
    return sum(arch[name] != other[name] for name in arch)


def in_order(step):
    """Scores that rise, or fall, from one proposal to the next."""
    scores = count(step=step)
    return lambda proposals: [Trial(p, next(scores)) for p in proposals]


class TestEvolution:
    def test_defaults_are_those_of_the_paper(self):
        searcher = EvolutionSearcher(DETNAS)
        assert searcher.total == 1000
        assert [len(trials) for trials in rounds(searcher)] == [50] * 20

    def test_the_first_generation_is_drawn_at_random(self):
        rng = Random('7/0')
        drawn = [R50.sample(rng) for _ in range(50)]
        asked = EvolutionSearcher(R50, seed=7).ask()
        assert [proposal.candidate.arch for proposal in asked] == drawn

    def test_generations_are_bred_from_the_best_of_all_before(self):
        # scores fall, so that the first generation stays the best
        first, *later = rounds(EvolutionSearcher(R50, generations=6), in_order(-1))
        top = best_of(first, 10)
        mutated = Counter()
        for trials in later:
            archs = [arch_of(trial) for trial in trials]
            assert len(archs) == 50
            for arch in archs[:20]:
                mutated[min(changes(arch, parent) for parent in top)] += 1
            for arch in archs[20:40]:
                assert any(
                    all(arch[name] in (one[name], other[name]) for name in arch)
                    for one, other in product(top, top)
                )
        # each of 16 values is drawn anew with p = 0.1, and is another with 2 / 3;
        # what is not changed at all is known
        mean = sum(n * count for n, count in mutated.items()) / mutated.total()
        expected = 16 * 0.1 * 2 / 3 / (1 - (1 - 0.1 * 2 / 3) ** 16)
        assert abs(mean - expected) < 0.3 and 0 not in mutated

    def test_the_last_generation_can_be_the_best(self):
        searcher = EvolutionSearcher(R50, **SMALL)
        *_, last = rounds(searcher, in_order(1))
        assert [arch_of(trial) for trial in searcher.parents()] == best_of(last, 3)

    def test_a_child_takes_values_from_both_parents_alike(self):
        searcher = EvolutionSearcher(R50, 200, 2, top=2, mutations=0, crossovers=200)
        first, second = rounds(searcher)
        one, other = best_of(first, 2)
        children = [arch_of(trial) for trial in second]
        for name in one:
            share = sum(child[name] == one[name] for child in children) / 200
            assert 0.35 < share < 0.65 or one[name] == other[name] and share == 1
        assert changes(one, other) > 8

    @pytest.mark.parametrize(
        'space',
        [
            R50,
            DETNAS,
            UNCOUNTED.under(Budget(0, 18)),
            resnet_stage_space(),
            resnet_stage_space(33),
            mobilenetv2_stage_space(),
        ],
        ids=['r50', 'detnas', 'detnas-uncounted', 'stages', 'r101', 'mobilenetv2'],
    )
    def test_members_only_and_none_twice(self, space):
        archs = archs_of(
            rounds(EvolutionSearcher(space, 20, 8, mutations=8, crossovers=8))
        )
        assert len(archs) == len(set(archs)) == 160
        assert all(arch in space for arch in archs)

    @pytest.mark.parametrize('max_tries', [1, 100])
    @pytest.mark.parametrize(
        'space', [resnet_stage_space(16), mobilenetv2_stage_space(16)]
    )
    def test_a_space_of_which_all_is_known_ends_the_search(self, space, max_tries):
        searcher = EvolutionSearcher(space, max_tries=max_tries)
        generations = rounds(searcher)
        assert searcher.total == space.size == len(set(archs_of(generations)))
        assert searcher.best() == find(ExhaustiveSearcher(space))

    def test_where_breeding_finds_nothing_new_members_are_drawn(self):
        # what a parent alone brings forth is known
        searcher = EvolutionSearcher(R50, 20, 2, top=1, mutations=0, crossovers=20)
        first, second = rounds(searcher)
        (parent,) = best_of(first, 1)
        assert len(second) == 20
        assert sum(changes(arch_of(trial), parent) for trial in second) / 20 > 8

    def test_finds_what_random_search_does_not(self):
        optimum = R50.sample(Random(99))

        def likeness(proposals):
            for proposal in proposals:
                yield Trial(proposal, -changes(proposal.candidate.arch, optimum))

        found = find(EvolutionSearcher(R50), likeness)
        rng = Random(0)
        assert min(changes(R50.sample(rng), optimum) for _ in range(1000)) > 3
        assert found.score >= -1

    def test_the_seed_decides(self):
        runs = [
            archs_of(rounds(EvolutionSearcher(R50, seed=seed, **SMALL)))
            for seed in (0, 0, 1)
        ]
        assert runs[0] == runs[1] != runs[2]

    def test_json_form(self):
        options = dict(SMALL, mutation_rate=0.3, seed=4, max_tries=9, pareto=False)
        obj = EvolutionSearcher(R50, **options).to_json()
        assert obj.pop('about')['round'] == 'generation'
        assert obj == {'kind': 'evolution', **options}
        # what decides is noted, though the space has no budget
        obj = EvolutionSearcher(resnet_stage_space(), pareto=True).to_json()
        assert obj['costs']['stage4']['13'] == 13 and obj['unit'] == 'cost'
        assert EvolutionSearcher(DETNAS, pareto=True).to_json()['unit'] == (
            'multiply-accumulates'
        )

    @pytest.mark.parametrize(
        'options, message',
        [
            (dict(population=0), 'population must be .* at least 1, but got 0'),
            (dict(generations=2.5), 'generations must be .* 2.5'),
            (dict(top=True), 'top must be .* True'),
            (dict(max_tries=0), 'max_tries must be .* 0'),
            (dict(mutations=-1), 'mutations must be .* at least 0, but got -1'),
            (dict(crossovers=31), r'<= population must hold, but got 20 \+ 31 and 50'),
            (dict(mutation_rate=0), 'mutation_rate <= 1 must hold, but got 0'),
            (dict(mutation_rate='0.1'), "must hold, but got '0.1'"),
            (dict(pareto=True), 'this space, .* have no cost: leave pareto out'),
        ],
    )
    def test_options_are_checked(self, options, message):
        with pytest.raises(UserError, match=message):
            EvolutionSearcher(R50, **options)

    def test_a_budget_that_leaves_too_little_to_draw_is_refused_at_once(self):
        rng = Random(0)
        costs = {(f'c{i}', v): rng.random() for i in range(40) for v in (1, 2, 3)}
        choices = [Choice(f'c{i}', (1, 2, 3)) for i in range(40)]
        space = SearchSpace(choices, lambda *item: costs[item], Budget(15, 15.01))
        words = '10,000 architectures none costs between 15 and 15.01; widen'
        with pytest.raises(BudgetError, match=words):
            EvolutionSearcher(space)


def dominated(points):
    """Which of them are, by definition."""
    return [
        any(q != p and q.score >= p.score and q.cost <= p.cost for q in points)
        for p in points
    ]


class TestPareto:
    def test_the_front_is_what_nothing_dominates(self):
        rng = Random(0)
        for _ in range(200):  # with many ties
            points = [Point(rng.randrange(6), rng.randrange(6)) for _ in range(12)]
            front = pareto_front(points)
            is_out = dominated(points)
            assert sorted(front) == [i for i in range(12) if not is_out[i]]
            costs = [points[i].cost for i in front]
            assert costs == sorted(costs)

    def test_selection_by_hand(self):
        first = [Point(5, 0), Point(9, 1)]
        second = [Point(4, 1), Point(5, 2), Point(6, 4), Point(7, 4.5), Point(8, 6)]
        third = [Point(1, 2)]
        points = third + second + first

        def selected(count):
            return [points[i] for i in select(points, count)]

        assert selected(2) == first
        # of the second front, its ends, and then those with the most room: between
        # the neighbours are 2/4 of the scores, and 3/5, 2.5/5 and 2/5 of the costs
        assert set(selected(4)) == {*first, second[0], second[4]}
        assert selected(5) == [*selected(4), second[1]]
        assert selected(6) == [*selected(4), second[1], second[2]]
        assert selected(20) == first + second + third
        assert select([], 3) == []

    def test_equal_points(self):
        points = [Point(1.0, 2.0)] * 4
        assert pareto_front(points) == [0, 1, 2, 3]
        assert len(set(select(points, 3))) == 3

    def test_a_search_goes_for_the_whole_range_of_costs(self):
        space = resnet_stage_space()

        def saturating(proposals):
            for proposal in proposals:
                blocks = sum(proposal.candidate.arch.values())
                noise = Random(proposal.key).random() / 50
                yield Trial(proposal, 1 - 5 / blocks + noise)

        searcher = EvolutionSearcher(space, pareto=True)
        trials = sum(rounds(searcher, saturating), [])
        points = [Point(t.score, sum(arch_of(t).values())) for t in trials]
        front = searcher.front()
        is_out = dominated(points)
        assert sorted(map(id, front)) == sorted(
            id(trial) for trial, out in zip(trials, is_out) if not out
        )
        costs = [space.cost_of(arch_of(trial)) for trial in front]
        assert costs == sorted(costs)
        assert searcher.best() == max(trials, key=lambda t: t.score) == front[-1]
        assert len(front) > 20 and costs[0] <= 8
        # the best scores alone are all dear
        alone = EvolutionSearcher(space)
        rounds(alone, saturating)
        assert min(sum(arch_of(trial).values()) for trial in alone.parents()) > 40
        assert min(sum(arch_of(trial).values()) for trial in searcher.parents()) < 12


def test_where_members_are_too_rare_to_be_drawn_breeding_goes_on(monkeypatch):
    space = UNCOUNTED.under(Budget(0, 22))
    assert not space.countable
    searcher = EvolutionSearcher(space, **SMALL)
    first = searcher.ask()
    monkeypatch.setattr('mmcr.space.cost.MOST_DRAWS', 0)
    searcher.tell(list(evaluate(first)))
    bred = SMALL['mutations'] + SMALL['crossovers']
    assert len(searcher.ask()) == bred  # the places of the random ones stay empty
    with pytest.raises(BudgetError, match='widen the budget'):
        EvolutionSearcher(space, **SMALL)


def test_the_first_generation_begins_with_what_is_given():
    space = SearchSpace([Choice('a', range(9)), Choice('b', range(9))])
    given = [dict(a=8, b=8), dict(a=0, b=7)]
    few = dict(population=4, generations=2, mutations=1, crossovers=1)
    searcher = EvolutionSearcher(space, start=[*given, given[0]], **few)
    asked = [proposal.candidate.arch for proposal in searcher.ask()]
    assert asked[:2] == [Arch(arch) for arch in given] and len(set(asked)) == 4
    assert searcher.to_json()['start'] == given
    assert 'start' not in EvolutionSearcher(space, **few).to_json()
    with pytest.raises(UserError, match='a=9'):
        EvolutionSearcher(space, start=[dict(a=9, b=0)], **few)
    more = [dict(a=a, b=0) for a in range(5)]
    with pytest.raises(UserError, match='population=4, but has 5'):
        EvolutionSearcher(space, start=more, **few)
    EvolutionSearcher(space, start=[*more[:4], more[0]], **few)  # one is there twice
