"""What a ranking study refuses, and what it takes anew; nothing is trained."""

import argparse
import json
import runpy
import sys
from dataclasses import replace

import pytest
from config_files import CONFIGS
from mmengine.config import DictAction

from mmcr.errors import UserError
from mmcr.registry import HOOKS
from mmcr.training import ExactResumeHook, PairedInitHook
from mmcr.workflow.study import RankingStudy

pytestmark = pytest.mark.usefixtures('quiet_mmdet')
PLAIN = f"""
step = '{{{{$CR_STEP:crnas/supernet_r18}}}}'
_base_ = '{CONFIGS}/{{{{$CR_STEP:crnas/supernet_r18}}}}.py'
"""
WIDER = """
if 'search' in step:
    test_cfg = dict(final_backbone=dict(norm_eval=False, with_cp=True))
"""


@pytest.fixture
def study(tmp_path):
    def make(text='', members=3, seeds=2, work_dir='ranking'):
        config = tmp_path / 'mine.py'
        config.write_text(PLAIN + text)
        work_dir = str(tmp_path / work_dir)
        return RankingStudy(str(config), work_dir, {}, members, seeds)

    return make


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


def test_steps_notice_that_the_config_has_changed(study):
    def fingerprint(text=''):
        made = study(text, members=9)  # all that this space has
        return made._fingerprint(made.steps[0])

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(WIDER) != first


def test_steps_notice_that_other_chance_is_shared(study):
    made = study()
    step = made.steps[0]
    unpaired = replace(step, options=())
    assert made._fingerprint(step) != made._fingerprint(unpaired)


def test_networks_of_a_seed_share_all_chance(study):
    """The options, as the tools read them, are hooks of this repository."""
    made = study()
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    for step in made.steps[:3]:
        cfg = made.resolved(step)
        read = parser.parse_args(['--cfg-options', *step.options]).cfg_options
        cfg.merge_from_dict(read)
        hooks = {
            kind: cfg.default_hooks[kind] for kind in ('paired_init', 'exact_resume')
        }
        init, exact = (HOOKS.build(hook) for hook in hooks.values())
        assert isinstance(init, PairedInitHook) and isinstance(exact, ExactResumeHook)
        largest, own = init.backbone['stage_blocks'], cfg.model.backbone.stage_blocks
        assert len(largest) == len(own)
        assert all(many >= few for many, few in zip(largest, own))


def test_other_metrics_are_refused_after_the_first_network(study):
    made = study()
    step = made.steps[0]
    folder = made.work_dir / step.name
    written = folder / 'test/20260101_000000/20260101_000000.json'
    written.parent.mkdir(parents=True)
    written.write_text(json.dumps({'pascal_voc/mAP': 0.4, 'data_time': 0.1}))
    state = dict(config=made._fingerprint(step), done=True, seconds=1)
    (folder / 'step.json').write_text(json.dumps(state))
    with pytest.raises(UserError, match='coco/bbox_mAP.*data_time, pascal_voc/mAP'):
        made._run(step, {})


def test_searches_have_names_of_their_own(monkeypatch, capsys):
    tool = str(CONFIGS.parent / 'tools/analysis_tools/ranking.py')
    searches = '--search', 'a=one', '--search', 'a=two'
    argv = [tool, 'mine.py', '--work-dir', 'ranking', *searches]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit):
        runpy.run_path(tool, run_name='__main__')
    assert 'a names both one and two' in capsys.readouterr().err
