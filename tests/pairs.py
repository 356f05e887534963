"""Processes that work together, mostly two, and an end to their waiting."""

import json
import multiprocessing
import os
import sys
import time
from contextlib import contextmanager
from multiprocessing import forkserver

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmcr.cli import leave_process_group
from mmcr.engine.launch import import_formatter


def quiet():
    """For a process of a test: one thread, mmdet's names, no log."""
    torch.set_num_threads(1)
    MMLogger.get_instance('quiet', log_level='ERROR')
    init_default_scope('mmdet')


@contextmanager
def one_of(world, rank, folder):
    """Inside, this process is one of a gloo group that waits for each other's end."""
    quiet()
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world
    )
    yield
    torch.distributed.barrier()
    leave_process_group()


def forked(module):
    """Starts forks of a process that has the imports of a test module already."""
    import_formatter()  # or all write its cache at once
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([module])
    with pytest.MonkeyPatch.context() as patched:
        # the server imports before it is told of the path
        patched.setenv('PYTHONPATH', os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


def run_pair(work, root, folder, seconds, count=2, preload=None):
    """What each rank wrote to its file; a hang ends after so many seconds.

    The processes are forks of one with the imports of `preload`, the test module.
    """
    forked(preload or work.__module__)
    processes = torch.multiprocessing.start_processes(
        work, (root, folder), nprocs=count, join=False, start_method='forkserver'
    )
    deadline = time.monotonic() + seconds
    while not processes.join(max(0, deadline - time.monotonic())):
        if time.monotonic() > deadline:
            for process in processes.processes:
                process.kill()
            pytest.fail(f'no end after {seconds} s')
    return [json.loads((folder / f'{rank}.json').read_text()) for rank in range(count)]
