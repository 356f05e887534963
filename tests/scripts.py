"""Runs a script of the project as a user does."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / 'benchmarks'


def run_script(script: Path | str, *arguments) -> subprocess.CompletedProcess:
    """In a process of one thread, with what it says as text."""
    path = f'{ROOT}:{os.environ.get("PYTHONPATH", "")}'
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        check=False,
    )
