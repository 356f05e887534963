"""The commands that a user types, on a data set of a few small images."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmcr.errors import UserError
from mmcr.workflow.reallocation import Reallocation, settings_of
from mmcr.workflow.recipe import Options
from mmcr.workflow.study import RankingStudy

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def steps(workplace):
    """The folder with the configs of all steps, as reallocate.py writes them."""
    folder = workplace / 'steps'
    before = os.getcwd()
    os.chdir(workplace)
    try:
        cfg = Config.fromfile('mine.py')
        settings = settings_of(cfg.pop('reallocation'))
        Reallocation(cfg, 'mine', folder, settings).write()
    finally:
        os.chdir(before)
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
    subprocess.run(
        [sys.executable, ROOT / 'tools/train.py', folder / 'config.py']
        + ['--work-dir', folder],
        cwd=workplace,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder / 'epoch_1.pth'


def test_all_commands(run, supernet, workplace, steps):
    """Every step's config runs by itself, in its own folder."""
    written = (steps / '02_stage_search/config.py').read_text()
    run('search', '02_stage_search', supernet)
    assert (steps / '02_stage_search/config.py').read_text() == written
    journal = (steps / '02_stage_search/trials.jsonl').read_text().splitlines()
    assert len(journal) == 1 + 9
    assert (steps / '02_stage_search/report.html').is_file()
    record = json.loads((steps / '02_stage_search/best_arch.json').read_text())
    assert sum(record['arch'].values()) == 8
    assert record['score'] == max(json.loads(line)['score'] for line in journal[1:])
    found = Config.fromfile(steps / '02_stage_search/best_arch.py').cr_backbone
    assert found.stage_blocks == tuple(record['arch'].values())

    fast = ['--fast', '--cfg-options', 'test_cfg.searcher.finalists=4']
    run('search', '02_stage_search', supernet, '--work-dir', 'fast', *fast)
    header, *trials = map(json.loads, (workplace / 'fast/trials.jsonl').open())
    assert header['searcher']['kind'] == 'halving'
    assert [trial['portion'][1] for trial in trials] == [1 / 16] * 9 + [1] * 4

    run('train', '03_op_supernet')
    greedy = '--cfg-options', 'test_cfg.searcher.k=1'
    run('search', '04_op_search', steps / '03_op_supernet/epoch_1.pth', *greedy)
    journal = (steps / '04_op_search/trials.jsonl').read_text().splitlines()
    assert len(journal) == 1 + 24

    run('train', '07_full_cr')
    run(
        'test',
        '07_full_cr',
        steps / '07_full_cr/epoch_1.pth',
        *('--work-dir', 'final/test', '--out', 'final/found.pkl'),
    )
    assert (workplace / 'final/found.pkl').is_file()
    (metrics,) = (workplace / 'final/test').glob('*/*.json')
    assert 'coco/bbox_mAP' in json.loads(metrics.read_text())


