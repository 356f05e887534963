"""What every tool does before its runner is built."""

import os
import subprocess
import sys

import pytest

IMPORT = """
from mmcr.engine.launch import import_formatter
print('runs', flush=True)
import_formatter({})
"""


def formatter_process(cache, seconds):
    process = subprocess.Popen(
        [sys.executable, '-c', IMPORT.format(seconds)],
        env={**os.environ, 'XDG_CACHE_HOME': str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert 'runs\n' in process.stdout  # after what others say
    return process


@pytest.mark.skipif(sys.platform != 'linux', reason='caches lie elsewhere')
def test_a_half_written_cache_of_the_formatter_is_waited_for(tmp_path):
    """But a broken one not forever."""
    process = formatter_process(tmp_path, 0)
    assert process.wait() == 0, process.stderr.read()
    tables = max(tmp_path.rglob('*.pickle'), key=lambda path: path.stat().st_size)
    whole = tables.read_bytes()

    tables.write_bytes(whole[: len(whole) // 2])
    process = formatter_process(tmp_path, 60)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)
    tables.write_bytes(whole)
    assert process.wait(60) == 0, process.stderr.read()

    tables.write_bytes(b'')
    process = formatter_process(tmp_path, 0)
    assert 'Remove that folder' in process.communicate(timeout=60)[1]
    assert process.returncode != 0
