"""What a training leaves, and what a tool takes: whole, of this network, no code."""

import logging
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader
from nets import equal
from tiny import build_detector, search_cfg, train_cfg

from mmcr.cli import user_errors
from mmcr.engine.launch import build_trainer, read_config
from mmcr.errors import UserError
from mmcr.models.weights import checkpoint
from mmcr.models.weights.checkpoint import (
    ONLY_WEIGHTS,
    CheckpointError,
    last_checkpoint,
    load_from_local,
    read_training,
    read_weights,
)
from mmcr.training.checkpoint_hook import WholeCheckpointHook, WholeFiles
from mmcr.training.resume_hook import ExactResumeHook

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

TOOLS = Path(__file__).parents[2] / 'tools'
PLAIN = dict(stage_blocks=(1, 1, 1, 1))


class Command:
    """What runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """As it was before, whatever a tool has set."""
    monkeypatch.setenv(ONLY_WEIGHTS, '1')
    monkeypatch.delenv(ONLY_WEIGHTS)


def saved(path, iteration, **more):
    """A small one of a training; returns its path."""
    content = dict(meta=dict(iter=iteration, epoch=0), state_dict={}, message_hub={})
    torch.save({**content, 'momentum': torch.rand(100), **more}, path)
    return path


def plain_cfg(root, folder, iterations=2, **hooks):
    cfg = train_cfg(root, folder, PLAIN, iterations)
    cfg.custom_hooks = []
    cfg.default_hooks.checkpoint.update(hooks)
    return cfg


def test_the_furthest_that_is_whole(tmp_path, monkeypatch):
    assert last_checkpoint(tmp_path) == (None, '')
    torch.save(dict(conv1=torch.ones(1)), tmp_path / 'resnet.pth')  # is none
    (tmp_path / 'broken.pth').write_bytes(b'PK')
    saved(tmp_path / 'best_1.pth', 99)  # has no optimizer
    assert last_checkpoint(tmp_path) == (None, '')
    nine, ten = (saved(tmp_path / f'epoch_{i}.pth', i) for i in (9, 10))
    path, note = last_checkpoint(tmp_path)
    assert path == ten and 'no file' in note and 'going on from' in note

    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text('/elsewhere/moved/epoch_9.pth')
    with monkeypatch.context() as patch:
        patch.delattr(checkpoint, '_iteration_of')  # it looks at no other
        assert last_checkpoint(tmp_path) == (nine, '')
    foreign = '', 'epoch_11.pth', '/etc/hostname', '\0\0\0', 'resnet.pth', 'n' * 300
    for content in (*map(str.encode, foreign), b'\xff\xfe'):
        pointer.write_bytes(content)
        path, note = last_checkpoint(tmp_path)
        assert path == ten and note.count('\n') == 0 and note

    pointer.write_text('epoch_10.pth')
    whole = ten.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b'momentum') + len(whole) // 2] ^= 255
    for torn in (b'', whole[:500], b'not a checkpoint', flipped):
        ten.write_bytes(torn)
        path, note = last_checkpoint(tmp_path)
        assert path == nine and str(ten) in note
    assert last_checkpoint(tmp_path, start=str(ten))[0] == nine
    nine.unlink()
    with pytest.raises(CheckpointError, match='must hold a whole checkpoint.*epoch_10'):
        last_checkpoint(tmp_path)


def test_a_config_from_an_address_is_not_run():
    runner = SimpleNamespace(_load_from='s3://a/b.pth', _resume=True)
    content = dict(meta=dict(iter=1, config='import os'), state_dict={})
    ExactResumeHook().after_load_checkpoint(runner, content)
    assert content['meta'] == dict(iter=1)


@HOOKS.register_module()
class OwnCheckpoints(CheckpointHook):
    """As a user writes it."""


@pytest.mark.parametrize(
    'saving',
    [None, dict(), dict(checkpoint=None), dict(checkpoint=dict(type='OwnCheckpoints'))],
)
def test_what_a_config_says_of_hooks(shapes, tmp_path, saving):
    """A start is checked whichever hook saves; mmengine's own is put in the place."""
    cfg = plain_cfg(shapes, tmp_path / 'work')
    cfg.pop('default_hooks')
    if saving is not None:
        cfg.default_hooks = saving
    broken = {'backbone.conv1.weight': torch.tensor([1.0, float('nan')])}
    cfg.load_from = str(tmp_path / 'nan.pth')
    torch.save(broken, cfg.load_from)
    runner = build_trainer(cfg)
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    if saving:
        assert not any(isinstance(hook, WholeCheckpointHook) for hook in hooks)
    else:
        assert [type(hook) for hook in hooks] == [WholeCheckpointHook]
        assert hooks[0].interval == 1
    with pytest.raises(CheckpointError, match='1 of its 2 numbers'):
        runner.load_or_resume()