@pytest.mark.parametrize(
    'tool, step, arguments, words',
    [
        (
            'search',
            '02_stage_search',
            ['nowhere.pth'],
            ['nowhere.pth', 'checkpoint'],
        ),
        ('search', '05_baseline', ['SUPERNET'], ['ArchSearchLoop', 'configs/crnas']),
        (
            'search',
            '02_stage_search',
            ['SUPERNET', '--cfg-options', 'test_cfg.budget=5'],
            ['exactly 5', 'nearest'],
        ),
        (
            'search',
            '02_stage_search',
            ['SUPERNET', '--cfg-options', 'test_cfg.budget=99'],
            ['99', 'nearest'],
        ),
        (
            'search',
            '02_stage_search',
            ['SUPERNET', '--cfg-options', 'test_cfg.score=coco/AP'],
            ['coco/AP', 'coco/bbox_mAP'],
        ),
        (
            'search',
            '02_stage_search',
            [
                'SUPERNET',
                '--cfg-options',
                'test_dataloader.dataset.ann_file=steps/annotations/archtrain.json',
                'test_dataloader.dataset.data_root=',
                'test_evaluator.ann_file=steps/annotations/archtrain.json',
            ],
            ['archtrain', 'split'],
        ),
        (
            'train',
            '01_stage_supernet',
            ['--cfg-options', 'train_dataloader.dataset.ann_file=no.json'],
            ['no.json'],
        ),
        (
            'train',
            '01_stage_supernet',
            ['--cfg-options', 'model.roi_head.bbox_head.num_classes=80'],
            ['80', '6'],
        ),
        (
            'train',
            '01_stage_supernet',
            ['--cfg-options', 'val_cfg.archs.deep=[1,1,2,9]'],
            ['stage4', '9', '2, 3, 4'],
        ),
        (
            'search',
            '02_stage_search',
            ['SUPERNET', '--cfg-options', 'test_cfg.fp16=True'],
            ['fp16', 'GPU'],
        ),
        (
            'search',
            '02_stage_search',
            ['SUPERNET', '--fast', '--cfg-options', 'test_cfg.searcher.type=Mine'],
            ['--fast', 'Mine', 'GreedySearcher'],
        ),
        ('train', 'no_such_step', [], ['no_such_step']),
        (
            'train',
            '01_stage_supernet',
            ['--cfg-options', 'default_scope=mmnowhere'],
            ['mmnowhere', 'not installed'],
        ),
        (
            'train',
            '01_stage_supernet',
            ['--resume', 'nowhere.pth'],
            ['nowhere.pth', 'checkpoint'],
        ),
        ('test', '05_baseline', ['nowhere.pth'], ['nowhere.pth', 'checkpoint']),
        (
            'test',
            '05_baseline',
            ['SUPERNET'],
            ['another architecture', 'backbone.layer1'],
        ),
        (
            'test',
            '05_baseline',
            ['SUPERNET', '--out', 'found.txt'],
            ['.pkl', 'found.txt'],
        ),
    ],
)
def test_bad_input_is_one_message(
    run, supernet, capsys, tmp_path, tool, step, arguments, words
):
    arguments = [str(supernet) if word == 'SUPERNET' else word for word in arguments]
    with pytest.raises(SystemExit) as stop:
        run(tool, step, *arguments, '--work-dir', str(tmp_path))
    (message,) = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith('error:')
    ]
    assert stop.value.code == 1
    for word in words:
        assert word in message


def test_work_dir_of_another_search(run, supernet, capsys, tmp_path):
    few = ['--cfg-options', 'test_cfg.calibration_images=4']
    run('search', '02_stage_search', supernet, '--work-dir', str(tmp_path), *few)
    few[1] = 'test_cfg.calibration_images=8'
    with pytest.raises(SystemExit):
        run(
            'search',
            '02_stage_search',
            supernet,
            '--work-dir',
            str(tmp_path),
            *few,
        )
    assert 'calibration.images is 4 in the file and 8 now' in capsys.readouterr().err


@pytest.mark.slow
def test_ranking_study(run, supernet, workplace, capsys):
    """Networks trained alone, each once, beside what a search said of them."""
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
    scores = {
        tuple(trial['candidate']['arch'].values()): 100 * trial['score']
        for trial in map(
            json.loads, (workplace / 'ranked/trials.jsonl').read_text().splitlines()[1:]
        )
    }
    for name, value in record['predictors']['supernet: uniform']['values'].items():
        assert scores[tuple(map(int, name.split('-')))] == value

    capsys.readouterr()
    assert study().run() == table
    assert capsys.readouterr().out.count('done already') == 6

    # the members alone, without calibration
    listed = 'test_cfg.searcher.type=mmcr.ListedSearcher'
    members = f'test_cfg.searcher.archs={workplace}/ranking/members.json'
    options_of_search = (
        '--cfg-options',
        listed,
        members,
        'test_cfg.calibration_images=0',
    )
    run(*search, '--work-dir', 'listed', *options_of_search)
    searches = 'ranked', 'listed'
    assert '| supernet: listed |' in study(searches=searches).run()
    with pytest.raises(UserError, match='must have scored all members .* lacks'):
        study(members=4, searches=searches)


@pytest.mark.slow
def test_two_processes_train_and_search_as_one(workplace, steps, supernet):
    """`dist_search.sh` finds what `search.py` finds, `dist_train.sh` trains."""

    def call(script, step, *arguments):
        subprocess.run(
            [ROOT / 'tools' / script, steps / step / 'config.py', *arguments],
            check=True,
            cwd=workplace,
            stdout=subprocess.DEVNULL,
            env=dict(
                os.environ,
                PORT='29611',
                PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            ),
        )

    for processes, folder in ('2', 'two'), ('1', 'one'):
        arguments = supernet, processes, '--work-dir', folder
        call('dist_search.sh', '02_stage_search', *arguments)
    one, two = (
        (workplace / name / 'trials.jsonl').read_text() for name in ('one', 'two')
    )
    assert one == two
    call('dist_train.sh', '01_stage_supernet', '2', '--work-dir', 'two_train')
    assert (workplace / 'two_train/epoch_1.pth').is_file()
