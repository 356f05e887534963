"""Fixtures that several test modules share; imports nothing heavy by itself."""

import pytest


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
