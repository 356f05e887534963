import json
import pickle
from collections import Counter
from itertools import islice, product
from random import Random

import pytest
from published import detnas_300m

from mmcr.errors import UserError
from mmcr.search import ExhaustiveSearcher
from mmcr.space import (
    RESNET_STAGES,
    Arch,
    ArchError,
    Budget,
    BudgetError,
    Choice,
    SearchSpace,
    mobilenetv2_stage_space,
    operation_space,
    resnet_stage_space,
    stage_arch,
)


def tenths(choice, value):
    return 0.1 * value


def brute_force(space):
    """Every member by enumerating the product."""
    names = [choice.name for choice in space.choices]
    rows = product(*(choice.values for choice in space.choices))
    archs = (Arch(dict(zip(names, row))) for row in rows)
    budget = space.budget
    return [arch for arch in archs if budget is None or space.cost_of(arch) in budget]


SMALL_SPACES = {
    'free': SearchSpace([Choice('a', (3, 1)), Choice('b', (1, 2, 5))]),
    'r18': resnet_stage_space(8),
    'r50': resnet_stage_space(16),
    'mobilenet': mobilenetv2_stage_space(16),
    'range': SearchSpace(
        [Choice(name, (4, 1, 3)) for name in 'abcd'], tenths, Budget(0.8, 1.1)
    ),
}


class Nth(Random):
    """A generator whose one draw below n is chosen by the test."""

    def __init__(self, index):
        super().__init__(0)
        self.index = index

    def randrange(self, n):
        assert 0 <= self.index < n
        return self.index


class TestChoiceAndBudget:
    @pytest.mark.parametrize('values', [(), (1, 1), (1.5,)])
    def test_a_choice_needs_distinct_integers(self, values):
        with pytest.raises(UserError, match='c'):
            Choice('c', values)

    def test_a_space_needs_choices_of_distinct_names(self):
        with pytest.raises(UserError, match=r'distinct names, but got \[\]'):
            SearchSpace([])
        with pytest.raises(UserError, match=r"but got \['a', 'a'\]"):
            SearchSpace([Choice('a', (1,)), Choice('a', (2,))])

    def test_both_ends_belong_to_the_budget(self):
        budget = Budget(1.5, 2)
        inside = [cost in budget for cost in (1.49, 1.5, 2, 2.01)]
        assert inside == [False, True, True, False]
        assert 16 in Budget.exactly(16)
        assert 17 not in Budget.exactly(16)
        assert 0.1 + 0.2 in Budget.exactly(0.3)

    @pytest.mark.parametrize(
        ('ends', 'message'),
        [
            ((3, 1), r'low <= high must hold, but got \(low=3, high=1\)'),
            ((0, float('inf')), 'finite numbers, but got inf'),
            ((float('nan'), 1), 'finite numbers, but got nan'),
            (('1', 2), "finite numbers, but got '1'"),
        ],
    )
    def test_a_senseless_budget_is_refused(self, ends, message):
        with pytest.raises(BudgetError, match=message):
            Budget(*ends)


class TestSize:
    @pytest.mark.parametrize(('blocks', 'size'), [(8, 9), (16, 153), (33, 374)])
    def test_counts_of_the_resnet_space(self, blocks, size):
        space = resnet_stage_space(blocks)
        assert space.size == len(space) == len(list(space)) == size

    def test_without_a_budget(self):
        assert resnet_stage_space().size == 10**4
        assert operation_space([3, 4, 6, 3]).size == 3**16 == 43_046_721

    def test_is_exact_beyond_what_can_be_enumerated(self):
        assert operation_space([3, 8, 36, 3]).size == 3**50
        assert operation_space([3, 8, 36, 3])
        # As many ways to reach 80 with 40 choices of 1 or 3 as to pick 20 of 40.
        space = SearchSpace(
            [Choice(f'c{index}', (1, 3)) for index in range(40)],
            lambda name, value: value,
            Budget.exactly(80),
        )
        assert space.size == 137_846_528_820


class TestIteration:
    @pytest.mark.parametrize('name', SMALL_SPACES)
    def test_yields_the_members_in_order(self, name):
        space = SMALL_SPACES[name]
        assert list(space) == brute_force(space)
        assert space.size == len(brute_force(space))

    def test_is_lazy(self):
        first = list(islice(operation_space([3, 8, 36, 3]), 2))
        assert set(first[0].values()) == {1}
        assert list(first[1].values()) == [1] * 49 + [2]

    def test_enters_no_branch_without_members(self):
        space = SearchSpace(
            [Choice(f'c{index}', (0, 1)) for index in range(60)],
            lambda name, value: value,
            Budget.exactly(1),
        )
        ones = [[name for name, value in arch.items() if value] for arch in space]
        assert ones == [[f'c{index}'] for index in reversed(range(60))]


