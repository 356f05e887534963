"""Averages gradients over processes while a backward pass goes on."""

from collections.abc import Iterable, Iterator

import torch
from mmengine.dist import broadcast
from torch import Tensor, distributed, nn

from mmcr.errors import UserError


class GradientExchange:
    """Averages the gradients of a backward pass over the processes.

    Bucket by bucket, as soon as all gradients of a bucket and of those before it are
    there; the rest at the end, where a missing gradient is known to be missing.

    Args:
        group: The processes; ``None`` where this one is alone.
        bucket_bytes: As in `_buckets`.
        order: Rank of every parameter in the exchange; the same in all processes.
    """

    def __init__(
        self,
        group: distributed.ProcessGroup | None,
        bucket_bytes: float,
        order: dict[nn.Parameter, int],
    ) -> None:
        self.group = group
        self.bucket_bytes = bucket_bytes
        self.order = order
        self.bucket_of: dict[nn.Parameter, int] = {}
        self.buckets: list[list[nn.Parameter]] = []
        self.lacking: list[set[nn.Parameter]] = []
        self.sent: list[tuple[list[Tensor], Tensor, distributed.Work]] = []

    def add(self, parameters: set[nn.Parameter]) -> None:
        """Those of them that are new will be exchanged."""
        if self.group is None:
            return
        new = [p for p in parameters if p.requires_grad and p not in self.bucket_of]
        new.sort(key=self.order.__getitem__)
        for bucket in _buckets(new, self.bucket_bytes):
            self.bucket_of.update(dict.fromkeys(bucket, len(self.buckets)))
            self.buckets.append(bucket)
            self.lacking.append(set(bucket))

    def ready(self, parameter: nn.Parameter) -> None:
        """Its gradient is there."""
        index = self.bucket_of.get(parameter)
        if index is None:
            return
        if parameter not in self.lacking[index]:
            raise UserError(
                'A parameter must get its gradient once in a backward pass, but one of '
                f'shape {tuple(parameter.shape)} got it twice. Checkpoint activations '
                'with use_reentrant=False.'
            )
        self.lacking[index].remove(parameter)
        while len(self.sent) < len(self.buckets) and not self.lacking[len(self.sent)]:
            self._send()

    @torch.no_grad()
    def finish(self) -> None:
        """Waits for all gradients and puts them in place."""
        while len(self.sent) < len(self.buckets):
            self._send()
        parameters = [p for bucket in self.buckets for p in bucket]
        if not parameters:
            return
        there = parameters[0].new_tensor([p.grad is not None for p in parameters])
        distributed.all_reduce(there, group=self.group)
        averages = []
        for grads, flat, work in self.sent:
            work.wait()
            averages += _unflat(flat, grads)
        for i, (parameter, average) in enumerate(zip(parameters, averages)):
            if parameter.grad is None:
                if there[i]:  # a GPU is waited for, but only where a gradient lacks
                    parameter.grad = average.clone()
            elif parameter.grad.data_ptr() != average.data_ptr():
                parameter.grad.copy_(average)

    @torch.no_grad()
    def _send(self) -> None:
        """Begins with the next bucket, a large gradient in its own place."""
        bucket = self.buckets[len(self.sent)]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        alone = len(grads) == 1 and grads[0].is_contiguous()
        flat = grads[0].view(-1) if alone else _flat(grads)
        # before the sum, which half precision might not hold
        flat /= distributed.get_world_size(self.group)
        work = distributed.all_reduce(flat, group=self.group, async_op=True)
        self.sent.append((grads, flat, work))


def _buckets(tensors: Iterable[Tensor], size: float) -> Iterator[list[Tensor]]:
    """Tensors of one type and device each, in the order in which buckets are full.

    Args:
        tensors: What to put into them.
        size: Bytes, at which a bucket is full. A tensor as large is one by itself.
    """
    filling: dict[tuple, list[Tensor]] = {}
    room: dict[tuple, float] = {}
    for tensor in tensors:
        if tensor.nbytes >= size:
            yield [tensor]
            continue
        kind = tensor.dtype, tensor.device
        filling.setdefault(kind, []).append(tensor)
        room[kind] = room.get(kind, size) - tensor.nbytes
        if room[kind] <= 0:
            yield filling.pop(kind)
            del room[kind]
    yield from filling.values()


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _unflat(flat: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """The parts of a flat tensor, in the shapes of `tensors`."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors)]


@torch.no_grad()
def start_alike(tensors: list[Tensor], bucket_bytes: float) -> None:
    for bucket in _buckets(tensors, bucket_bytes):
        flat = _flat(bucket)
        broadcast(flat)
        for tensor, first in zip(bucket, _unflat(flat, bucket)):
            tensor.copy_(first)
