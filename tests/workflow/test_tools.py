"""The commands that a user types, on a data set of a few small images."""

import contextlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import in_this_process
from mmengine.config import Config
from scripts import ROOT, run_script

from mmcr.errors import UserError
from mmcr.workflow.contests.study import RankingStudy
from mmcr.workflow.reallocation import Reallocation
from mmcr.workflow.recipe import Options
from mmcr.workflow.settings import settings_of
from mmcr.workflow.steps import StepRunner

ANNOTATIONS = 'steps/annotations/archtrain.json'
# what a user types, with numbers of steps, and what the message has
MISTAKES = {
    'search 02 nowhere.pth': ['nowhere.pth', 'checkpoint'],
    'search networks/baseline SUPERNET': ['ArchSearchLoop', 'configs/crnas'],
    'search 02 SUPERNET test_cfg.budget=5': ['exactly 5', 'nearest'],
    'search 02 SUPERNET test_cfg.budget=99': ['99', 'nearest'],
    'search 02 SUPERNET test_cfg.score=coco/AP': ['coco/AP', 'coco/bbox_mAP'],
    'search 02 SUPERNET test_dataloader.dataset.data_root= '
    f'test_dataloader.dataset.ann_file={ANNOTATIONS} '
    f'test_evaluator.ann_file={ANNOTATIONS}': ['archtrain', 'split'],
    'search 02 SUPERNET test_cfg.fp16=True': ['fp16', 'GPU'],
    'search 02 SUPERNET --fast test_cfg.searcher.type=Mine': [
        '--fast',
        'Mine',
        'GreedySearcher',
    ],
    'train 01 train_dataloader.dataset.ann_file=no.json': ['no.json'],
    'train 01 model.roi_head.bbox_head.num_classes=80': ['80', '6'],
    'train 01 val_cfg.archs.deep=[1,1,2,9]': ['stage4', '9', '2, 3, 4'],
    'train 01 default_scope=mmnowhere': ['mmnowhere', 'not installed'],
    'train 01 --resume nowhere.pth': ['nowhere.pth', 'checkpoint'],
    'train 01 --auto-scale-lr auto_scale_lr=None': ['auto_scale_lr.base_batch_size'],
    'train 01 --auto-scale-lr auto_scale_lr.base_batch_size=0': [
        'base_batch_size',
        '0',
    ],
    'train 01 --amp optim_wrapper=None': ['--amp', 'optim_wrapper'],
    'train no_such_step': ['no_such_step'],
    'test networks/baseline nowhere.pth': ['nowhere.pth', 'checkpoint'],
    'test networks/baseline SUPERNET': ['another architecture', 'backbone.layer1'],
    'test 01 SUPERNET model.roi_head.bbox_head.fc_out_channels=8': ['fc_cls.weight'],
    'test networks/baseline SUPERNET --out found.txt': ['.pkl', 'found.txt'],
}


@pytest.fixture(scope='module')
def steps(workplace):
    """The folder with the configs of all steps, as reallocate.py writes them."""
    folder = workplace / 'steps'
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(workplace)
        cfg = Config.fromfile('mine.py')
        settings = settings_of(cfg.pop('reallocation'))
        Reallocation(cfg, 'mine', folder, settings).write()
    return folder


@pytest.fixture
def run(workplace, steps, monkeypatch):
    """Calls a tool's main in this process: run('train', '01_...', *arguments)."""
    monkeypatch.chdir(workplace)

    def call(tool: str, step: str, *arguments: str) -> None:
        config = steps / step / 'config.py'
        argv = [f'{tool}.py', str(config), *map(str, arguments)]
        if '--work-dir' not in argv:
            argv += ['--work-dir', str(config.parent)]
        monkeypatch.setattr(sys, 'argv', argv)
        runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')

    return call


@pytest.fixture(scope='module')
def supernet(workplace, steps):
    """The checkpoint of a stage supernet, trained for one epoch."""
    folder = steps / '01_stage_supernet'
    given = folder / 'config.py', '--work-dir', folder
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(workplace)
        done = run_script(ROOT / 'tools/train.py', *given)
    assert done.returncode == 0, done.stderr
    return folder / 'epoch_1.pth'


