"""The benchmark of evolution against greedy search, at the smallest size."""

import importlib

import pytest
from scripts import BENCHMARKS

from mmcr.space import operation_space


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module('evolution_greedy')


@pytest.mark.parametrize('order', [tuple(range(6)), (0, 3, 1, 4, 2, 5)])
@pytest.mark.parametrize('pairs', [0.0, 0.5])
def test_the_best_of_a_landscape_is_known(benchmark, monkeypatch, order, pairs):
    space = operation_space([2, 2, 2])
    monkeypatch.setattr(benchmark, 'SPACE', space)
    landscape = benchmark.Landscape(3, pairs, order)
    assert landscape.best == pytest.approx(max(map(landscape.score, space)))


def test_searches_are_compared_at_equal_evaluations(benchmark, monkeypatch):
    asked = []
    measured = benchmark.Landscape.measured

    def noted(self, proposal):
        asked[-1].append(proposal.key)
        return measured(self, proposal)

    monkeypatch.setattr(benchmark.Landscape, 'measured', noted)
    landscape = benchmark.Landscape(0, pairs=0.5, noise=0.3)
    for new in benchmark.methods(3, 138).values():
        asked.append([])
        assert 0 <= benchmark.regret(new(0), landscape, 138) < 4
    assert len(asked) == 4
    assert len(asked[0]) == 138 and all(len(keys) >= 138 for keys in asked)


def test_the_table_has_a_row_for_each_search(benchmark, monkeypatch):
    kinds = dict(list(benchmark.LANDSCAPES.items())[:2])
    monkeypatch.setattr(benchmark, 'LANDSCAPES', kinds)
    lines = benchmark.table(1, 2)
    assert lines[0] == '## 48 evaluations' and len(lines) == 9
    assert '| sums | sums, noise |' in lines[2]
