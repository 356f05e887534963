import json
from html.parser import HTMLParser
from random import Random

import pytest

from mmcr.analysis.comparison import Row, coco_points, verdict, write_comparison
from mmcr.analysis.complexity import Complexity, Cost
from mmcr.analysis.report import arch_text, read_search, score_figure, write_report
from mmcr.errors import UserError
from mmcr.search import (
    ExhaustiveSearcher,
    GreedySearcher,
    Journal,
    JournalError,
    Proposal,
    Trial,
    run_search,
)
from mmcr.space import Arch, dilation_arch, operation_space, resnet_stage_space


def row(name, ap, macs=2_000_000_000, params=3_000_000, dilations=None):
    costs = {'backbone': Cost(macs - 5, params - 5), 'neck': Cost(5, 5)}
    metrics = {
        'coco/bbox_mAP': ap,
        'coco/bbox_mAP_50': 0.5,
        'coco/bbox_mAP_s': -1.0,
        'time': float('nan'),
    }
    return Row(
        name, (1, 2), dilations, Complexity(costs, (64, 64), 'mmengine', {}), metrics
    )


class TestComparison:
    def test_points(self):
        points = coco_points(
            {
                'coco/bbox_mAP': 0.25,
                'bbox_mAP_s': -1.0,
                'coco/bbox_mAP_m': float('nan'),
                'coco/bbox_mAP_l': None,
                'coco/segm_mAP_75': 0.3,
            }
        )
        assert points == {
            'AP': 25.0,
            'AP50': None,
            'AP75': None,
            'APs': None,
            'APm': None,
            'APl': None,
        }

    def test_the_table_to_the_letter(self, tmp_path):
        rows = [
            row('base | line', 0.31234),
            row('found', 0.30, 45_000_000, 3_500_000, ((1,), (2, 3))),
        ]
        text = write_comparison(rows, tmp_path / 'new')
        assert text == (tmp_path / 'new/comparison.md').read_text()
        assert text.splitlines()[2:4] == [
            r'| base \| line | [1, 2] | 1 11 | 31.23 | 50.00 | - | - | - | - | - '
            '| 2.00 G | 3.00 M |',
            '| found | [1, 2] | 1 23 | 30.00 | 50.00 | - | - | - | - | −1.23 '
            '| 45.0 M | 3.50 M |',
        ]
        assert verdict(rows) in text and rows[0].complexity.conditions in text
        assert rows[1].caption == '45.0 M MACs  ·  3.50 M params  ·  30.00 AP'

    def test_the_json_file(self, tmp_path):
        rows = [row('baseline', 0.3), row('found', 0.4, dilations=(1, 2))]
        write_comparison(rows, tmp_path)
        found = json.loads((tmp_path / 'comparison.json').read_text())
        assert found['baseline'] == 'baseline' and found['verdict'] == verdict(rows)
        network = found['networks'][1]
        assert network['dilations'] == [[1], [2, 2]]
        assert network['parts']['neck'] == {'macs': 5, 'params': 5}
        assert network['points']['AP'] == pytest.approx(40)
        assert network['ap_difference'] == pytest.approx(10)
        assert network['metrics']['time'] is None

    @pytest.mark.parametrize(
        'ap, said',
        [
            (0.3251, 'found (32.51 AP) is ahead of baseline (30.00 AP) by 2.51 points'),
            (0.29, 'found (29.00 AP) is behind baseline (30.00 AP) by 1.00 points'),
            (0.30001, 'found is level with baseline at 30.00 AP'),
        ],
    )
    def test_verdict(self, ap, said):
        sentence = verdict([row('baseline', 0.3), row('found', ap, params=6_000_000)])
        assert sentence.startswith(
            said + ', with 100.0% of its MACs and 200.0% of its parameters.'
        )
        assert 'one seed' in sentence and 'may be noise' in sentence

    def test_verdict_without_ap(self):
        sentence = verdict([row('baseline', 0.3), row('found', -1.0)])
        assert sentence == 'found cannot be compared with baseline: there is no AP.'

    def test_no_rows(self, tmp_path):
        with pytest.raises(UserError, match='needs a baseline'):
            write_comparison([], tmp_path)


