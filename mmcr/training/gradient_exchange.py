"""Averages gradients over processes while a backward pass goes on."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, distributed, nn

from mmcr.errors import UserError


class GradientExchange:
    """Averages the gradients of a backward pass over the processes.

    Bucket by bucket, as soon as all gradients of a bucket and of those before it are
    there; the rest at the end, where a missing gradient is known to be missing.

    Args:
        group: The processes; ``None`` where this one is alone.
        bucket_bytes: As in `_buckets`.
        names: Those of the model's parameters, in an order that is the same in all
            processes; that in which gradients come is near its reverse.
    """

    def __init__(
        self,
        group: distributed.ProcessGroup | None,
        bucket_bytes: float,
        names: dict[nn.Parameter, str],
    ) -> None:
        self.group = group
        self.bucket_bytes = bucket_bytes
        self.names = names
        self.bucket_of: dict[nn.Parameter, int] = {}
        self.buckets: list[list[nn.Parameter]] = []
        self.lacking: list[set[nn.Parameter]] = []
        self.sent: list[tuple[list[Tensor], distributed.Work]] = []

    def add(self, parameters: set[nn.Parameter]) -> None:
        """Those of them that are new will be exchanged."""
        new = [
            p
            for p in reversed(self.names)
            if p in parameters and p.requires_grad and p not in self.bucket_of
        ]
        for bucket in _buckets(new, self.bucket_bytes):
            self.bucket_of.update(dict.fromkeys(bucket, len(self.buckets)))
            self.buckets.append(bucket)
            self.lacking.append(set(bucket))

    def ready(self, parameter: nn.Parameter) -> None:
        """The gradient of one of those is there."""
        index = self.bucket_of[parameter]
        if parameter not in self.lacking[index]:
            raise UserError(
                f'A parameter must get its gradient once in a backward pass, but '
                f'{self.names[parameter]} got it twice. Checkpoint activations with '
                f'use_reentrant=False.'
            )
        self.lacking[index].remove(parameter)
        if self.group is None:
            return
        while len(self.sent) < len(self.buckets) and not self.lacking[len(self.sent)]:
            self._send()

    @torch.no_grad()
    def finish(self) -> None:
        """Waits for all gradients and puts them in place."""
        parameters = [p for bucket in self.buckets for p in bucket]
        if self.group is None or not parameters:
            return
        while len(self.sent) < len(self.buckets):
            self._send()
        there = parameters[0].new_tensor([p.grad is not None for p in parameters])
        distributed.all_reduce(there, group=self.group)
        averages = []
        for parts, work in self.sent:
            work.wait()
            averages += parts
        for i, (parameter, average) in enumerate(zip(parameters, averages)):
            # a GPU is waited for, but only where a gradient lacks
            if parameter.grad is not None or there[i]:
                if not parameter.is_contiguous():  # its gradient has the same strides
                    average = torch.empty_like(parameter).copy_(average)
                parameter.grad = average

    @torch.no_grad()
    def _send(self) -> None:
        """Begins with the next bucket, whose gradients lie in it from now on.

        Not where autograd has put them: that may be a view of what the backward pass
        still needs, or of the gradient of another parameter.
        """
        bucket = self.buckets[len(self.sent)]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        # before the sum, which half precision might not hold
        flat /= distributed.get_world_size(self.group)
        sizes = [parameter.numel() for parameter in bucket]
        parts = [x.view(p.shape) for x, p in zip(flat.split(sizes), bucket)]
        for parameter, part in zip(bucket, parts):
            if parameter.grad is not None:
                parameter.grad = part
        work = distributed.all_reduce(flat, group=self.group, async_op=True)
        self.sent.append((parts, work))


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
