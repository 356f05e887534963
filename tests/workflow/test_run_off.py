"""The run-off: how trainings are used, and who meets the baseline."""

import json

import pytest

from mmcr.errors import UserError
from mmcr.workflow.contests.run_off import BASELINE, RunOff, Schedule


@pytest.mark.parametrize(
    'trainings, candidates, rounds, judges',
    [
        (4, 4, (), 2),
        (9, 4, (2,), 3),
        (12, 4, (3,), 4),
        (16, 4, (4,), 5),
        (24, 4, (4, 2), 8),
        (40, 4, (4, 2), 16),
        (60, 8, (8, 4, 2), 21),
        (12, 1, (), 6),
        (5, 4, (), 2),
    ],
)
def test_what_trainings_are_used_for(trainings, candidates, rounds, judges):
    schedule = Schedule.of(trainings, candidates)
    assert (schedule.rounds, schedule.judges) == (rounds, judges)
    assert schedule.choosing + 2 * schedule.judges <= trainings


class Trained:
    """A contest of made-up AP: what a network has, and what a seed adds."""

    def __init__(self, aps, noise=lambda name, seed: 0.0):
        self.aps, self.noise, self.ran = aps, noise, []

    def run(self, pairs, lock):
        self.ran += [pair for pair in pairs if pair not in self.ran]

    def ap(self, name, seed):
        assert (name, seed) in self.ran
        return self.aps[name] + self.noise(name, seed)

    def metrics(self, name, seed):
        return {'coco/bbox_mAP': self.ap(name, seed) / 100, 'coco/bbox_mAP_s': -1.0}


def run_off(tmp_path, trainings, **more):
    aps = dict(a=30.0, b=32.0, c=31.0, d=29.0, **{BASELINE: 30.5})
    choosing, judging = Trained(aps, **more), Trained(aps)
    return RunOff(tmp_path, choosing, judging, list('abcd'), trainings, seed=7)


def test_the_best_goes_through_and_other_seeds_judge(tmp_path):
    made = run_off(tmp_path, 24)
    assert made.run(0) == 'b'
    first, second = 1007, 1008
    assert made.choosing.ran == [
        *((name, first) for name in (BASELINE, *'abcd')),
        *((name, second) for name in (BASELINE, *'bc')),
    ]
    assert made.judging.ran == [
        (name, seed) for seed in range(7, 15) for name in (BASELINE, 'b')
    ]
    assert made.chosen_by() == {
        BASELINE: [30.5, 30.5],
        'a': [30.0, None],
        'b': [32.0, 32.0],
        'c': [31.0, 31.0],
        'd': [29.0, None],
    }
    assert list(made.difference().by_seed) == [1.5] * 8
    assert made.metrics('b') == pytest.approx(
        {'coco/bbox_mAP': 0.32, 'coco/bbox_mAP_s': -1.0}
    )


def test_a_lucky_seed_is_outvoted(tmp_path):
    lucky = {('c', 1007): 3.0, ('c', 1008): -3.0}
    made = run_off(tmp_path, 24, noise=lambda *pair: lucky.get(pair, 0.0))
    assert made.run(0) == 'b'


def test_without_a_round_the_searches_first_is_judged(tmp_path):
    made = run_off(tmp_path, 4)
    assert made.run(0) == 'a' and not made.choosing.ran


def test_more_trainings_keep_the_choice(tmp_path):
    first = run_off(tmp_path, 16)
    first.run(0)
    more = run_off(tmp_path, 24)
    assert more.schedule.rounds == first.schedule.rounds == (4,)
    assert len(more.seeds) == 9 > len(first.seeds)
    more.run(0)
    assert set(first.judging.ran) < set(more.judging.ran)


@pytest.mark.parametrize('rounds', [None, 4, [5], [4, 3], [4, 2, 1], [0], ['4']])
def test_rounds_that_no_run_off_has(tmp_path, rounds):
    state = dict(candidates=list('abcd'), rounds=rounds)
    (tmp_path / 'run_off.json').write_text(json.dumps(state))
    with pytest.raises(UserError, match='run_off.json must hold the rounds'):
        run_off(tmp_path, 24)


def test_too_few_trainings(tmp_path):
    with pytest.raises(UserError, match='takes 4 trainings at least.*got 3'):
        run_off(tmp_path, 3)
