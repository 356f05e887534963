"""The run-off: how trainings are used, and who meets the baseline."""

import errno
import json
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mmcr.errors import UserError
from mmcr.search import Complete, Proposal, Trial
from mmcr.space import Arch
from mmcr.workflow.contests.candidates import Candidate, Searched, best_candidates
from mmcr.workflow.contests.finals import Finals, unrounded
from mmcr.workflow.contests.run_off import BASELINE, RunOff, Schedule, begun


@pytest.mark.parametrize(
    'trainings, candidates, rounds, judges',
    [
        (6, 4, (), 3),
        (9, 4, (2,), 3),
        (12, 4, (3,), 4),
        (16, 4, (4,), 5),
        (24, 4, (4, 2), 8),
        (40, 4, (4, 2), 16),
        (60, 8, (8, 4, 2), 21),
        (12, 1, (), 6),
        (7, 4, (), 3),
    ],
)
def test_what_trainings_are_used_for(trainings, candidates, rounds, judges):
    schedule = Schedule.of(trainings, candidates)
    assert (schedule.rounds, schedule.judges) == (rounds, judges)
    assert schedule.choosing + 2 * schedule.judges <= trainings


def test_what_is_begun_is_kept(tmp_path):
    assert begun(tmp_path) == {}
    state = dict(rounds=[4], judges=5, candidates=[], searches={})
    (tmp_path / 'run_off.json').write_text(json.dumps(state))
    before = begun(tmp_path)
    assert Schedule.of(None, 4, before) == Schedule((4,), 5)
    assert Schedule.of(24, 4, before) == Schedule((4,), 9)  # more seeds judge
    assert Schedule.of(6, 4, before) == Schedule((4,), 5)  # none is thrown away
    for damage in (
        dict(rounds='4'),
        dict(rounds=[0]),
        dict(judges=None),
        dict(searches=1),
    ):
        (tmp_path / 'run_off.json').write_text(json.dumps({**state, **damage}))
        assert begun(tmp_path) == {}


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


def run_off(trainings, **more):
    aps = dict(a=30.0, b=32.0, c=31.0, d=29.0, **{BASELINE: 30.5})
    choosing, judging = Trained(aps, **more), Trained(aps)
    schedule = Schedule.of(trainings, 4)
    made = RunOff(choosing, judging, list('abcd'), schedule, seed=7)
    made.run(0)
    return made


def test_the_best_goes_through_and_other_seeds_judge():
    made = run_off(24)
    assert made.winner == 'b'
    first, second = 1007, 1008
    assert made.choosing.ran == [
        *((name, first) for name in (BASELINE, *'abcd')),
        *((name, second) for name in (BASELINE, *'bc')),
    ]
    assert made.judging.ran == [
        (name, seed) for seed in range(7, 15) for name in (BASELINE, 'b')
    ]
    assert made.chose == {
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


def test_a_lucky_seed_is_outvoted():
    lucky = {('c', 1007): 3.0, ('c', 1008): -3.0}
    made = run_off(24, noise=lambda *pair: lucky.get(pair, 0.0))
    assert made.winner == 'b'


def test_without_a_round_the_searches_first_is_judged():
    made = run_off(6)
    assert made.winner == 'a' and not made.choosing.ran and made.chose == {}


def test_the_detectors_own_architecture_is_no_candidate(monkeypatch, tmp_path):
    def found(search, *args):
        name = search.name
        blocks = dict(
            stage=[(2, 2, 2, 2), (3, 2, 2, 1), (1, 3, 3, 1)],
            full=[(3, 2, 2, 1), (3, 2, 2, 1), (3, 2, 2, 1)],
        )[name]
        dilations = [((1, 1), 1), ((2, 1), 1), ((1, 2), 1)]
        for i, stages in enumerate(blocks):
            decided = dict(stage_blocks=list(stages))
            if name == 'full':
                decided['dilations'] = dilations[i]
            trial = Trial(Proposal(Complete(Arch(dict(stage1=i)))), 0.5)
            yield Candidate(
                f'{name}_{i + 1}', trial, 0.4, dict(decided, type='A'), decided
            )

    monkeypatch.setattr(
        'mmcr.workflow.contests.candidates._of_search',
        lambda *args: list(found(*args)),
    )
    searches = [
        Searched('stage', '02', None, ('stage_blocks',)),
        Searched('full', '04', None, ('stage_blocks', 'dilations')),
    ]
    own = dict(type='ResNet', depth=18, stage_blocks=(2, 2, 2, 2), init_cfg=None)
    best = best_candidates(searches, tmp_path, 4, own)
    # full_1 has no dilation: what stage_2 is, too
    assert [each.name for each in best] == ['full_1', 'full_2', 'full_3', 'stage_3']
    again = [Candidate.from_json(json.loads(json.dumps(b.to_json()))) for b in best]
    assert [b.trial for b in again] == [b.trial for b in best]
    assert again[1].decided['dilations'] == ((2, 1), 1)


def test_metrics_that_round_are_replaced():
    coco = dict(type='CocoMetric', ann_file='a.json', metric=['bbox', 'segm'])
    voc = dict(type='VOCMetric', metric='mAP')
    made = unrounded([voc, coco], 'segm')
    assert [each['type'] for each in made] == ['VOCMetric', 'mmcr.UnroundedCocoMetric']
    assert coco['type'] == 'CocoMetric'
    proposals = dict(coco, metric=['bbox', 'proposal'])
    assert unrounded(proposals, 'bbox') == [proposals]
    for wrong in voc, dict(coco, metric='bbox'), dict(coco, prefix='mine'):
        with pytest.raises(UserError, match='compared by segm_mAP'):
            unrounded(wrong, 'segm')


def test_a_full_disk_leaves_the_last_result(tmp_path, monkeypatch):
    result, checkpoint = tmp_path / 'result', tmp_path / 'epoch_1.pth'
    result.mkdir()
    checkpoint.write_bytes(b'new')
    names = 'best.pth', 'best_arch.json', 'best_arch.py', 'mine_cr.py'
    for name in names:
        (result / name).write_bytes(b'old')
    judging = SimpleNamespace(checkpoint=lambda name, seed: str(checkpoint))
    finals = SimpleNamespace(
        name='mine',
        _published=lambda judging, name: Config(dict(model=name)),
        _usable=lambda cfg: cfg,
    )

    def write():
        run_off = SimpleNamespace(judging=judging, seeds=[0])
        return Finals._write_network(finals, result, run_off, BASELINE)

    with monkeypatch.context() as patched:

        def full(descriptor):
            raise OSError(errno.ENOSPC, 'No space left on device')

        patched.setattr('mmcr.files.os.fsync', full)
        with pytest.raises(UserError, match='best.pth fails: .*make room'):
            write()
    assert {path.name: path.read_bytes() for path in result.iterdir()} == dict.fromkeys(
        names, b'old'
    )
    assert write() == 'mine.py'
    assert {path.name for path in result.iterdir()} == {'best.pth', 'mine.py'}
    assert (result / 'best.pth').read_bytes() == b'new'
