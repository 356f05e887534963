"""Checkpoint files: reading anybody's, writing ours. To read one runs no code of it."""

import os
import re
from argparse import Namespace
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile, is_zipfile

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmcr.checks import is_integer
from mmcr.errors import UserError
from mmcr.files import write_bytes

NUMPY_CORES = ('core', '_core')  # of numpy 1 and numpy 2, as files name them
NUMPY_KINDS = '?bBhHiIlLqQefdOSU'  # of arrays and of scalars, as numpy abbreviates them
#: What files hold beside weights that only holds other values.
PLAIN = (ConfigDict, Namespace, OrderedDict, defaultdict, deque, list, slice)
#: torch's own switch, which processes that this one starts go by, too.
ONLY_WEIGHTS = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
#: What a checkpoint that a training goes on from holds beside its optimizer.
RESUMABLE = ('meta', 'state_dict', 'message_hub')


class CheckpointError(UserError):
    """A checkpoint that does not hold what the run needs."""


def history_globals() -> list:
    """What `torch.load` must allow to read what mmengine keeps in a checkpoint.

    Of `getattr`, by which pickle refers to a method, four statistics are left.
    """
    array, scalar = (x.__reduce__()[0] for x in (np.zeros(1), np.float64(0)))
    return [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(kind)) for kind in NUMPY_KINDS},
        *PLAIN,
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


def only_weights(trusted: bool = False) -> None:
    """Has this process and those that it starts read weights and plain values alone.

    Args:
        trusted: Read any object, from now on: a checkpoint may then run any code.
    """
    os.environ[ONLY_WEIGHTS] = '0' if trusted else os.environ.get(ONLY_WEIGHTS, '1')
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)  # its opposite
    torch.serialization.add_safe_globals(history_globals())  # for files at an address


# in the place of mmengine's, which falls back on reading any object, or allows getattr
@CheckpointLoader.register_scheme('', force=True)
def load_from_local(path: str, map_location: str | None = None, **options) -> object:
    """What is in a file.

    Args:
        path: Of the file.
        map_location: As in `torch.load`.
        **options: Of `torch.load`.

    Raises:
        CheckpointError: It is missing, unreadable, damaged, or more than weights and
            values.
    """
    check_there(path)
    _check_sums(Path(path).expanduser())
    return _load(path, map_location, **options)


def _check_sums(path: Path) -> None:
    """Compares the bytes of a file with its sums, which torch does not."""
    try:
        damaged = is_zipfile(path) and ZipFile(path).testzip()
    except Exception as error:  # whatever foreign bytes ask of zipfile
        raise _unreadable(str(path), error) from None
    if damaged:
        raise CheckpointError(
            f'{path} must hold what was written, but the bytes of {damaged!r} in it '
            f'have changed since. Use an earlier checkpoint, or fetch the file again.'
        )


def _load(path: str, map_location: str | None, **options) -> object:
    options['weights_only'] = os.environ.get(ONLY_WEIGHTS) != '0'
    # every time: mmengine's own reader takes some of them away
    torch.serialization.add_safe_globals(history_globals())
    try:
        content = torch.load(
            str(Path(path).expanduser()), map_location=map_location, **options
        )
    except Exception as error:  # whatever torch's unpickler makes of foreign bytes
        raise _unreadable(path, error) from None
    if isinstance(content, dict) and isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)  # Runner.resume would run it as Python
    return content


def _unreadable(path: str, error: Exception) -> CheckpointError:
    if isinstance(error, CheckpointError):
        return error
    reason = str(error).rpartition('WeightsUnpickler error: ')[2].strip()
    found = re.search(r'GLOBAL (\S+)|(?:function|class) (<?[\w. ]+)', reason)
    if isinstance(error, UnpicklingError) and found:
        return CheckpointError(
            f'{path} must hold weights and plain values, but reading it would run '
            f'{found[1] or found[2]}, which may do anything on this machine. Where you '
            f'trust whoever made the file, give --trust-checkpoint.'
        )
    reason = re.split(r'\. |\n', reason)[0] or 'it ends too early'
    return CheckpointError(
        f'{path} must be a checkpoint that torch.save wrote, but reading it fails: '
        f'{type(error).__name__}: {reason}. Fetch the file again and give its path.'
    )