class TestMembership:
    @pytest.mark.parametrize('name', SMALL_SPACES)
    def test_members_and_only_they_are_in(self, name):
        space = SMALL_SPACES[name]
        members = set(space)
        everything = SearchSpace(space.choices)
        assert {arch for arch in everything if arch in space} == members

    @pytest.mark.parametrize(
        ('arch', 'message'),
        [
            (stage_arch([3, 4, 4, 5]), 'stage3=4 is not in .* one of 2, 3, 5, 6'),
            ({'stage1': 3, 'stage5': 1}, 'no choice stage5; .* are stage1, stage2'),
            (stage_arch([3, 4]), 'stage3 is missing; stage3 must be one of 2, 3, 5, 6'),
            (stage_arch([3, 4, 6, 4]), 'costs 17 and misses the budget: .* exactly 16'),
            ([3, 4, 6, 3], r'mapping .* but got \[3, 4, 6, 3\]'),
            ({'stage1': 3.5}, 'stage1 must be an integer, but got 3.5'),
        ],
    )
    def test_says_why_not(self, arch, message):
        space = resnet_stage_space(16)
        assert isinstance(space.check(arch), ArchError)
        assert arch not in space
        with pytest.raises(ArchError, match=message):
            space.validate(arch)

    def test_a_partial_architecture_needs_a_completion_within_the_budget(self):
        space = resnet_stage_space(16)
        members = [dict(arch) for arch in space]
        for one, two in product(range(1, 11), repeat=2):
            completed = any((m['stage1'], m['stage2']) == (one, two) for m in members)
            error = space.check({'stage1': one, 'stage2': two}, partial=True)
            assert (error is None) == completed
        assert space.check({}, partial=True) is None
        with pytest.raises(ArchError, match='costs 13 .* every completion.*ly 16'):
            space.validate({'stage1': 7, 'stage2': 6}, partial=True)


class TestSampling:
    @pytest.mark.parametrize('name', ['r18', 'r50', 'mobilenet', 'range'])
    def test_under_a_budget_every_member_has_one_chance_in_size(self, name):
        space = SMALL_SPACES[name]
        drawn = [space.sample(Nth(index)) for index in range(space.size)]
        assert drawn == list(space)

    def test_given_a_part_every_agreeing_member_has_the_same_chance(self):
        space, given = resnet_stage_space(16), {'stage3': 5}
        agreeing = [arch for arch in space if arch['stage3'] == 5]
        drawn = [space.sample(Nth(index), given) for index in range(len(agreeing))]
        assert drawn == agreeing

    @pytest.mark.parametrize('name', SMALL_SPACES)
    def test_draws_follow_the_generator(self, name):
        space = SMALL_SPACES[name]
        one, other = Random(3), Random(3)
        draws = [space.sample(one) for _ in range(40)]
        assert draws == [space.sample(other) for _ in range(40)]
        assert len(set(draws)) > 4 and set(draws) <= set(space)

    def test_without_a_budget_choices_are_drawn_one_by_one(self):
        space = operation_space([2, 2])
        rng = Random(5)
        expected = [rng.choice((1, 2, 3)) for _ in range(4)]
        assert list(space.sample(Random(5)).values()) == expected

    def test_equal_states_complete_different_parts_alike(self):
        space = operation_space([2, 3])
        completions = {
            tuple(space.sample(Random(1), {'stage1.0': rate}).values())[1:]
            for rate in (1, 2, 3)
        }
        assert len(completions) == 1

    def test_an_impossible_part_is_refused(self):
        with pytest.raises(ArchError, match='stage3=4 is not in this space'):
            resnet_stage_space(16).sample(Random(0), {'stage3': 4})
        with pytest.raises(ArchError, match='misses the budget'):
            resnet_stage_space(16).sample(Random(0), {'stage1': 10, 'stage2': 10})


class TestCost:
    def test_is_the_sum_over_what_is_decided(self):
        space = resnet_stage_space(33)
        assert space.cost_of(stage_arch([3, 4, 15, 11])) == 33
        assert space.cost_of({'stage1': 2}) == 2
        assert mobilenetv2_stage_space().cost_of(stage_arch([2, 3, 4, 3, 3])) == 16

    def test_is_exact_in_decimals(self):
        space = SMALL_SPACES['range'].under(Budget.exactly(0.9))
        assert all(sum(arch.values()) == 9 for arch in space)
        assert {'a': 1, 'b': 1, 'c': 3, 'd': 4} in space

    def test_a_space_without_cost_has_no_budget(self):
        space = operation_space([1, 1])
        with pytest.raises(BudgetError, match='no cost'):
            space.cost_of({'stage1.0': 1})
        with pytest.raises(BudgetError, match='exactly 3.* has none'):
            space.under(Budget.exactly(3))

    @pytest.mark.parametrize(
        ('budget', 'nearest'),
        [
            (Budget.exactly(5), 'exactly 5; the nearest reachable costs are 6$'),
            (Budget.exactly(61), 'exactly 61; .* are 60$'),
            (Budget(16.2, 16.8), 'between 16.2 and 16.8; .* are 16 and 17$'),
        ],
    )
    def test_an_infeasible_budget_names_the_nearest_costs(self, budget, nearest):
        with pytest.raises(BudgetError, match=nearest):
            resnet_stage_space().under(budget)

    def test_under_replaces_the_budget(self):
        space = resnet_stage_space(16).under(Budget.exactly(33))
        assert space.size == 374
        assert list(space) == list(resnet_stage_space(33))


