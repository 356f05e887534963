"""Runs a script of the project as a user does."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / 'benchmarks'


def run_script(script: Path, *arguments) -> subprocess.CompletedProcess:
    """In a process of one thread, with what it says as text."""
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
