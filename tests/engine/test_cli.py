"""How a tool that goes on later ends."""

import signal
import subprocess
import sys

import pytest

SLEEPS = """
import time
from mmcr.cli import resumable
with resumable():
    print('runs', flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_tool_says_that_it_goes_on(number):
    tool = subprocess.Popen(
        [sys.executable, '-c', SLEEPS],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # what a shell starts in the background ignores it, and so would the tool
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert tool.stdout.readline() == 'runs\n'
    tool.send_signal(number)
    _, said = tool.communicate(timeout=30)
    assert said == 'stopped; the same command goes on from here\n'
    assert tool.returncode == 1