def check_there(checkpoint: str) -> None:
    """Raises `CheckpointError` unless it is a file or an address (``https://...``)."""
    str(checkpoint).encode()  # mmengine logs it
    if '://' not in str(checkpoint) and not Path(checkpoint).expanduser().is_file():
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
        CheckpointError: It is missing, unreadable, without weights or not finite.
        UnicodeEncodeError: Its name is not UTF-8.
    """
    checkpoint = str(checkpoint)
    check_there(checkpoint)
    content = _fetched(checkpoint, map_location)
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
    check_finite(weights, checkpoint)
    return weights


def _fetched(checkpoint: str, map_location: str) -> object:
    try:
        return CheckpointLoader.load_checkpoint(checkpoint, map_location)
    except Exception as error:  # of an address: of the network or of its bytes
        raise _unreadable(checkpoint, error) from None


def check_finite(weights: Mapping[str, Tensor], path: str) -> None:
    """Raises `CheckpointError` where numbers are NaN or infinity."""
    weights = {n: w for n, w in weights.items() if isinstance(w, Tensor)}
    broken = {n: bad for n, w in weights.items() if (bad := (~w.isfinite()).sum())}
    if broken:
        name, count = next(iter(broken.items()))
        raise CheckpointError(
            f'{path} must hold finite weights, but {len(broken)} of {len(weights)} '
            f'hold NaN or infinity, such as {name} ({count} of its '
            f'{weights[name].numel()} numbers): the training has diverged. '
            f'Use an earlier checkpoint, or train again with a lower learning rate.'
        )


def read_training(path: str | Path) -> dict:
    """What a training left, to go on from.

    Tensors are mapped: the file has to stay. An address is fetched.

    Raises:
        CheckpointError: It is unreadable, damaged, or of no training.
    """
    if '://' in str(path):
        content = _fetched(str(path), 'cpu')
    else:
        mapped = is_zipfile(Path(path).expanduser())
        content = load_from_local(path, 'cpu', mmap=mapped)
    if _iteration(content) is None:
        raise CheckpointError(
            f'{path} must be what a training saved to go on from, with '
            f'{", ".join(RESUMABLE)}, but it holds less. To start from its weights, '
            f'set load_from in the config.'
        )
    return content


def pointed(work_dir: str | Path) -> str:
    """What ``last_checkpoint`` in a work dir names; empty where there is none."""
    pointer = Path(work_dir, 'last_checkpoint')
    return pointer.read_text(errors='replace').strip() if pointer.is_file() else ''


def last_checkpoint(
    work_dir: str | Path, out_dir: str | Path | None = None, start: str | None = None
) -> tuple[Path | None, str]:
    """Where a training left off, and a sentence on it where that is not as expected.

    What ``last_checkpoint`` names, in the folder of checkpoints; where that is not
    whole, of those beside it the one that is furthest. None where nothing was trained.

    Args:
        work_dir: Has the file ``last_checkpoint``.
        out_dir: Has the checkpoints; ``None``: the work dir has.
        start: A file that the training began with: it is none of its checkpoints.

    Raises:
        CheckpointError: ``last_checkpoint`` is there, but no whole checkpoint.
    """
    pointer, folder = Path(work_dir, 'last_checkpoint'), Path(out_dir or work_dir)
    reason, named = f'There is no file {pointer}', None
    if pointer.is_file():
        name = Path(pointed(work_dir)).name
        reason = f'{pointer} names {name or None!r}, which is not in {folder}'
        named = folder / name if name else None
    if named and os.path.isfile(named):  # whatever bytes its name has
        try:
            read_training(named)
            return named, ''
        except CheckpointError as error:
            reason = str(error)
    iterations = {
        path: _iteration_of(path)
        for path in checkpoints_in(folder, start)
        if path != named and not path.name.startswith('best_')  # without optimizer
    }
    others = [path for path, i in iterations.items() if i is not None]
    for path in sorted(others, key=iterations.get, reverse=True):
        with suppress(CheckpointError):
            read_training(path)
            return path, f'{reason}: going on from {path}.'
    if pointer.is_file():
        raise CheckpointError(
            f'{folder} must hold a whole checkpoint to go on from, but: {reason}. Put '
            f'one there, or remove what is there to start anew.'
        )
    return None, ''


def checkpoints_in(folder: str | Path, start: str | None = None) -> list[Path]:
    """Those that a training left, without the one that it began with (`start`)."""
    begun = start and os.path.realpath(Path(start).expanduser())
    found = sorted(Path(folder).glob('*.pth'))
    return [path for path in found if os.path.realpath(path) != begun]


def _iteration(content: object) -> int | None:
    """Of a checkpoint; None where no training can go on from it."""
    parts = content if isinstance(content, Mapping) else {}
    if not all(isinstance(parts.get(name), Mapping) for name in RESUMABLE):
        return None
    iteration = parts['meta'].get('iter')
    return iteration if is_integer(iteration, at_least=0) else None


def _iteration_of(path: Path) -> int | None:
    try:
        return _iteration(_load(path, 'cpu', mmap=is_zipfile(path)))
    except CheckpointError:
        return None


def unwrapped_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names they have without a wrapper (``module.``)."""
    return {name.removeprefix('module.'): weight for name, weight in weights.items()}


def write_weights(path: Path, weights: Mapping[str, Tensor], **meta: object) -> None:
    """Writes a checkpoint, the whole of it or nothing; `meta` has plain values."""
    file = BytesIO()
    torch.save(dict(meta=meta, state_dict=OrderedDict(weights)), file)
    write_checkpoint(path, file.getvalue())


def write_checkpoint(path: Path, data: bytes) -> None:
    """Writes a file of a training, the whole of it or nothing."""
    try:
        write_bytes(path, data)
    except OSError as error:
        raise UserError(
            f'Writing {path} fails: {error}. What was there before is whole: make '
            f'room, and start the same again.'
        ) from None
