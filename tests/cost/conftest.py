"""Runs tools of this room."""

import runpy
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools/analysis_tools'


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Runs a tool in this process and returns what it prints."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        runpy.run_path(str(TOOLS / name), run_name='__main__')
        return capsys.readouterr().out

    return run
