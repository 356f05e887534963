"""A small part of the campaigns, each time."""

import pytest

from . import flips, kills
from .works import searches

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


def test_kills(tmp_path):
    works = [work for work in searches() if work.name in ('racing', 'joint')]
    rows = kills.campaign(works, tmp_path / 'kills', count=12, seed=5)
    assert [row['faults'] for row in rows] == [[], []]
    assert sum(row['kills'] for row in rows) >= 12
    assert '| racing |' in kills.table(rows)


def test_flips(tmp_path):
    found = flips.readers(tmp_path, kinds=('greedy',))
    chosen = [r for r in found if r.path.name in ('trials.jsonl', 'best_arch.json')]
    verdicts = flips.campaign(chosen, count=45, seed=5)
    assert len(verdicts) == 3
    for counts in verdicts.values():
        assert counts['noticed'] + counts['harmless'] == 15, verdicts
    assert '| in all |' in flips.table(verdicts)
