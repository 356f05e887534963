"""Hosts of mmdet's own: what docs/hosts.md says of them is so."""

from pathlib import Path

import pytest

from .table import HOSTS, ON_DEMAND, OUT, QUICK, SLOW
from .trial import page, tried

pytestmark = pytest.mark.usefixtures('quiet_mmdet')

PAGE = Path(__file__).parents[2] / 'docs/hosts.md'


@pytest.mark.parametrize(
    'name', [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_a_host_is_as_the_page_says(name, shapes, tmp_path):
    row = tried(name, shapes, tmp_path)
    assert f'{row.text}\n' in PAGE.read_text()


def test_the_page_has_every_host():
    text = PAGE.read_text()
    rows = [line for line in text.splitlines() if line.startswith('| `')]
    assert [row.split('`')[1] for row in rows] == [*HOSTS, *OUT]
    assert not set(HOSTS) & set(OUT) and set(ON_DEMAND) < set(HOSTS)
    assert text.startswith(page([]).split('| host |')[0])
