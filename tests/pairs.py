"""Processes that work together, mostly two, and an end to their waiting."""

import json
import time

import pytest
import torch

from mmcr.launch import import_formatter


def run_pair(work, root, folder, seconds, count=2):
    """What each rank wrote to its file; a hang ends after so many seconds."""
    import_formatter()  # or all write its cache at once
    processes = torch.multiprocessing.spawn(
        work, (root, folder), nprocs=count, join=False
    )
    deadline = time.monotonic() + seconds
    while not processes.join(max(0, deadline - time.monotonic())):
        if time.monotonic() > deadline:
            for process in processes.processes:
                process.kill()
            pytest.fail(f'no end after {seconds} s')
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in range(count)]
