"""Training on many devices that exchanges the gradients of the active path alone."""

import hashlib
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_gather, all_gather_object, get_world_size
from mmengine.optim import OptimWrapper
from torch import Tensor, distributed, nn

from mmcr.errors import UserError
from mmcr.models.detector import find_backbone
from mmcr.registry import MODEL_WRAPPERS
from mmcr.training.gradient_exchange import GradientExchange


@MODEL_WRAPPERS.register_module()
class ActivePathDDP(nn.Module):
    """A supernet's `MMDistributedDataParallel`: costs what its path costs.

    ``model_wrapper_cfg = dict(type='mmcr.ActivePathDDP')`` in a config. During a
    backward pass the gradients of the parameters on the path, and of everything
    outside the backbone, are averaged over the processes. With gradient accumulation
    (`no_sync`) that happens once per update, for all the paths since the last one.
    A gradient that some processes lack counts as zero in them; one that all lack
    stays ``None``.

    Ranks must start with the same weights and buffers, as with mmengine's `Runner`,
    which sends those of rank 0. From then on buffers are not exchanged, as in the
    wrapper that mmengine takes where a config names none. A backward pass must reach
    the same forwards on every rank.

    Args:
        module: A model whose backbone is a supernet.
        bucket_cap_mb: MiB of gradients that are exchanged at once. A larger one is
            exchanged alone.

    Raises:
        UserError: The backbone is no supernet, or ranks have different models. In a
            backward pass: a parameter of the backbone gets a gradient that
            `active_parameters()` did not return, or one gets it twice.
    """

    def __init__(self, module: nn.Module, bucket_cap_mb: float = 1.0) -> None:
        super().__init__()
        self.module = module
        self._bucket_bytes = bucket_cap_mb * 2**20
        self._names = {p: name for name, p in module.named_parameters()}
        # what other modules share with the backbone is theirs on every path
        outside = module.named_modules(memo={find_backbone(module)})
        self._shared = {
            p for _, part in outside for p in part.parameters(recurse=False)
        }
        self._held: set[nn.Parameter] = set()  # have gradients since `no_sync`
        self._synchronises = True  # not under `no_sync`
        self._exchange: GradientExchange | None = None  # of a backward pass under way
        tensors = [*self._names, *module.buffers()]
        kinds = str([(t.shape, t.dtype, t.requires_grad) for t in tensors])
        trained = sum(tensor.requires_grad for tensor in tensors)
        _require_same(
            f'{len(tensors)} tensors, {trained} of them to train, '
            f'digest of shapes and types {_digest(kinds):x}',
            'have the same model',
            'Give all of them the same config, and freeze the same parameters.',
        )
        # of its own: in another, norms exchange statistics meanwhile, and where a
        # rank lacks a gradient their order differs
        self._group = distributed.new_group() if get_world_size() > 1 else None
        ready = _weakly(self._ready)
        for parameter in self._names:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(ready)

    def forward(self, *args, **kwargs) -> Any:
        """That of the model.

        Raises:
            UserError: A rank has another path than the others; all ranks say which.
        """
        if not torch.is_grad_enabled():
            return self.module(*args, **kwargs)
        backbone = find_backbone(self.module)
        # before the forward: in it, norms of different paths may wait for each other
        _require_same(
            str(backbone.arch),
            'train the same path',
            'Let mmcr.ArchSamplingHook draw it, with one seed and sampler for all, or '
            'call set_arch with the same path everywhere.',
        )
        used = {*self._shared, *backbone.active_parameters()}
        outputs = self.module(*args, **kwargs)
        self._exchange = None  # of a backward pass that broke off
        for output in _tensors(outputs):
            if output.requires_grad:
                output.register_hook(partial(self._begin, used, self._synchronises))
        return outputs

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """What is run forward in here is exchanged with the first that is not."""
        before, self._synchronises = self._synchronises, False
        try:
            yield
        finally:
            self._synchronises = before

    def train_step(
        self, data: dict | tuple | list, optim_wrapper: OptimWrapper
    ) -> dict[str, Tensor]:
        """Forward, backward and update, as in `MMDistributedDataParallel`."""
        with optim_wrapper.optim_context(self):
            data = self.module.data_preprocessor(data, training=True)
            if isinstance(data, dict):
                losses = self(**data, mode='loss')
            else:
                losses = self(*data, mode='loss')
        loss, logged = self.module.parse_losses(losses)
        optim_wrapper.update_params(loss)
        return logged

    def val_step(self, data: dict | tuple | list) -> list:
        """The model's."""
        return self.module.val_step(data)

    def test_step(self, data: dict | tuple | list) -> list:
        """The model's."""
        return self.module.test_step(data)

    def _begin(self, used: set[nn.Parameter], synchronises: bool, grad: Tensor) -> None:
        """Is called when a backward pass comes to an output of a forward."""
        if self._exchange is None:
            if not synchronises:
                self._held |= used
                return
            self._exchange = GradientExchange(
                self._group, self._bucket_bytes, self._names
            )
            # as DistributedDataParallel and FSDP do: before clipping and the update
            torch.autograd.Variable._execution_engine.queue_callback(self._end)
        for parameters in (used, self._held):
            self._exchange.add(parameters)
        self._held = set()

    def _ready(self, parameter: nn.Parameter) -> None:
        listed = self._held if self._exchange is None else self._exchange.bucket_of
        # none are if the model was run without this wrapper
        if listed and parameter not in listed:
            raise UserError(
                f'A parameter of the backbone that gets a gradient must be one of its '
                f'active_parameters(), or ranks drift apart, but '
                f'{self._names[parameter]} got one and is not. Let that method return '
                f'all that the path uses, and register what a module outside the '
                f'backbone uses in that module.'
            )
        if self._exchange is not None:
            self._exchange.ready(parameter)

    def _end(self) -> None:
        self._exchange.finish()
        self._exchange = None


def _weakly(method: Callable) -> Callable:
    """Calls the method of an object that it does not keep alive."""
    # a parameter keeps its hooks where the garbage collector does not look: the
    # wrapper, the model and the process group would stay for ever
    reference = weakref.WeakMethod(method)

    def call(*args) -> None:
        alive = reference()
        if alive is not None:
            alive(*args)

    return call


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """Those in a model's outputs, however these are nested."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, dict):
        yield from _tensors(list(outputs.values()))
    elif isinstance(outputs, list | tuple):
        for output in outputs:
            yield from _tensors(output)


def _digest(text: str) -> int:
    short = hashlib.blake2b(text.encode(), digest_size=7)  # fits an int64
    return int.from_bytes(short.digest(), 'big')


def _require_same(value: str, rule: str, remedy: str) -> None:
    """Compares `value` over the ranks: eight bytes each, as long as it is the same.

    Raises:
        UserError: It is not, on all ranks alike; the message names who has what.
    """
    digests = all_gather(torch.tensor([_digest(value)]))
    if len({digest.item() for digest in digests}) == 1:
        return
    ranks: dict[str, list[int]] = {}
    for rank, other in enumerate(all_gather_object(value)):
        ranks.setdefault(other, []).append(rank)
    found = '; '.join(
        f'{other} on rank {", ".join(map(str, those))}'
        for other, those in ranks.items()
    )
    raise UserError(f'All ranks must {rule}, but got {found}. {remedy}')