def random_costs(choices, values=3, seed=0):
    """A space of as many different costs as architectures."""
    rng = Random(seed)
    costs = {(f'c{i}', v): rng.random() for i in range(choices) for v in range(values)}
    names = [Choice(f'c{i}', range(values)) for i in range(choices)]
    return SearchSpace(names, lambda *item: costs[item])


def dearest(space):
    def dear(choice):
        return max(choice.values, key=lambda value: space.cost(choice.name, value))

    return {choice.name: dear(choice) for choice in space.choices}


class TestLargeSpacesUnderABudget:
    DETNAS = detnas_300m().under(Budget(0, 300e6))
    UNCOUNTED = random_costs(40).under(Budget(0, 20))  # from 12.76 to 31.69

    def test_of_detnas_is_counted_exactly(self):
        # 69% of all meet the limit of the paper
        assert self.DETNAS.countable
        assert self.DETNAS.size == 757_185_372_520
        assert len({self.DETNAS.sample(Random(i)) for i in range(100)}) == 100

    def test_counts_of_a_part_and_of_the_rest_add_up_to_all(self):
        space = random_costs(9)
        below = space.under(Budget(0, 4))
        above = space.under(Budget(4, 9))  # no sum is 4 exactly
        assert below.size == len(list(below)) and below.size + above.size == 3**9

    def test_members_are_told_and_drawn(self):
        space = self.UNCOUNTED
        assert not space.countable
        drawn = [space.sample(rng) for rng in [Random(0)] for _ in range(200)]
        assert len(set(drawn)) == 200
        for arch in drawn:
            assert arch in space and space.cost_of(arch) <= 20
        with pytest.raises(ArchError, match='costs 31.6.* misses the budget'):
            space.validate(dearest(space))
        assert [space.sample(rng) for rng in [Random(0)] for _ in range(200)] == drawn

    def test_draws_are_uniform(self, monkeypatch):
        """Those of a small space, taken for a large one."""
        space = random_costs(4).under(Budget(1.2, 2.0))
        assert 5 < space.size < 40
        members, size = list(space), space.size
        monkeypatch.setattr('mmcr.space.cost.MOST_COUNTED', 0)
        space = space.under(space.budget)
        assert not space.countable
        rng = Random(0)
        counts = Counter(space.sample(rng) for _ in range(100 * size))
        assert set(counts) == set(members)
        assert all(60 < n < 140 for n in counts.values())

    def test_parts_are_completed(self):
        space = self.UNCOUNTED
        given = {c.name: 1 for c in space.choices[:5]}
        arch = space.sample(Random(0), given)
        assert arch in space and given.items() <= arch.items()
        almost_all = {c.name: arch[c.name] for c in space.choices[3:]}
        assert space.sample(Random(1), almost_all) in space
        dear = dict(islice(dearest(space).items(), 30))
        with pytest.raises(ArchError, match='every completion .* between 0 and 20'):
            space.sample(Random(0), dear)
        assert space.reachable() == space.choices

    @pytest.mark.parametrize('use', [len, list, lambda space: space.size, iter])
    def test_are_neither_counted_nor_listed(self, use):
        words = 'between 0 and 20.* 40 choices add up .* EvolutionSearcher'
        with pytest.raises(UserError, match=words):
            use(self.UNCOUNTED)

    @pytest.mark.parametrize(
        ('budget', 'nearest'), [(Budget(0, 12), '12.756'), (Budget(32, 40), '31.69')]
    )
    def test_budgets_beyond_all_costs(self, budget, nearest):
        with pytest.raises(BudgetError, match=f'nearest reachable costs are {nearest}'):
            self.UNCOUNTED.under(budget)

    def test_a_narrow_budget_is_met_but_not_drawn(self):
        space = self.UNCOUNTED.under(Budget(15, 15.001))
        with pytest.raises(BudgetError, match='10,000 .* none costs between 15 and'):
            space.sample(Random(0))

    def test_an_exhaustive_search_names_a_way_out(self):
        with pytest.raises(UserError, match='too many to count.*EvolutionSearcher'):
            ExhaustiveSearcher(self.UNCOUNTED)


def test_reachable_leaves_out_values_of_no_member():
    for space in SMALL_SPACES.values():
        members = list(space)
        for choice, left in zip(space.choices, space.reachable()):
            taken = {member[choice.name] for member in members}
            assert left.name == choice.name
            assert left.values == tuple(v for v in choice.values if v in taken)
    assert resnet_stage_space(8).reachable()[2].values == (2, 3)
    assert resnet_stage_space().reachable() == RESNET_STAGES


def test_json_form_of_a_space():
    space = SearchSpace([Choice('a', range(1, 3))], tenths)
    assert space.to_json() == {'choices': {'a': [1, 2]}, 'budget': None}
    assert resnet_stage_space(16).to_json()['budget'] == {'low': 16, 'high': 16}
    json.dumps(resnet_stage_space(16).to_json())


def test_a_space_can_be_pickled():
    space = resnet_stage_space(16)
    assert list(pickle.loads(pickle.dumps(space))) == list(space)
