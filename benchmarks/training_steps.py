"""One training step of a detector, its time and its memory."""

import copy
import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmcr.errors import UserError
from mmcr.models import inherit_weights
from mmcr.space import Arch

CONFIGS = Path(__file__).parents[1] / 'configs/crnas'
SUPERNETS = {
    'r50-stage': 'supernet_r50.py',
    'r50-operation': 'op_supernet_r50.py',
    'mobilenetv2-stage': 'supernet_mobilenetv2.py',
    'mobilenetv2-operation': 'op_supernet_mobilenetv2.py',
}
MMAP_THRESHOLD = -3  # mallopt's name for it


class Trainee:
    """A detector and its optimizer, fed with one batch again and again.

    The learning rate is 0: a step costs what it always does, and every step of a path
    is the same.

    Args:
        model: The detector.
        device: ``'cpu'`` or ``'cuda'``.
        amp: Whether steps run under automatic mixed precision.
        wrap: What wraps the model for several processes.
    """

    def __init__(
        self,
        model: nn.Module,
        device: str,
        amp: bool = False,
        wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
    ) -> None:
        self.model = model.to(device).train()
        self.wrapped = wrap(self.model)
        self.device = device
        self.optimizer = build_optim_wrapper(
            self.model,
            dict(
                type='AmpOptimWrapper' if amp else 'OptimWrapper',
                optimizer=dict(type='SGD', lr=0.0, momentum=0.9, weight_decay=1e-4),
            ),
        )

    def step(self, batch: dict, arch: Arch | None = None) -> float:
        """One step on the path `arch`, of a supernet; returns the loss."""
        torch.manual_seed(0)  # the same sample of proposals
        if arch is not None:
            self.model.backbone.set_arch(arch)
        losses = self.wrapped.train_step(batch, self.optimizer)
        return losses['loss'].item()

    def timed(self, batch: dict, arch: Arch | None = None) -> tuple[float, float]:
        """Seconds and loss of one step."""
        self.wait()
        start = time.perf_counter()
        loss = self.step(batch, arch)
        self.wait()
        return time.perf_counter() - start, loss

    def wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()

    def step_bytes(self, batch: dict, small: dict, arch: Arch | None = None) -> int:
        """The peak of memory in a step, above what is there between steps.

        Args:
            batch: That of the step.
            small: One for the step before, which leaves the momentum of the path and
                what the libraries keep.
            arch: The path, of a supernet.
        """
        self.step(small, arch)
        gc.collect()
        if self.device == 'cuda':
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.step(batch, arch)
            return torch.cuda.max_memory_allocated() - before
        before = resident('VmRSS')
        Path('/proc/self/clear_refs').write_text('5')  # the peak is that of now
        self.step(batch, arch)
        return resident('VmHWM') - before

    def state_bytes(self) -> int:
        """Of the optimizer, as far as it has any yet."""
        states = self.optimizer.optimizer.state.values()
        return sum(
            value.nbytes
            for state in states
            for value in state.values()
            if isinstance(value, Tensor)
        )


def resident(peak: str) -> int:
    """Resident memory of this process: ``'VmRSS'`` now, ``'VmHWM'`` at its peak."""
    status = Path('/proc/self/status')
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith(f'{peak}:'):
            return 1024 * int(line.split()[1])
    raise UserError(f'Memory is read in {status}, as on Linux.')


def in_own_process(device: str, measure: Callable, *arguments):
    """Calls `measure` where nothing of earlier measurements is left.

    On a CPU in a forked process, whose allocator gives freed tensors back at once.
    """
    if device == 'cuda':
        return measure(*arguments)
    with multiprocessing.get_context('fork').Pool(1, give_back_at_once) as pool:
        return pool.apply(measure, arguments)


def give_back_at_once() -> None:
    """Every block of 64 KiB or more has a mapping of its own from now on."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):  # glibc
        libc.mallopt(MMAP_THRESHOLD, 2**16)


def detector_cfg(name: str, **backbone) -> dict:
    """The supernet's detector, with few proposals: they are not in question."""
    cfg = Config.fromfile(CONFIGS / SUPERNETS[name]).model
    # the paper's supernet: by far the largest
    cfg.backbone.update({'init_cfg': None, 'share': 'branch', **backbone})
    cfg.train_cfg.rpn_proposal.update(nms_pre=200, max_per_img=100)
    cfg.train_cfg.rcnn.sampler.update(num=64)
    return cfg


def supernet_of(name: str, **backbone) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(detector_cfg(name, **backbone))


def fixed_of(name: str, supernet: nn.Module, arch: Arch) -> nn.Module:
    """The detector of one path, with the same weights."""
    cfg = detector_cfg(name)
    cfg.backbone = supernet.backbone.arch_cfg(arch)
    fixed = MODELS.build(cfg)
    inherit_weights(supernet.backbone, fixed.backbone, arch)
    for part in ('neck', 'rpn_head', 'roi_head'):
        state = copy.deepcopy(getattr(supernet, part).state_dict())
        getattr(fixed, part).load_state_dict(state)
    return fixed


def batch_of(count: int, height: int, width: int) -> dict:
    """Random images with two objects each."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.3, 0.5, 0.9, 0.8]])
    samples = []
    for _ in range(count):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(height, width),
                ori_shape=(height, width),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes * torch.tensor([width, height, width, height]),
            labels=torch.tensor([0, 1]),
        )
        samples.append(sample)
    images = torch.randint(
        0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8
    )
    return dict(inputs=list(images), data_samples=samples)