def test_all_commands(run, supernet, workplace, steps):
    """Every step's config runs by itself, in its own folder."""
    folder = steps / '02_stage_search'
    written = (folder / 'config.py').read_text()
    run('search', folder.name, supernet)
    assert (folder / 'config.py').read_text() == written
    _, *trials = map(json.loads, (folder / 'trials.jsonl').open())
    assert len(trials) == 9
    assert (folder / 'report.html').is_file()
    record = json.loads((folder / 'best_arch.json').read_text())
    assert sum(record['arch'].values()) == 8
    assert record['score'] == max(trial['score'] for trial in trials)
    found = Config.fromfile(folder / 'best_arch.py').cr_backbone
    assert found.stage_blocks == tuple(record['arch'].values())

    fast = ['--fast', '--cfg-options', 'test_cfg.searcher.finalists=4']
    run('search', '02_stage_search', supernet, '--work-dir', 'fast', *fast)
    header, *trials = map(json.loads, (workplace / 'fast/trials.jsonl').open())
    assert header['searcher']['kind'] == 'halving'
    assert [trial['portion'][1] for trial in trials] == [1 / 16] * 9 + [1] * 4

    # blocks that begin as nothing would score alike whatever their dilation
    run(
        'train',
        '03_op_supernet',
        '--cfg-options',
        'model.backbone.zero_init_residual=0',
    )
    # boxes of a network that has hardly trained fit loosely
    loose = 'test_evaluator.iou_thrs=[0.05,0.1,0.2,0.3]'
    greedy = '--cfg-options', 'test_cfg.searcher.k=1', loose
    run('search', '04_op_search', steps / '03_op_supernet/epoch_1.pth', *greedy)
    journal = (steps / '04_op_search/trials.jsonl').read_text().splitlines()
    assert len(journal) == 1 + 24

    run('train', 'networks/full_cr')
    out = '--work-dir', 'final/test', '--out', 'final/found.pkl'
    run('test', 'networks/full_cr', steps / 'networks/full_cr/epoch_1.pth', *out)
    assert (workplace / 'final/found.pkl').is_file()
    (metrics,) = (workplace / 'final/test').glob('*/*.json')
    assert 'coco/bbox_mAP' in json.loads(metrics.read_text())


def test_images_are_painted_whatever_hooks_a_config_has(run, supernet, workplace):
    for work_dir, lacking in (
        ('painted', ('default_hooks=None', 'visualizer=None')),
        ('painted_too', ('default_hooks.visualization=None',)),
    ):
        given = '--work-dir', work_dir, '--show-dir', 'images', '--cfg-options'
        run('test', '01_stage_supernet', supernet, *given, *lacking)
        assert list((workplace / work_dir).glob('*/images/*.png'))


@pytest.mark.parametrize('typed', MISTAKES)
def test_bad_input_is_one_message(run, supernet, steps, capsys, tmp_path, typed):
    tool, step, *words = typed.replace('SUPERNET', str(supernet)).split()
    arguments = [word for word in words if '=' not in word]
    options = [word for word in words if '=' in word]
    if options:
        arguments += ['--cfg-options', *options]
    step = next((path.name for path in steps.glob(f'{step}_*')), step)
    with pytest.raises(SystemExit) as stop:
        run(tool, step, *arguments, '--work-dir', tmp_path)
    said = capsys.readouterr().err.splitlines()
    (message,) = [line for line in said if line.startswith('error:')]
    assert stop.value.code == 1
    for word in MISTAKES[typed]:
        assert word in message


@pytest.mark.slow
def test_ranking_study(run, supernet, workplace, capsys, monkeypatch):
    """Networks trained alone, each once, beside what a search said of them."""
    monkeypatch.setattr(StepRunner, '_call', in_this_process)
    search = 'search', '02_stage_search', supernet
    run(*search, '--work-dir', 'ranked')
    options = Options(width=1.0)

    def study(members=3, searches=('ranked',)):
        cfg = Config.fromfile('mine.py')
        named = dict(zip(('uniform', 'listed'), searches))
        return RankingStudy(cfg, 'ranking', named, members, 2, options)

    first = study()
    table = first.run()
    assert '| supernet: uniform |' in table and '| multi-scale entropy |' in table
    record = json.loads((workplace / 'ranking/ranking.json').read_text())
    _, *trials = map(json.loads, (workplace / 'ranked/trials.jsonl').open())
    scores = {
        tuple(trial['candidate']['arch'].values()): 100 * trial['score']
        for trial in trials
    }
    for name, value in record['predictors']['supernet: uniform']['values'].items():
        assert scores[tuple(map(int, name.split('-')))] == value

    capsys.readouterr()
    assert study().run() == table
    assert capsys.readouterr().out.count('done already') == 6

    # the members alone, without calibration
    listed = 'test_cfg.searcher.type=mmcr.ListedSearcher'
    members = f'test_cfg.searcher.archs={workplace}/ranking/members.json'
    few = '--cfg-options', listed, members, 'test_cfg.calibration_images=0'
    # three members that have hardly trained may tie; their trials are there anyway
    with contextlib.suppress(SystemExit):
        run(*search, '--work-dir', 'listed', *few)
    searches = 'ranked', 'listed'
    assert '| supernet: listed |' in study(searches=searches).run()
    with pytest.raises(UserError, match='must have scored all members .* lacks'):
        study(members=4, searches=searches)


@pytest.mark.slow
def test_two_processes_train(workplace, steps):
    config = steps / '01_stage_supernet/config.py'
    given = '--work-dir', 'two', '--cfg-options', 'val_dataloader.batch_size=4'
    subprocess.run(
        [ROOT / 'tools/dist_train.sh', config, '2', *given],
        check=True,
        cwd=workplace,
        stdout=subprocess.DEVNULL,
        env=dict(
            os.environ,
            PORT='29611',
            PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        ),
    )
    assert (workplace / 'two/epoch_1.pth').is_file()
