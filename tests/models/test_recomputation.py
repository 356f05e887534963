"""Activation checkpointing in every mode, on one device and under DDP."""

import copy
from collections import Counter

import pytest
import torch
from nets import DETNAS, FAMILIES, SUPERNETS, build, equal, images, loss_of, some_archs
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

NETS = {
    **SUPERNETS,
    **{f'{family}-fixed': cfg for family, cfg in FAMILIES.items()},
    'detnas-fixed': dict(DETNAS, stage_blocks=(1, 2, 1, 2), blocks=(0, 1, 2, 3, 0, 3)),
}
ONE_OF_EACH = ('r18-stage', 'r50-prefix-stage', 'mobilenetv2-operation', 'detnas-block')


@pytest.fixture
def gloo():
    """A process group of this process alone."""
    distributed.init_process_group(
        'gloo', store=distributed.HashStore(), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def pair(name, **more):
    """A network without and with checkpointing, on the same path."""
    nets = build(NETS[name], **more), build(NETS[name], **more, with_cp=True)
    if nets[0].space is not None:
        for net in nets:
            net.set_arch(some_archs(net.space, 1)[0])
    return nets


def gradients(net):
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('name', NETS)
def test_gradients_and_statistics_are_those_without(name):
    plain, saving = pair(name)
    for net in (plain, saving):
        for seed in range(2):
            loss_of(net(images(seed=seed))).backward()
    assert equal(gradients(plain), gradients(saving))
    # each batch counts once, though blocks run twice
    assert equal(plain.state_dict(), saving.state_dict())
    norm = next(m for m in saving.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.num_batches_tracked == 2


@pytest.mark.parametrize('options', (dict(norm_eval=True), dict(frozen_stages=2)))
@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_norms_that_stay_as_they_are(name, options):
    plain, saving = pair(name, **options)
    for net in (plain, saving):
        net.train()
        loss_of(net(images())).backward()
    assert equal(gradients(plain), gradients(saving))
    assert equal(plain.state_dict(), saving.state_dict())


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_backward_takes_the_path_of_the_forward(name):
    plain, saving = pair(name)
    first, second = some_archs(plain.space, 2, seed=3)
    for net in (plain, saving):
        losses = []
        for arch in (first, second):
            net.set_arch(arch)
            losses.append(loss_of(net(images())))
        losses[0].backward(retain_graph=True)
        losses[0].backward()
        losses[1].backward()
        assert net.arch == second
    assert equal(gradients(plain), gradients(saving))
    assert equal(plain.state_dict(), saving.state_dict())


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_autocast(name):
    plain, saving = pair(name)
    for net in (plain, saving):
        with torch.autocast('cpu', torch.bfloat16):
            outs = net(images())
        assert outs[0].dtype is torch.bfloat16
        loss_of(outs).backward()
    assert equal(gradients(plain), gradients(saving))


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_a_copy_recomputes_its_own_blocks(name):
    net = pair(name)[1]
    twin = copy.deepcopy(net)
    loss_of(twin(images())).backward()
    assert gradients(twin) and not gradients(net)


def kept_bytes(net):
    """What the graph of the blocks keeps for the backward pass, weights aside."""
    unblocked = getattr(net, 'conv2', None)  # MobileNetV2's last conv
    stem, *stages = (step for step in net.steps() if step.modules[0] is not unblocked)
    own = {p.data_ptr() for p in net.parameters()}
    kept = {}

    def note(tensor):
        if tensor.data_ptr() not in own:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    y = stem.run(images())
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        for step in stages:
            y = step.run(y)
    return sum(kept.values()), y  # alive as long as its graph is asked about


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_all_blocks_behind_frozen_ones_run_twice(name):
    net = pair(name, frozen_stages=1)[1]
    net.train()
    runs = Counter()
    for block in net.modules():
        if 'forward' in vars(block):  # it checkpoints itself
            for conv in block.modules():
                if isinstance(conv, nn.Conv2d):
                    conv.register_forward_pre_hook(lambda conv, _: runs.update([conv]))
    loss_of(net(images())).backward()
    frozen = [conv for conv in runs if not conv.weight.requires_grad]
    assert frozen and len(frozen) < len(runs)
    for conv, count in runs.items():
        assert count == 1 + conv.weight.requires_grad


@pytest.mark.parametrize('name', NETS)
def test_less_is_kept_for_the_backward_pass(name):
    (plain, _), (saving, _) = (kept_bytes(net) for net in pair(name))
    assert 0 < saving < 0.5 * plain


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_ddp_that_looks_for_unused_parameters(gloo, name):
    plain, saving = pair(name)
    wrapped = DistributedDataParallel(saving, find_unused_parameters=True)
    for arch in some_archs(plain.space, 2):
        for net in (plain, saving):
            net.zero_grad()
            net.set_arch(arch)
        loss_of(plain(images())).backward()
        loss_of(wrapped(images())).backward()
        found = gradients(saving)
        for key, gradient in gradients(plain).items():
            assert torch.equal(found[key], gradient)
    assert equal(plain.state_dict(), saving.state_dict())
