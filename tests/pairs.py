"""Processes that work together, mostly two, and an end to their waiting."""

import json
import multiprocessing
import os
import sys
import time
from multiprocessing import forkserver

import pytest
import torch

from mmcr.launch import import_formatter


def run_pair(work, root, folder, seconds, count=2, preload=None):
    """What each rank wrote to its file; a hang ends after so many seconds.

    With `preload`, the name of a module, they are forks of a process with its imports.
    """
    import_formatter()  # or all write its cache at once
    if preload:
        multiprocessing.set_forkserver_preload([preload])
        with pytest.MonkeyPatch.context() as patched:
            # the server imports before it is told of the path
            patched.setenv('PYTHONPATH', os.pathsep.join(sys.path))
            forkserver.ensure_running()
    processes = torch.multiprocessing.start_processes(
        work,
        (root, folder),
        nprocs=count,
        join=False,
        start_method='forkserver' if preload else 'spawn',
    )
    deadline = time.monotonic() + seconds
    while not processes.join(max(0, deadline - time.monotonic())):
        if time.monotonic() > deadline:
            for process in processes.processes:
                process.kill()
            pytest.fail(f'no end after {seconds} s')
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in range(count)]
