import json

import pytest

from mmcr.cost.complexity import Complexity, Cost
from mmcr.report.comparison import (
    Contestant,
    Row,
    coco_points,
    in_short,
    write_comparison,
)
from mmcr.report.paired import Difference, verdict
from mmcr.report.sketch import DILATIONS, KINDS


def row(name, ap, macs=2_000_000_000, params=3_000_000, values=None, legend=DILATIONS):
    costs = {'backbone': Cost(macs - 5, params - 5), 'neck': Cost(5, 5)}
    metrics = {
        'coco/bbox_mAP': ap,
        'coco/bbox_mAP_50': 0.5,
        'coco/bbox_mAP_s': -1.0,
        'time': float('nan'),
    }
    complexity = Complexity(costs, (64, 64), 'mmengine', {})
    costs = dict(complexity=complexity, metrics=metrics)
    return Row(name, (1, 2), values, legend=legend, **costs)


class TestComparison:
    def test_points(self):
        metrics = {
            'coco/bbox_mAP': 0.25,
            'bbox_mAP_s': -1.0,
            'coco/bbox_mAP_m': float('nan'),
            'coco/bbox_mAP_l': None,
            'coco/segm_mAP_75': 0.3,
        }
        unknown = dict.fromkeys(('AP50', 'AP75', 'APs', 'APm', 'APl'))
        assert coco_points(metrics) == {'AP': 25.0, **unknown}

    ahead = Difference([-1.0, -1.5])

    def test_the_table_to_the_letter(self, tmp_path):
        rows = [
            row('base | line', 0.31234),
            row('found', 0.30, 45_000_000, 3_500_000, ((1,), (2, 3))),
        ]
        text = write_comparison(rows, tmp_path / 'new', self.ahead)
        assert text == (tmp_path / 'new/comparison.md').read_text()
        assert text.splitlines()[2:4] == [
            r'| base \| line | [1, 2] | 1 11 | 31.23 | 50.00 | - | - | - | - | - '
            '| 2.00 G | 3.00 M |',
            '| found | [1, 2] | 1 23 | 30.00 | 50.00 | - | - | - | - | −1.23 '
            '| 45.0 M | 3.50 M |',
        ]
        said = verdict('found', 'base | line', self.ahead)
        assert f'**Verdict.** {said}' in text
        assert rows[0].complexity.conditions in text
        assert 'Dilations block by block, a space between stages. MACs:' in text
        assert 'means over 2 seeds that had no part' in text
        assert 'by seed: -1.00, -1.50.' in text
        costs = 'It has 2.2% of the MACs of base | line and 116.7% of its parameters.'
        assert text.endswith(f'{costs}\n')
        assert rows[1].caption == '45.0 M MACs  ·  3.50 M params  ·  30.00 AP'

    def test_the_json_file(self, tmp_path):
        rows = [row('baseline', 0.3), row('found', 0.4, values=(1, 2))]
        write_comparison(rows, tmp_path, Difference([9.0, 11.0]), use='a.py')
        found = json.loads((tmp_path / 'comparison.json').read_text())
        assert found['baseline'] == 'baseline' and found['use'] == 'a.py'
        assert found['verdict'].startswith('No difference between found and baseline')
        assert found['kind'] == 'undecided' and found['difference']['value'] == 10
        assert found['difference']['by_seed'] == [9, 11]
        network = found['networks'][1]
        assert network['dilations'] == [[1], [2, 2]]
        assert network['parts']['neck'] == {'macs': 5, 'params': 5}
        assert network['points']['AP'] == pytest.approx(40)
        assert network['ap_difference'] == pytest.approx(10)
        assert network['metrics']['time'] is None

    def test_of_kinds_of_blocks(self, tmp_path):
        rows = [
            row('ShuffleNetV2', 0.3, values=(0, 0), legend=KINDS),
            row('DetNAS', 0.4, values=((3,), (2, 1)), legend=KINDS),
        ]
        text = write_comparison(rows, tmp_path, Difference([10.0]))
        header, _, plain, found = text.splitlines()[:4]
        assert header.startswith('| network | stages | kinds | AP |')
        assert plain.startswith('| ShuffleNetV2 | [1, 2] | 3 33 |')
        assert found.startswith('| DetNAS | [1, 2] | X 75 |')
        assert f'Kinds block by block, a space between stages: {KINDS.title}.' in text
        record = json.loads((tmp_path / 'comparison.json').read_text())
        assert record['networks'][1]['kinds'] == [[3], [2, 1]]
        assert rows[1].text == 'X 75' and '40.00 AP' in rows[1].caption

    def test_the_run_off(self, tmp_path):
        contestants = [
            Contestant('baseline', '1 2', aps=[20.0, 21.0]),
            Contestant('stage_1', '2 1', 0.31, 0.305, [22.0, 23.5]),
            Contestant('stage_2', '1 1', 0.30, 0.304, [19.0, None]),
        ]
        rows = [row('baseline', 0.3), row('found', 0.4)]
        text = write_comparison(rows, tmp_path, Difference([10.0]), contestants)
        lines = text.splitlines()
        assert '| baseline | 1 2 | - | - | 20.00, 21.00 |' in lines
        assert '| stage_2 | 1 1 | 30.00 | 30.40 | 19.00, - |' in lines
        assert 'under the 2 seeds that chose.' in text and 'moves by 0.35 AP' in text
        record = json.loads((tmp_path / 'comparison.json').read_text())
        assert record['run_off'][2]['aps'] == [19.0, None]

    def test_candidates_that_none_was_trained_to_choose_from(self, tmp_path):
        contestants = [Contestant('baseline', '1 2'), Contestant('stage_1', '2 1', 0.3)]
        rows = [row('baseline', 0.3), row('found', 0.4)]
        text = write_comparison(rows, tmp_path, Difference([10.0]), contestants)
        assert 'AP alone: not trained.' in text and 'that chose' not in text


def test_what_was_decided_in_short():
    assert in_short(dict(stage_blocks=(3, 4, 6, 3))) == '3 4 6 3'
    decided = dict(stage_blocks=[1, 2], dilations=[[1], [2, 3]])
    assert in_short(decided) == '1 2; 1 23'
    assert in_short(dict(blocks=[1, (0, 3)])) == '1 03'
