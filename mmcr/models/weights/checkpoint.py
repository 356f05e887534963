"""Checkpoint files: reading anybody's, writing ours."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.utils import digit_version
from torch import Tensor

from mmcr.errors import UserError
from mmcr.files import write_bytes

NUMPY_CORES = ('core', '_core')  # of numpy 1 and numpy 2, as files name them


class CheckpointError(UserError):
    """A checkpoint that does not hold what the run needs."""


def history_globals() -> list:
    """What `torch.load` must allow to read the loss histories in a checkpoint.

    Of `getattr`, by which pickle refers to a method, four statistics are left.
    """
    array, scalar = (x.__reduce__()[0] for x in (np.zeros(1), np.float64(0)))
    return [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind)) for kind in ('float64', 'int64')},
        *((array, f'numpy.{core}.multiarray._reconstruct') for core in NUMPY_CORES),
        *((scalar, f'numpy.{core}.multiarray.scalar') for core in NUMPY_CORES),
        (_statistic, 'builtins.getattr'),
    ]


def _statistic(owner: object, name: str) -> Callable:
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise UnpicklingError(
            f'A checkpoint may refer to the statistics of HistoryBuffer, '
            f'but this one refers to {name} of {owner}.'
        )
    return getattr(owner, name)


# mmengine 0.10.7 was written before torch loaded nothing but weights by default
if digit_version(torch.__version__) >= digit_version('2.6.0') and not hasattr(
    mmengine_checkpoint, 'get_torch_safe_globals'
):
    torch.serialization.add_safe_globals(history_globals())


def check_there(checkpoint: str) -> None:
    """Raises `CheckpointError` unless it is a file or an address (``https://...``)."""
    if '://' not in checkpoint and not Path(checkpoint).expanduser().is_file():
        raise CheckpointError(
            f'The checkpoint must be a file or an address such as '
            f'torchvision://resnet50, but there is no file {checkpoint}.'
        )


def read_weights(checkpoint: str, map_location: str = 'cpu') -> dict[str, Tensor]:
    """The weights in a checkpoint, whoever saved it.

    Args:
        checkpoint: A file, or an address that mmengine knows, such as
            ``torchvision://resnet50`` or ``https://...``.
        map_location: As in `torch.load`.

    Raises:
        CheckpointError: It is missing, unreadable or without weights.
    """
    checkpoint = str(checkpoint)
    check_there(checkpoint)
    try:
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location)
    except Exception as error:  # whatever torch's unpickler makes of foreign bytes
        raise CheckpointError(
            f'{checkpoint} must be a checkpoint that torch.save wrote, but reading it '
            f'fails: {type(error).__name__}: {error}. Fetch the file again and '
            f'give its path.'
        ) from None
    for place in ('state_dict', 'model'):  # mmengine's, torchvision's trainer's
        if isinstance(content, Mapping) and isinstance(content.get(place), Mapping):
            content = content[place]
    weights = dict(content) if isinstance(content, Mapping) else {}
    weights = {name: w for name, w in weights.items() if isinstance(w, Tensor)}
    if not weights:
        raise CheckpointError(
            f'{checkpoint} must hold weights by name (a state dict), but it holds '
            f'a {type(content).__name__} without any.'
        )
    return weights


def unwrapped_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names they have without a wrapper (``module.``)."""
    return {name.removeprefix('module.'): weight for name, weight in weights.items()}


def write_weights(path: Path, weights: Mapping[str, Tensor], **meta: object) -> None:
    """Writes a checkpoint, the whole of it or nothing; `meta` has plain values."""
    file = BytesIO()
    torch.save(dict(meta=meta, state_dict=OrderedDict(weights)), file)
    try:
        write_bytes(path, file.getvalue())
    except OSError as error:
        raise UserError(f'Writing the checkpoint {path} fails: {error}.') from None
