"""Fixtures that several test modules share; imports nothing heavy by itself."""

import os
import sys
from threading import RLock

import pytest


def pytest_collection_modifyitems(items):
    """Files with slow tests first: one that starts last keeps a process alone.

    Tests marked `long` are left out where CI is set.
    """
    if os.environ.get('CI'):
        skip = pytest.mark.skip(reason='for want of time: make test runs it')
        for item in items:
            if item.get_closest_marker('long'):
                item.add_marker(skip)
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _free_lock():
    """mmengine keeps its lock when what it makes or looks for raises.

    The next thread of the same process that wants it, as that of a step which runs in
    this process, would wait for good.
    """
    if manager := sys.modules.get('mmengine.utils.manager'):
        manager._lock = RLock()


@pytest.fixture(scope='session')
def quiet_mmdet():
    """mmdet's names, without a log line per tensor that `init_weights` fills."""
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    MMLogger.get_instance('quiet', log_level='ERROR')
    init_default_scope('mmdet')


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """Folder of a data set with the splits archtrain and archval."""
    from tiny import write_data

    return write_data(tmp_path_factory.mktemp('shapes'))


@pytest.fixture(scope='session')
def supernets(shapes, quiet_mmdet):
    """The same folder, with checkpoints of both small supernets."""
    from tiny import OPERATION, STAGE, write_checkpoint

    for backbone in (STAGE, OPERATION):
        write_checkpoint(shapes / f'{backbone["supernet"]}.pth', backbone)
    return shapes


@pytest.fixture(scope='module')
def workplace(tmp_path_factory):
    """A folder with the demo's data set, as small as it gets, and a user's config."""
    from config_files import write_workplace

    folder = tmp_path_factory.mktemp('workplace')
    write_workplace(folder)
    return folder
