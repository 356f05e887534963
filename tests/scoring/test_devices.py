"""No tensor is left on the CPU where the network is on another device.

torch's `FakeTensorMode` with made-up CUDA tensors would say so, but a build for CPUs
has neither a backward nor a batch norm in training for these. So the network is on
torch's ``meta`` device, which computes shapes alone, and every operator is asked
whether its tensors are together.
"""

import pytest
import torch
from nets import SUPERNETS, build, images, loss_of, some_archs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmcr.scoring.bn_calibrator import BNCalibrator
from mmcr.scoring.paths import run_paths

pytestmark = pytest.mark.usefixtures('quiet_mmdet')
# share='prefix' and shared operations have the same layers
OWN_LAYERS = [n for n in SUPERNETS if 'prefix' not in n and 'shared' not in n]
MOVES = 'aten::copy_', 'aten::_to_copy'


class OneDevice(TorchDispatchMode):
    """Refuses operators on tensors of two devices; numbers may be anywhere."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        found = {str(x.device) for x in leaves if isinstance(x, Tensor) and x.dim()}
        if len(found) > 1 and func.name() not in MOVES:
            raise RuntimeError(f'{func.name()} takes tensors of {sorted(found)}')
        return func(*args, **kwargs)


@pytest.mark.parametrize('name', OWN_LAYERS)
def test_training_calibration_and_scoring(name):
    net = build(SUPERNETS[name]).to('meta')
    batch, archs = images().to('meta'), some_archs(net.space, 2)
    with OneDevice():
        net.train()
        for arch in archs:
            net.set_arch(arch)
            loss_of(net(batch)).backward()
        calibrator = BNCalibrator(net)
        calibrator.calibrate(archs, [(0, dict(inputs=batch))], 1)
        net.eval()
        with torch.no_grad():
            paths = list(run_paths(net, archs, batch, calibrator.run_calibrated))
    outs = [out for _, features in paths for out in features]
    assert len(paths) == len(archs) and {out.device.type for out in outs} == {'meta'}
    assert any(p.grad is not None for p in net.parameters())
    assert all(p.grad is None or p.grad.is_meta for p in net.parameters())


def test_a_tensor_that_stayed_is_found():
    net = build(SUPERNETS[OWN_LAYERS[0]]).to('meta')
    layer = next(m for m in net.modules() if m._parameters)
    layer.to_empty(device='cpu')
    with OneDevice(), pytest.raises(RuntimeError, match="'cpu', 'meta'"):
        net(images().to('meta'))
