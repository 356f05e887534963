"""What a ranking study refuses, and what it takes anew; nothing is trained."""

import json
import runpy
import sys

import pytest
from config_files import CONFIGS, read

from mmcr.errors import UserError
from mmcr.registry import HOOKS
from mmcr.training import ExactResumeHook, PairedInitHook
from mmcr.workflow.contests.study import RankingStudy, name_of
from mmcr.workflow.place import alone
from mmcr.workflow.recipe import Options

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


@pytest.fixture
def study(tmp_path):
    def make(members=3, seeds=2, searches=None):
        cfg = read('demo/shapes.py')
        options = Options(width=1.0)
        return RankingStudy(
            cfg, tmp_path / 'ranking', searches or {}, members, seeds, options
        )

    return make


def test_members_are_listed_for_a_search_to_come(study, tmp_path):
    with pytest.raises(UserError):
        study(searches=dict(later=tmp_path / 'none'))
    assert len(json.loads((tmp_path / 'ranking/members.json').read_text())) == 3
    (tmp_path / 'ranking/members.json').unlink()
    with alone(tmp_path / 'ranking'), pytest.raises(UserError, match='Only one run'):
        study()


@pytest.mark.parametrize(
    'counts, words',
    [
        (dict(members=2), 'members must be at least 3.*got 2'),
        (dict(members=-3), 'members must be at least 3.*got -3'),
        (dict(members=10), 'the space has 9'),
        (dict(seeds=1), 'seeds must be at least 2.*got 1'),
    ],
)
def test_studies_without_a_ranking_are_refused_at_once(study, counts, words):
    with pytest.raises(UserError, match=words):
        study(**counts)


def test_networks_of_a_seed_share_all_chance(study):
    made = study(members=9)
    archs = {name_of(arch): arch for arch in made.members}
    for name, seed in made.trainings[7:11]:
        cfg, arch = made.contest.config(name, seed), archs[name]
        assert cfg.randomness.seed == seed
        hooks = [HOOKS.build(hook) for hook in cfg.custom_hooks]
        init, exact = hooks
        assert isinstance(init, PairedInitHook) and isinstance(exact, ExactResumeHook)
        largest, own = init.backbone['stage_blocks'], cfg.model.backbone.stage_blocks
        assert list(own) == list(arch.values()) and sum(own) == 8
        assert all(many >= few for many, few in zip(largest, own))


def test_other_metrics_are_refused_after_the_first_network(study):
    made = study()
    step, runner = made.contest.step(*made.trainings[0]), made.contest.runner
    written = runner.folder(step) / 'test/20260101_000000/20260101_000000.json'
    written.parent.mkdir(parents=True)
    written.write_text(json.dumps({'pascal_voc/mAP': 0.4, 'data_time': 0.1}))
    runner.screen.expect([step.name])
    runner.screen.start(step, read('demo/shapes.py'))
    with pytest.raises(UserError, match='coco/bbox_mAP.*data_time, pascal_voc/mAP'):
        runner.screen.finish(step, 1)


def test_searches_have_names_of_their_own(monkeypatch, capsys):
    tool = str(CONFIGS.parent / 'tools/analysis_tools/ranking.py')
    searches = '--search', 'a=one', '--search', 'a=two'
    argv = [tool, 'mine.py', '--work-dir', 'ranking', *searches]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit):
        runpy.run_path(tool, run_name='__main__')
    assert 'a names both one and two' in capsys.readouterr().err
