"""What a score depends on beside the candidate, told apart by digests."""

import hashlib
import json
import os
from collections.abc import Mapping

from mmengine.evaluator import Evaluator

from mmcr.engine.checkpoint import file_digest


def digest(options: Mapping | list) -> str:
    text = json.dumps(options, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def data_digest(dataloader: Mapping) -> str:
    """Of what decides the batches, wherever it lies: annotations and options."""
    dataset = dict(dataloader['dataset'])
    root, ann_file = dataset.pop('data_root', None), dataset.pop('ann_file', None)
    path = os.path.join(root or '', ann_file or '')
    return digest(
        dict(
            dataset=dataset,
            batch_size=dataloader.get('batch_size', 1),
            # of a remote file the name must do
            annotations=file_digest(path) if os.path.isfile(path) else ann_file,
        )
    )


def metrics_digest(evaluator: Evaluator | dict | list) -> str | None:
    """Of the options that values depend on.

    The annotation file is that of the data, and all backends give the same values.
    """
    if isinstance(evaluator, Evaluator):
        return None
    metrics = [evaluator] if isinstance(evaluator, Mapping) else evaluator
    return digest(
        [
            {k: v for k, v in metric.items() if k not in ('ann_file', 'backend')}
            for metric in metrics
        ]
    )
