"""What every tool does before its runner is built."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmcr.engine.launch import config_text, is_first, read_config
from mmcr.engine.outputs import check_no_training
from mmcr.errors import UserError

IMPORT = """
from mmcr.engine.launch import import_formatter
print('runs', flush=True)
import_formatter({})
"""


def formatter_process(cache, seconds):
    process = subprocess.Popen(
        [sys.executable, '-c', IMPORT.format(seconds)],
        env={**os.environ, 'XDG_CACHE_HOME': str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert 'runs\n' in process.stdout  # after what others say
    return process


@pytest.mark.parametrize(
    'ranks, first',
    [
        (dict(), True),
        (dict(RANK='0', SLURM_PROCID='3'), True),
        (dict(RANK='1'), False),
        (dict(OMPI_COMM_WORLD_RANK='1', SLURM_PROCID='0'), False),  # mpirun in a job
        (dict(SLURM_PROCID='2'), False),
    ],
)
def test_the_first_process_of_any_launcher(monkeypatch, ranks, first):
    for name in ('RANK', 'OMPI_COMM_WORLD_RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    for name, rank in ranks.items():
        monkeypatch.setenv(name, rank)
    assert is_first() is first


@pytest.mark.parametrize(
    'start, hook, words',
    [
        ('pretrained.pth', {}, None),
        ('../work/pretrained.pth', {}, None),
        ('epoch_3.pth', {}, 'epoch_3'),
        ('best_coco_epoch_3.pth', {}, 'best_coco'),
        ('net_3.pth', dict(filename_tmpl='net_{}.pth'), 'net_3'),
        ('https://host/other.pth', {}, 'pretrained'),
        (None, {}, 'pretrained'),
    ],
)
def test_a_training_writes_over_no_other(tmp_path, monkeypatch, start, hook, words):
    """What it starts from may lie there, but not where it will write."""
    monkeypatch.chdir(tmp_path)
    Path('work').mkdir()
    if start and '://' not in start:
        start = f'work/{start}'
    Path(start if start and '://' not in start else 'work/pretrained.pth').touch()
    cfg = Config(
        dict(work_dir='work', load_from=start, default_hooks=dict(checkpoint=hook))
    )
    if words is None:
        check_no_training(cfg)
    else:
        with pytest.raises(UserError, match=f'there is .*{words}'):
            check_no_training(cfg)


def test_a_training_writes_over_no_other_elsewhere(tmp_path):
    hook = dict(out_dir=str(tmp_path / 'out'))
    work_dir = tmp_path / 'work'
    cfg = Config(dict(work_dir=str(work_dir), default_hooks=dict(checkpoint=hook)))
    check_no_training(cfg)
    (tmp_path / 'out/work').mkdir(parents=True)
    (tmp_path / 'out/work/epoch_1.pth').touch()
    with pytest.raises(UserError, match='out/work/epoch_1'):
        check_no_training(cfg)
    cfg.default_hooks.checkpoint.out_dir = 's3://bucket'
    check_no_training(cfg)
    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text('s3://bucket/work/epoch_2.pth')
    with pytest.raises(UserError, match='s3://bucket/work/epoch_2'):
        check_no_training(cfg)


def test_a_config_is_written_as_it_was(tmp_path):
    inf = float('inf')
    cfg = Config(dict(ranges=((-1, 16), (64, inf)), low=[-inf], said='an inf, nan'))
    (tmp_path / 'written.py').write_text(config_text(cfg))
    assert read_config(tmp_path / 'written.py').to_dict() == cfg.to_dict()
    with pytest.raises(UserError, match='numbers, texts, lists and dicts'):
        config_text(Config(dict(dtype=torch.float16)))


@pytest.mark.skipif(sys.platform != 'linux', reason='caches lie elsewhere')
def test_a_half_written_cache_of_the_formatter_is_waited_for(tmp_path):
    """But a broken one not forever."""
    process = formatter_process(tmp_path, 0)
    assert process.wait() == 0, process.stderr.read()
    tables = max(tmp_path.rglob('*.pickle'), key=lambda path: path.stat().st_size)
    whole = tables.read_bytes()

    tables.write_bytes(whole[: len(whole) // 2])
    process = formatter_process(tmp_path, 60)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)
    tables.write_bytes(whole)
    assert process.wait(60) == 0, process.stderr.read()

    tables.write_bytes(b'')
    process = formatter_process(tmp_path, 0)
    assert 'Remove that folder' in process.communicate(timeout=60)[1]
    assert process.returncode != 0


def test_what_is_called_like_a_loader_may_be_anything(tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text(
        'my_dataloader = [dict(persistent_workers=True)]\n'
        'your_dataloader = 5\n'
        'val_dataloader = dict(num_workers=0, persistent_workers=True)\n'
    )
    cfg = read_config(config)
    assert cfg.my_dataloader == [dict(persistent_workers=True)]
    assert cfg.val_dataloader == dict(num_workers=0)