class Page(HTMLParser):
    """Collects what a page loads, its tags and its words."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.tags, self.words = [], [], ''
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [
            value
            for name, value in attributes
            if name.split(':')[-1] in ('href', 'src') and value[0] != '#'
        ]

    def handle_data(self, data):
        self.words += data + ' '


def evaluate(proposals):
    """Any scores: distinct and reproducible."""
    trials = []
    for proposal in proposals:
        ap = Random(proposal.key).random()
        trials.append(
            Trial(
                proposal,
                ap,
                {
                    'coco/bbox_mAP': ap,
                    'coco/bbox_mAP_50': ap / 2,
                    'coco/bbox_mAP_s': -1.0,
                },
            )
        )
    return trials


def search(work_dir, searcher):
    header = dict(
        space=searcher.space.to_json(),
        searcher=searcher.to_json(),
        score='coco/bbox_mAP',
        checkpoint='ab' * 32,
    )
    journal = Journal(work_dir / 'trials.jsonl', header)
    return run_search(searcher, evaluate, journal.scores, journal.append, 64)


class TestReport:
    def test_of_a_stage_search(self, tmp_path):
        work_dir = tmp_path / 'a <b> & c'
        best = search(work_dir, ExhaustiveSearcher(resnet_stage_space(16)))
        path = write_report(work_dir)
        assert path == work_dir / 'report.html'
        page = Page(path.read_text())
        assert not page.loads and not {'script', 'link', 'b'} & set(page.tags)
        assert page.tags.count('svg') == 2
        assert 'a <b> & c' in page.words and 'not finished' in page.words
        assert '153 candidates' in page.words and 'and 103 more' in page.words
        blocks = list(best.proposal.candidate.arch.values())
        assert f'{blocks}' in page.words and f'τ = {blocks}' in page.words
        assert f'{100 * best.score:.2f}' in page.words
        assert f'{50 * best.score:.2f}' in page.words and 'APs' not in page.words
        assert 'abababababab…' in page.words and 'exhaustive' in page.words

    def test_of_a_finished_greedy_search(self, tmp_path):
        best = search(tmp_path, GreedySearcher(operation_space((1, 2, 1))))
        (tmp_path / 'best_arch.json').write_text('{}')
        page = Page(write_report(tmp_path).read_text())
        assert 'has finished' in page.words and 'stage1.0 to stage3.0' in page.words
        assert arch_text(best.proposal.candidate.arch) in page.words
        found = read_search(tmp_path)
        assert [len(step) for step in found.steps.values()] == [3, 9, 9, 9]
        assert len(found.ranking) == 9 and found.ranking[0].score == best.score
        # of each step the others and the kept ones
        dots = score_figure(found).axes[0].collections
        assert [len(each.get_offsets()) for each in dots] == [0, 3, 6, 3, 6, 3, 8, 1]

    def test_of_a_search_that_is_writing(self, tmp_path):
        search(tmp_path, GreedySearcher(operation_space((1, 2))))
        path = tmp_path / 'trials.jsonl'
        lines = path.read_text().splitlines(keepends=True)
        for text, trials in ((lines[0], 0), (''.join(lines[:3]) + lines[3][:30], 2)):
            path.write_text(text)
            page = Page(write_report(tmp_path).read_text())
            assert f'{trials} candidates' in page.words
            assert 'Best architecture' not in page.words

    def test_a_partial_score_is_not_ranked(self, tmp_path):
        space = resnet_stage_space(8)
        searcher = ExhaustiveSearcher(space)
        search(tmp_path, searcher)
        journal = Journal(
            tmp_path / 'trials.jsonl',
            json.loads((tmp_path / 'trials.jsonl').read_text().splitlines()[0]),
        )
        candidate = ExhaustiveSearcher(space).ask()[0].candidate
        journal.append(Trial(Proposal(candidate, (0.0, 0.5)), 2.0, {}))
        assert len(read_search(tmp_path).ranking) == 9

    def test_damaged_or_missing(self, tmp_path):
        with pytest.raises(JournalError, match='holds trials.jsonl'):
            write_report(tmp_path)
        path = tmp_path / 'trials.jsonl'
        path.write_text('{}\n')
        with pytest.raises(JournalError, match='begin with the header'):
            write_report(tmp_path)
        path.unlink()
        search(tmp_path, ExhaustiveSearcher(resnet_stage_space(8)))
        lines = path.read_text().splitlines()
        path.write_text('\n'.join([*lines[:2], '{"candidate": 1', *lines[2:]]) + '\n')
        with pytest.raises(JournalError, match='Line 3 of .* is damaged'):
            write_report(tmp_path)

    def test_architectures_in_words(self):
        assert arch_text(Arch({'stage1': 3, 'stage2': 4})) == '[3, 4]'
        assert arch_text(dilation_arch(((1,), (2, 3)))) == '1 23'
        assert arch_text(Arch({'kernel': 3})) == 'kernel=3'
