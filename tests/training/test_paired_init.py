"""Networks of one seed start from the same weights and draw the same numbers."""

import json
import random

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from pairs import one_of, run_pair
from tiny import train_cfg, write_checkpoint

from mmcr.errors import UserError
from mmcr.training import PairedInitHook

pytestmark = pytest.mark.usefixtures('quiet_mmdet')
LARGE = dict(stage_blocks=(2, 2, 2, 3))
SECONDS = 120  # a hang ends here


class Start(Hook):
    """Notes the weights, images and chance that the first iteration meets."""

    priority = 'LOWEST'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not hasattr(self, 'weights'):
            state = runner.model.state_dict()
            self.weights = {name: weight.clone() for name, weight in state.items()}
            self.images = [d.img_id for d in data_batch['data_samples']]
            self.drawn = torch.rand(4).tolist(), random.random()


def start(root, folder, stage_blocks, seed=0, large=LARGE, exact=True, **more):
    more.setdefault('iterations', 1)
    cfg = train_cfg(root, folder, dict(stage_blocks=stage_blocks), **more)
    cfg.randomness.seed = seed
    cfg.train_dataloader.sampler.shuffle = True
    cfg.custom_hooks = [dict(type='mmcr.ExactResumeHook')] if exact else []
    if large:
        cfg.custom_hooks.append(dict(type='mmcr.PairedInitHook', backbone=large))
    runner, noted = Runner.from_cfg(cfg), Start()
    runner.register_hook(noted)
    runner.train()
    return noted


def shared(a, b):
    """Of the weights that two networks have in common and draw: how many are equal."""
    drawn = [n for n in a.weights if n in b.weights and len(a.weights[n].unique()) > 1]
    return sum(a.weights[n].equal(b.weights[n]) for n in drawn), len(drawn)


def test_networks_of_a_seed_start_alike(shapes, tmp_path):
    one = start(shapes, tmp_path / 'one', (1, 2, 2, 3))
    other = start(shapes, tmp_path / 'other', (2, 1, 1, 2))
    equal, drawn = shared(one, other)
    assert equal == drawn > 20
    assert one.images == other.images and one.drawn == other.drawn


def test_without_the_hook_or_under_another_seed_they_do_not(shapes, tmp_path):
    one = start(shapes, tmp_path / 'one', (1, 2, 2, 3))
    for name, options in dict(seed=dict(seed=1), plain=dict(large=None)).items():
        other = start(shapes, tmp_path / name, (2, 1, 1, 2), **options)
        assert shared(one, other)[0] == 0


@pytest.mark.parametrize('blocks', [LARGE['stage_blocks'], (2, 1, 1, 2)])
def test_the_run_draws_on_as_without_the_hook(shapes, tmp_path, blocks):
    hooked = start(shapes, tmp_path / 'hooked', blocks, exact=False)
    plain = start(shapes, tmp_path / 'plain', blocks, exact=False, large=None)
    assert hooked.drawn == plain.drawn
    equal, drawn = shared(hooked, plain)
    # the large network itself starts as it would anyway
    assert (equal == drawn > 20) == (blocks == LARGE['stage_blocks'])


@pytest.mark.parametrize('resume', [False, True])
def test_a_checkpoint_goes_first(shapes, tmp_path, resume):
    blocks = (1, 1, 1, 2)
    if resume:
        first = start(shapes, tmp_path / 'first', blocks, seed=5)
        path = tmp_path / 'first/iter_1.pth'
        weights = torch.load(path, weights_only=False)['state_dict']
        assert not weights['neck.fpn_convs.0.conv.weight'].equal(
            first.weights['neck.fpn_convs.0.conv.weight']
        )  # it has learned something
    else:
        path = write_checkpoint(tmp_path / 'own.pth', dict(stage_blocks=blocks))
        weights = torch.load(path)['state_dict']
    given = dict(load_from=str(path), resume=resume, iterations=2)
    noted = start(shapes, tmp_path / 'next', blocks, exact=False, **given)
    assert all(noted.weights[name].equal(weights[name]) for name in weights)


@pytest.mark.parametrize(
    'large, words',
    [
        (dict(stage_blocks=(1, 2, 2, 3)), r'has no backbone\.layer1\.1\.'),
        (dict(LARGE, base_channels=16), r'has no backbone\.conv1\.'),
        (
            dict(stage_block=(2, 2, 2, 3)),
            'takes no stage_block .near ones: stage_blocks',
        ),
        ((2, 2, 2, 3), r'arguments of the large network.* got \(2, 2, 2, 3\)'),
    ],
)
def test_what_is_no_larger_network_is_refused(shapes, tmp_path, large, words):
    with pytest.raises(UserError, match=f'PairedInitHook .*{words}'):
        start(shapes, tmp_path, (2, 1, 1, 2), large=large)


def test_a_model_without_a_backbone_is_refused(shapes, tmp_path):
    runner = Runner.from_cfg(train_cfg(shapes, tmp_path, dict(stage_blocks=(1,) * 4)))
    runner.cfg.model = dict(type='Teacher', detector=runner.cfg.model)
    with pytest.raises(UserError, match='a config whose model has a backbone'):
        PairedInitHook(LARGE).before_train(runner)


def work(rank, root, folder):
    """One of two processes, each with a seed of its own."""
    with one_of(2, rank, folder):
        cfg = train_cfg(root, folder / 'work', dict(stage_blocks=(1, 2, 1, 2)), 1)
        cfg.randomness = dict(seed=0, diff_rank_seed=True)
        cfg.custom_hooks = [dict(type='mmcr.PairedInitHook', backbone=LARGE)]
        cfg.launcher = 'pytorch'
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
        runner, noted = Runner.from_cfg(cfg), Start()
        runner.register_hook(noted)
        runner.train()
        sums = {name: w.double().sum().item() for name, w in noted.weights.items()}
        (folder / f'{rank}.json').write_text(json.dumps([runner.seed, sums]))


def test_all_ranks_start_alike(shapes, tmp_path):
    (seed, one), (other_seed, other) = run_pair(work, shapes, tmp_path, SECONDS)
    assert seed != other_seed
    assert one == other
