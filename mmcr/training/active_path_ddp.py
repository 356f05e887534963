"""Distributed training that exchanges the gradients of the active path alone."""

import hashlib
import inspect
import warnings
from typing import Any

import torch
from mmengine.dist import all_gather, all_gather_object
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from mmcr.errors import UserError
from mmcr.models.detector import find_backbone
from mmcr.registry import MODEL_WRAPPERS

SKIPS = 'skip_all_reduce_unused_params'  # an option of newer versions of torch


@MODEL_WRAPPERS.register_module()
class ActivePathDDP(MMDistributedDataParallel):
    """mmengine's `MMDistributedDataParallel`, for a supernet.

    ``model_wrapper_cfg = dict(type='mmcr.ActivePathDDP')`` in a config. Gradients of
    the parameters on the path and of everything outside the backbone are averaged
    over the ranks; buckets of other parameters are skipped. Three things are added to
    torch's option for that, which is made for parameters that are never used:

    - Ranks that are about to train different paths end with a message. Without the
      check they would wait for each other.
    - A parameter of the path that lacks a gradient on one rank, as of a head whose
      branch had no object there, is not skipped there either.
    - With gradient accumulation (`no_sync`) the gradients of all the paths since the
      last update are averaged, not those of the last one alone.

    A gradient that some ranks lack counts as zero there. One that all lack stays
    ``None``, so that the optimizer leaves the parameter and its momentum alone.

    Args:
        module: A model whose backbone is a supernet.
        bucket_cap_mb: MiB of gradients that are exchanged at once. A bucket with one
            used parameter is exchanged as a whole.
        options: Others of `torch.nn.parallel.DistributedDataParallel`. Buffers are
            not exchanged unless one of them says so.

    Raises:
        UserError: The backbone is no supernet.
    """

    def __init__(
        self, module: nn.Module, bucket_cap_mb: float = 1.0, **options
    ) -> None:
        find_backbone(module)
        known = inspect.signature(DistributedDataParallel).parameters
        if 'broadcast_buffers' not in options:
            new = 'forward_sync_buffers'  # the old name is deprecated in torch 2.13
            options.setdefault(new if new in known else 'broadcast_buffers', False)
        if next(module.parameters()).device.type == 'cpu':
            options['device_ids'] = None  # mmengine's runner gives that of a GPU
        options['find_unused_parameters'] = True
        if SKIPS in known:
            options[SKIPS] = True
        else:
            warnings.warn(
                f'torch {torch.__version__} has no {SKIPS}: the gradients of the whole '
                f'supernet are exchanged at every step. The result is the same.',
                stacklevel=2,
            )
        super().__init__(module, bucket_cap_mb=bucket_cap_mb, **options)

    def forward(self, *inputs, **kwargs) -> Any:
        """That of the model.

        Raises:
            UserError: A rank has another path than the others; all ranks say which.
        """
        if not torch.is_grad_enabled():
            return super().forward(*inputs, **kwargs)
        # before the forward: in it, norms of different paths may wait for each other
        _require_same_path(str(find_backbone(self.module).arch))
        with self.module.register_forward_hook(_keep_used):
            return super().forward(*inputs, **kwargs)


def _keep_used(module: nn.Module, inputs: tuple, outputs: Any) -> Any:
    """Connects outputs with all that is exchanged: torch skips what it cannot reach.

    What one rank has no use for at this step may have a gradient on another, or from
    an earlier path of the same update.
    """
    backbone = find_backbone(module)
    inside = {*backbone.parameters()} - {*backbone.active_parameters()}
    used = [
        p
        for p in module.parameters()
        if p.requires_grad and (p not in inside or p.grad is not None)
    ]
    if not used:
        return outputs
    nothing = _NoGradients.apply(*used)
    return tree_map_only(
        Tensor, lambda x: x + nothing.to(x) if x.requires_grad else x, outputs
    )


class _NoGradients(torch.autograd.Function):
    """A zero that depends on its arguments, but gives them no gradient."""

    @staticmethod
    def forward(ctx, *tensors: Tensor) -> Tensor:
        ctx.count = len(tensors)
        return tensors[0].new_zeros(())

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.count


def _require_same_path(path: str) -> None:
    """Compares `path` over the ranks: eight bytes each, as long as it is the same.

    Raises:
        UserError: It is not, on all ranks alike; the message names who has what.
    """
    digest = hashlib.blake2b(path.encode(), digest_size=7).digest()  # fits an int64
    digests = all_gather(torch.tensor([int.from_bytes(digest, 'big')]))
    if len({each.item() for each in digests}) == 1:
        return
    ranks: dict[str, list[int]] = {}
    for rank, other in enumerate(all_gather_object(path)):
        ranks.setdefault(other, []).append(rank)
    found = '; '.join(
        f'{other} on rank {", ".join(map(str, those))}'
        for other, those in ranks.items()
    )
    raise UserError(
        f'All ranks must train the same path, but got {found}. Let '
        f'mmcr.ArchSamplingHook draw it, with one seed and sampler for all, or call '
        f'set_arch with the same path everywhere.'
    )
