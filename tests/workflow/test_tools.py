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
from mmcr.workflow.study import RankingStudy

ROOT = Path(__file__).parents[2]
FINAL = 'faster_rcnn/faster-rcnn_cr-r18_fpn_1x_coco'


@pytest.fixture
def run(workplace, monkeypatch):
    """Calls a tool's main in this process: run('train', 'crnas/...', *arguments)."""
    monkeypatch.chdir(workplace)

    def call(
        tool: str,
        step: str,
        *arguments: str,
        arch: Path | None = None,
        config: str = 'mine.py',
    ) -> None:
        monkeypatch.setenv('CR_STEP', step)
        if arch is not None:
            monkeypatch.setenv('CR_ARCH', str(arch))
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py', config, *map(str, arguments)])
        runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')

    return call


@pytest.fixture(scope='module')
def supernet(workplace):
    """The checkpoint of a stage supernet, trained for one epoch."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT), CR_STEP='crnas/supernet_r18')
    subprocess.run(
        [sys.executable, ROOT / 'tools/train.py', 'mine.py', '--work-dir', 'supernet'],
        cwd=workplace,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return workplace / 'supernet/epoch_1.pth'


def test_all_commands(run, supernet, workplace):
    found = workplace / 'stage/best_arch.py'
    run('search', 'crnas/stage_search_r18', supernet, '--work-dir', 'stage')
    journal = (workplace / 'stage/trials.jsonl').read_text().splitlines()
    assert len(journal) == 1 + 9
    assert (workplace / 'stage/report.html').is_file()
    record = json.loads((workplace / 'stage/best_arch.json').read_text())
    assert sum(record['arch'].values()) == 8
    assert record['score'] == max(json.loads(line)['score'] for line in journal[1:])
    assert Config.fromfile(found).cr_backbone.stage_blocks == tuple(
        record['arch'].values()
    )

    fast = ['--fast', '--cfg-options', 'test_cfg.searcher.finalists=4']
    run('search', 'crnas/stage_search_r18', supernet, '--work-dir', 'fast', *fast)
    header, *trials = map(json.loads, (workplace / 'fast/trials.jsonl').open())
    assert header['searcher']['kind'] == 'halving'
    assert [trial['portion'][1] for trial in trials] == [1 / 16] * 9 + [1] * 4

    run('train', 'crnas/op_supernet_r18', '--work-dir', 'op', arch=found)
    run(
        'search',
        'crnas/op_search_r18',
        'op/epoch_1.pth',
        '--work-dir',
        'op_search',
        '--cfg-options',
        'test_cfg.searcher.k=1',
        arch=found,
    )
    assert (
        len((workplace / 'op_search/trials.jsonl').read_text().splitlines()) == 1 + 24
    )

    found = workplace / 'op_search/best_arch.py'
    run('train', FINAL, '--work-dir', 'final', arch=found)
    run(
        'test',
        FINAL,
        'final/epoch_1.pth',
        '--work-dir',
        'final/test',
        '--out',
        'final/found.pkl',
        arch=found,
    )
    assert (workplace / 'final/found.pkl').is_file()
    (metrics,) = (workplace / 'final/test').glob('*/*.json')
    assert 'coco/bbox_mAP' in json.loads(metrics.read_text())


@pytest.mark.parametrize(
    'tool, step, arguments, words',
    [
        (
            'search',
            'crnas/stage_search_r18',
            ['nowhere.pth'],
            ['nowhere.pth', 'checkpoint'],
        ),
        ('search', 'crnas/op_search_r18', ['SUPERNET'], ['space', 'missing']),
        ('search', FINAL, ['SUPERNET'], ['ArchSearchLoop', 'configs/crnas']),
        (
            'search',
            'crnas/stage_search_r18',
            ['SUPERNET', '--cfg-options', 'test_cfg.budget=5'],
            ['exactly 5', 'nearest'],
        ),
        (
            'search',
            'crnas/stage_search_r18',
            ['SUPERNET', '--cfg-options', 'test_cfg.budget=99'],
            ['99', 'nearest'],
        ),
        (
            'search',
            'crnas/stage_search_r18',
            ['SUPERNET', '--cfg-options', 'test_cfg.score=coco/AP'],
            ['coco/AP', 'coco/bbox_mAP'],
        ),
        (
            'search',
            'crnas/stage_search_r18',
            [
                'SUPERNET',
                '--cfg-options',
                'test_dataloader.dataset.ann_file=archtrain.json',
                'test_evaluator.ann_file=data/shapes/archtrain.json',
            ],
            ['archtrain', 'split'],
        ),
        (
            'train',
            'crnas/supernet_r18',
            ['--cfg-options', 'train_dataloader.dataset.ann_file=no.json'],
            ['no.json'],
        ),
        (
            'train',
            'crnas/supernet_r18',
            ['--cfg-options', 'model.roi_head.bbox_head.num_classes=80'],
            ['80', '6'],
        ),
        (
            'train',
            'crnas/supernet_r18',
            ['--cfg-options', 'val_cfg.archs.deep=[1,1,2,9]'],
            ['stage4', '9', '2, 3, 4'],
        ),
        (
            'search',
            'crnas/stage_search_r18',
            ['SUPERNET', '--cfg-options', 'test_cfg.fp16=True'],
            ['fp16', 'GPU'],
        ),
        (
            'search',
            'crnas/stage_search_r18',
            ['SUPERNET', '--fast', '--cfg-options', 'test_cfg.searcher.type=Mine'],
            ['--fast', 'Mine', 'GreedySearcher'],
        ),
        ('train', 'crnas/no_such_step', [], ['no_such_step']),
        (
            'train',
            'crnas/supernet_r18',
            ['--cfg-options', 'default_scope=mmnowhere'],
            ['mmnowhere', 'not installed'],
        ),
        (
            'train',
            'crnas/supernet_r18',
            ['--resume', 'nowhere.pth'],
            ['nowhere.pth', 'checkpoint'],
        ),
        ('test', FINAL, ['nowhere.pth'], ['nowhere.pth', 'checkpoint']),
        ('test', FINAL, ['SUPERNET'], ['another architecture', 'backbone.layer1']),
        ('test', FINAL, ['SUPERNET', '--out', 'found.txt'], ['.pkl', 'found.txt']),
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
    run('search', 'crnas/stage_search_r18', supernet, '--work-dir', str(tmp_path), *few)
    few[1] = 'test_cfg.calibration_images=8'
    with pytest.raises(SystemExit):
        run(
            'search',
            'crnas/stage_search_r18',
            supernet,
            '--work-dir',
            str(tmp_path),
            *few,
        )
    assert 'calibration.images is 4 in the file and 8 now' in capsys.readouterr().err


@pytest.mark.slow
def test_ranking_study(run, supernet, workplace):
    """Networks trained alone, each once, beside what a search said of them."""
    search = 'search', 'crnas/stage_search_r18', supernet
    run(*search, '--work-dir', 'ranked')
    lines = []

    def study(members=3, searches=('ranked',), **options):
        return RankingStudy(
            'mine.py',
            'ranking',
            dict(zip(('uniform', 'listed'), searches)),
            members,
            seeds=2,
            say=lines.append,
            **options,
        )

    first = study(jobs=2)
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
    # every network is the one that its name says, with the seed that it says
    for step in first.steps:
        cfg = Config.fromfile(workplace / 'ranking' / step.name / 'mine.py')
        name, seed = step.name.split('_seed')
        assert '-'.join(map(str, cfg.model.backbone.stage_blocks)) == name
        assert cfg.randomness.seed == int(seed)
        assert {'paired_init', 'exact_resume'} <= cfg.default_hooks.keys()

    lines.clear()
    assert study().run() == table
    assert sum('done already' in line for line in lines) == 6
    with pytest.raises(UserError, match='10 members .* the space has 9'):
        study(members=10)

    # the members alone, without calibration
    listed = 'test_cfg.searcher.type=mmcr.ListedSearcher'
    members = f'test_cfg.searcher.archs={workplace}/ranking/members.json'
    study()
    options = '--cfg-options', listed, members, 'test_cfg.calibration_images=0'
    run(*search, '--work-dir', 'listed', *options)
    searches = 'ranked', 'listed'
    assert '| supernet: listed |' in study(searches=searches).run()
    with pytest.raises(UserError, match='must have scored all members .* lacks'):
        study(members=4, searches=searches)


@pytest.mark.slow
def test_two_processes_train_and_search_as_one(workplace, supernet):
    """`dist_search.sh` finds what `search.py` finds, `dist_train.sh` trains."""

    def call(script, *arguments, step='crnas/stage_search_r18'):
        subprocess.run(
            [ROOT / 'tools' / script, 'mine.py', *arguments],
            check=True,
            cwd=workplace,
            stdout=subprocess.DEVNULL,
            env=dict(
                os.environ,
                CR_STEP=step,
                PORT='29611',
                PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            ),
        )

    call('dist_search.sh', supernet, '2', '--work-dir', 'two')
    call('dist_search.sh', supernet, '1', '--work-dir', 'one')
    one, two = (
        (workplace / name / 'trials.jsonl').read_text() for name in ('one', 'two')
    )
    assert one == two
    call('dist_train.sh', '2', '--work-dir', 'two_train', step='crnas/supernet_r18')
    assert (workplace / 'two_train/epoch_1.pth').is_file()