def test_resuming_from_elsewhere(shapes, tmp_path, monkeypatch, capsys):
    """Checkpoints in another folder or at an address; the work dir says which."""
    work_dir = tmp_path / 'work'
    (tmp_path / 'out/work').mkdir(parents=True)
    work_dir.mkdir()
    weights = build_detector(PLAIN).state_dict()
    path = saved(tmp_path / 'out/work/iter_1.pth', 1, state_dict=weights)

    def resumed(out_dir, resume='auto'):
        runner = build_trainer(plain_cfg(shapes, work_dir, out_dir=out_dir), resume)
        return runner._resume and runner._load_from

    assert resumed('bucket://b') is False
    assert 'one in bucket://b/work: the training begins' in capsys.readouterr()[0]
    (work_dir / 'last_checkpoint').write_text(str(path))
    assert resumed(str(tmp_path / 'out')) == str(path)
    assert 'going on' not in capsys.readouterr()[0]

    address = 'bucket://b/work/iter_1.pth'
    schemes = {'bucket://': lambda name, map_location: torch.load(path)}
    monkeypatch.setattr(
        CheckpointLoader, '_schemes', {**schemes, **CheckpointLoader._schemes}
    )
    assert resumed('bucket://b', address) == address
    (work_dir / 'last_checkpoint').write_text(address)
    assert resumed('bucket://b') == address
    saved(path, 1, state_dict=dict(other=torch.ones(1)))
    with pytest.raises(CheckpointError, match='bucket://b/work/iter_1.pth'):
        resumed('bucket://b')


@pytest.mark.parametrize(
    'read',
    [read_weights, load_from_local, read_training],
    ids=lambda read: read.__name__,
)
def test_a_flipped_bit_is_noticed(tmp_path, read):
    path = saved(tmp_path / 'a.pth', 1, state_dict={'a': torch.rand(1000)})
    read(path)
    whole = path.read_bytes()
    with ZipFile(path) as file:
        numbers = max(file.infolist(), key=lambda each: each.file_size)
    flipped = bytearray(whole)
    flipped[numbers.header_offset + 1000] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(CheckpointError, match=r'a\.pth.* have changed since'):
        read(path)


def test_a_name_that_no_log_can_hold(tmp_path, capsys):
    path = tmp_path / 'n\udcff.pth'
    torch.save(dict(a=torch.ones(1)), path)
    with pytest.raises(SystemExit), user_errors():
        read_weights(path)
    said = capsys.readouterr().err
    assert 'must be UTF-8' in said and 'Traceback' not in said


def test_what_is_no_training(tmp_path):
    path = tmp_path / 'a.pth'
    for part in ('meta', 'state_dict', 'message_hub', 'iter'):
        other = dict(meta=dict(iter='1')) if part == 'iter' else {part: [1]}
        saved(path, 1, **other)
        with pytest.raises(CheckpointError, match='set load_from'):
            read_training(path)
        assert last_checkpoint(tmp_path) == (None, '')


def test_files_are_whole_or_not_there(tmp_path, monkeypatch):
    backend, path = WholeFiles(), tmp_path / 'a/epoch_1.pth'
    backend.put(b'first', path)

    def full(file):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(UserError, match='No space left'):
        backend.put(b'second', path)
    assert [p.read_bytes() for p in path.parent.iterdir()] == [b'first']
    assert isinstance(backend, LocalBackend)


