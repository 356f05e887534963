"""What a score depends on beside the candidate, told apart by digests."""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache

from mmengine.evaluator import Evaluator

from mmcr.files import file_digest


def digest(options: Mapping | list) -> str:
    text = json.dumps(options, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def data_digest(dataloader: Mapping) -> str:
    """Of what decides the batches, wherever it lies: annotations and options."""
    dataset = with_contents(dataloader['dataset'])
    return digest(dict(dataset=dataset, batch_size=dataloader.get('batch_size', 1)))


def metrics_digest(evaluator: Evaluator | dict | list) -> str | None:
    """Of the options that values depend on; all backends give the same values."""
    if isinstance(evaluator, Evaluator):
        return None
    metrics = [evaluator] if isinstance(evaluator, Mapping) else evaluator
    return digest(
        [
            {k: v for k, v in with_contents(metric).items() if k != 'backend'}
            for metric in metrics
        ]
    )


def with_contents(options):
    """The options, also of data sets within, with digests for annotation files."""
    if isinstance(options, list | tuple):
        return [with_contents(option) for option in options]
    if not isinstance(options, Mapping):
        return options
    options = {name: with_contents(value) for name, value in options.items()}
    ann_file = options.get('ann_file')
    if isinstance(ann_file, str):
        path = os.path.join(options.get('data_root') or '', ann_file)
        if os.path.isfile(path):  # of a remote file place and name must do
            options.pop('data_root', None)
            state = os.stat(path)
            version = state.st_mtime_ns, state.st_size, state.st_ino
            options['ann_file'] = _file_digest(path, version)
    return options


@lru_cache
def _file_digest(path: str, version: tuple) -> str:
    """Of a file that several loaders and steps read, computed once."""
    return file_digest(path)