def test_what_a_killed_run_could_not_remove_goes(shapes, tmp_path, monkeypatch):
    def killed(self, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(WholeFiles, 'remove', killed)
    with pytest.raises(KeyboardInterrupt):
        build_trainer(plain_cfg(shapes, tmp_path, max_keep_ckpts=1)).train()
    monkeypatch.undo()
    assert len(list(tmp_path.glob('*.pth'))) == 2
    build_trainer(plain_cfg(shapes, tmp_path, 3, max_keep_ckpts=1), 'auto').train()
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_3.pth']


def test_no_older_one_goes_before_a_newer_one_is_there(shapes, tmp_path, monkeypatch):
    (tmp_path / '.iter_9.pth.123.part').touch()
    cfg = plain_cfg(shapes, tmp_path, max_keep_ckpts=1)
    runner = build_trainer(cfg)
    put = WholeFiles.put

    def killed(self, obj, path):
        if 'iter_2' in str(path):
            raise KeyboardInterrupt
        put(self, obj, path)

    monkeypatch.setattr(WholeFiles, 'put', killed)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    assert [path.name for path in tmp_path.rglob('*.pth*')] == ['iter_1.pth']
    monkeypatch.undo()
    build_trainer(plain_cfg(shapes, tmp_path, max_keep_ckpts=1), 'auto').train()
    assert [path.name for path in tmp_path.rglob('*.pth')] == ['iter_2.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_2.pth')


@pytest.mark.parametrize('keys', [['a'], ['a', 'b']])
def test_the_best_of_a_copied_work_dir_is_its_own(tmp_path, keys):
    """A better one replaces it, and leaves that of the other work dir alone."""
    name = 'best_ckpt' if len(keys) == 1 else 'best_ckpt_b'
    hub = MessageHub(f'{name} of {tmp_path}')
    hub.update_info(name, '/elsewhere/best_b_epoch_1.pth')
    runner = SimpleNamespace(
        work_dir=str(tmp_path), message_hub=hub, logger=logging.getLogger()
    )
    hook = WholeCheckpointHook(save_best=keys, rule='greater')
    hook.before_train(runner)
    found = hook.best_ckpt_path if len(keys) == 1 else hook.best_ckpt_path_dict['b']
    assert found == str(tmp_path / 'best_b_epoch_1.pth')


@pytest.mark.parametrize('loop', ['epochs', 'iterations'])
def test_every_training_is_resumed_to_the_bit(shapes, tmp_path, loop):
    """A plain detector with EMA, between two epochs of three iterations."""

    def train(name, resume=None):
        cfg = plain_cfg(shapes, tmp_path / name, 6, interval=2)
        cfg.custom_hooks = [dict(type='EMAHook', momentum=0.1)]
        resize = dict(type='BatchSyncRandomResize', random_size_range=(64, 160))
        cfg.model.data_preprocessor.batch_augments = [dict(resize, interval=3)]
        cfg.train_dataloader.sampler.shuffle = True
        cfg.train_dataloader.dataset.pipeline.insert(
            3, dict(type='RandomFlip', prob=0.5)
        )
        cfg.train_dataloader.dataset.pipeline[-1] = dict(type='PackDetInputs')
        if loop == 'epochs':
            cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
        build_trainer(cfg, resume and str(resume)).train()
        end = read_training(tmp_path / name / 'iter_6.pth')
        return end['state_dict'], end['ema_state_dict'], end['optimizer']['state']

    whole = train('whole')
    rest = train('rest', tmp_path / 'whole/iter_4.pth')
    assert equal(whole[0], rest[0]) and equal(whole[1], rest[1])
    assert all(equal(whole[2][i], rest[2][i]) for i in whole[2])


def test_a_refused_resume_leaves_the_work_dir(shapes, tmp_path):
    other = torch.nn.Linear(2, 2).state_dict()
    broken = {'backbone.conv1.weight': torch.tensor([1.0, float('nan')])}
    wrong = [
        (saved(tmp_path / 'other.pth', 1, state_dict=other), 'is missing'),
        (saved(tmp_path / 'nan.pth', 1, state_dict=broken), '1 of its 2 numbers'),
        (tmp_path / 'none.pth', 'no file'),
        (tmp_path / 'torn.pth', 'that torch.save wrote'),
        (tmp_path / 'empty.pth', 'that torch.save wrote'),
        (tmp_path / 'binary.pth', 'that torch.save wrote'),
        (tmp_path / 'weights.pth', 'set load_from'),
    ]
    slot = {0: dict(momentum_buffer=torch.tensor([float('inf')]))}
    path = saved(tmp_path / 'inf.pth', 1, optimizer=dict(state=slot))
    wrong.append((path, 'optimizer.0.momentum_buffer'))
    (tmp_path / 'torn.pth').write_bytes(wrong[0][0].read_bytes()[:400])
    (tmp_path / 'empty.pth').touch()
    (tmp_path / 'binary.pth').write_bytes(bytes(range(256)) * 9)
    torch.save(other, tmp_path / 'weights.pth')
    work_dir = tmp_path / 'work'
    for path, words in wrong:
        with pytest.raises(CheckpointError, match=words) as error:
            build_trainer(plain_cfg(shapes, work_dir), str(path))
        assert str(path) in str(error.value) and not work_dir.exists()


def test_supernets_have_one_that_sets_their_paths(shapes, tmp_path):
    cfg = train_cfg(shapes, tmp_path)
    (sampling,) = cfg.custom_hooks
    for hooks, words in ((None, 'have none'), ([sampling] * 2, 'Hook, ArchSampling')):
        cfg.custom_hooks = hooks
        with pytest.raises(UserError, match=words):
            build_trainer(cfg)
    cfg.custom_hooks = [dict(type='OwnPaths')]
    assert build_trainer(cfg).hooks


@HOOKS.register_module()
class OwnPaths(Hook):
    """As a user writes it."""

    sets_paths = True


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Calls a tool's main in this process, for a config."""
    monkeypatch.chdir(tmp_path)

    def call(name, cfg, *arguments):
        cfg.dump('config.py')
        monkeypatch.setattr(sys, 'argv', [name, 'config.py', *map(str, arguments)])
        runpy.run_path(str(TOOLS / name), run_name='__main__')

    return call


@pytest.mark.parametrize(
    'kind', ['resume', 'config', 'load_from', 'pretrained', 'search', 'test']
)
def test_no_checkpoint_runs_a_command(tool, shapes, tmp_path, capsys, kind):
    cfg = plain_cfg(shapes, tmp_path / 'work')
    bad, hit = tmp_path / 'bad.pth', tmp_path / 'hit'
    saved(bad, 1, mine=Command(f'touch {hit}'))
    arguments = 'train.py', cfg
    if kind == 'resume':
        arguments += '--resume', bad
    elif kind == 'config':  # which mmengine's runner would run
        saved(bad, 1, meta=dict(iter=1, config=f'open({str(hit)!r}, "w")'))
        assert load_from_local(str(bad))['meta'] == dict(iter=1)
        arguments += '--resume', bad
    elif kind == 'load_from':
        cfg.load_from = str(bad)
    elif kind == 'pretrained':
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(bad))
    elif kind == 'search':
        arguments = 'search.py', search_cfg(shapes, tmp_path / 'work', None), bad
    elif kind == 'test':
        cfg = search_cfg(shapes, tmp_path / 'work', None, PLAIN)
        cfg.test_cfg = dict(type='TestLoop')
        arguments = 'test.py', cfg, bad
    with pytest.raises(SystemExit):
        tool(*arguments)
    assert not hit.exists()
    said = capsys.readouterr().err
    assert str(bad) in said
    if kind != 'config':
        assert 'would run' in said and '--trust-checkpoint' in said


def test_loaders_without_workers(tmp_path):
    """An inherited persistent_workers=True means nothing there."""
    (tmp_path / 'a.py').write_text(
        'train_dataloader = dict(num_workers=2, persistent_workers=True)\n'
        'val_dataloader = dict(persistent_workers=True, prefetch_factor=2)\n'
        'test_dataloader = None\n'
    )
    cfg = read_config(tmp_path / 'a.py')
    assert cfg.train_dataloader.persistent_workers and not cfg.val_dataloader
    cfg = read_config(tmp_path / 'a.py', {'train_dataloader.num_workers': 0})
    assert cfg.train_dataloader == dict(num_workers=0)
