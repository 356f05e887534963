import json
from html.parser import HTMLParser
from random import Random

import pytest
from published import detnas_300m

from mmcr.report.report import arch_text, read_search, write_report
from mmcr.report.score_figure import front_figure, score_figure
from mmcr.report.sketch import KINDS
from mmcr.report.slices import ALL, Slices
from mmcr.search import (
    EvolutionSearcher,
    ExhaustiveSearcher,
    GreedySearcher,
    HalvingSearcher,
    JointSearcher,
    Journal,
    JournalError,
    Proposal,
    RacingGreedySearcher,
    Trial,
    run_search,
)
from mmcr.space import (
    Arch,
    Budget,
    Choice,
    SearchSpace,
    block_arch,
    dilation_arch,
    operation_space,
    resnet_stage_space,
)


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


def search(work_dir, searcher, evaluate=evaluate, **more):
    header = dict(
        space=searcher.space.to_json(),
        searcher=searcher.to_json(),
        score='coco/bbox_mAP',
        checkpoint='ab' * 32,
        **more,
    )
    journal = Journal(work_dir / 'trials.jsonl', header)
    return run_search(searcher, evaluate, journal.scores, journal.append)


def cut(work_dir, lines):
    """Leaves the header and so many trials."""
    path = work_dir / 'trials.jsonl'
    path.write_text(''.join(path.read_text().splitlines(keepends=True)[: lines + 1]))


def by_slices(course):
    """Per step, how many candidates were scored on what."""
    return [
        {portions: len(scored) for portions, scored in step.rankings.items()}
        for step in course.steps
    ]


def near(proposals):
    """One candidate of three is far behind, the others are close."""
    for proposal in proposals:
        arch = proposal.candidate.arch
        behind = list(arch.values())[-1:] == [3]
        ap = 0.5 - 0.3 * behind + Random(proposal.key).random() / 10
        yield Trial(proposal, ap, {'coco/bbox_mAP': ap})


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
        (found,) = read_search(tmp_path).courses
        assert by_slices(found) == [{ALL: n} for n in (3, 9, 9, 9)]
        assert len(found.ranking) == 9 and found.ranking[0].score == best.score
        for step, later in zip(found.steps, found.steps[1:]):
            (ranking,) = step.rankings.values()
            assert step.kept == {scored.arch for scored in ranking[:3]}
            assert all(
                any(arch.items() <= scored.arch.items() for arch in step.kept)
                for scored in later.scored
            )
        # of each step the others and the kept ones
        dots = score_figure(found, 'AP', 100).axes[0].collections
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
        (course,) = read_search(tmp_path).courses
        assert len(course.ranking) == 9

    def test_of_a_halving_search(self, tmp_path):
        space = resnet_stage_space(16)
        archval = dict(images=500, batch_size=3)
        best = search(tmp_path, HalvingSearcher(space), archval=archval)
        (found,) = read_search(tmp_path).courses
        first, second = ((0.0, 1 / 16),), ((0.0, 0.25),)
        assert by_slices(found) == [{first: 153}, {second: 39}, {ALL: 10}]
        # a candidate's ranks are among scores of one slice
        for step, later in zip(found.steps, found.steps[1:]):
            (ranking,) = step.rankings.values()
            assert step.kept == {s.arch for s in later.scored}
            assert {s.arch for s in ranking[: len(later.scored)]} == step.kept
        assert found.ranking[0].arch == best.proposal.candidate.arch
        assert {s.portions for s in found.ranking} == {ALL}
        words = Page(write_report(tmp_path).read_text()).words
        assert '153 candidates have been scored, in 202 trials' in words
        # 167 batches of 3, of which 11 begin in the first sixteenth
        for text in ('first 33 of 500 images', 'all 500 images', 'Rungs'):
            assert text in words
        assert ' '.join('1 153 first 33 of 500 images 39'.split()) in ' '.join(
            words.split()
        )

    def test_of_a_halving_search_that_is_running(self, tmp_path):
        search(tmp_path, HalvingSearcher(resnet_stage_space(16)))
        cut(tmp_path, 100)
        (found,) = read_search(tmp_path).courses
        assert not found.finished and not found.ranking
        assert found.steps[0].kept is None and found.steps[0].asked == 153
        words = Page(write_report(tmp_path).read_text()).words
        assert '100 of 153' in words and 'first 6.25% of the images' in words
        assert 'Best architecture' not in words
        search(tmp_path, HalvingSearcher(resnet_stage_space(16)))  # goes on
        cut(tmp_path, 153)
        (found,) = read_search(tmp_path).courses
        assert len(found.steps) == 1 and len(found.steps[0].kept) == 39
        Page(write_report(tmp_path).read_text())

    def test_of_a_racing_search(self, tmp_path):
        searcher = RacingGreedySearcher(operation_space((2, 2)))
        archval = dict(images=100, batch_size=1)
        best = search(tmp_path, searcher, near, archval=archval)
        (found,) = read_search(tmp_path).courses
        # the 3 values of the first choice are all kept, without a score
        *races, final = found.steps
        assert [step.decided for step in found.steps] == [2, 3, 4, 4]
        assert by_slices(found)[-1] == {ALL: 3}
        assert found.ranking[0].arch == best.proposal.candidate.arch
        for step in races:
            assert step.asked == 9 and len(step.kept) == 3
            (most, kept), *dropped = step.rankings.items()
            assert step.kept <= {scored.arch for scored in kept}
            assert len(most) > 5 and ((0.0, 0.1), (0.1, 0.2)) == most[:2]
            # three were far behind at the first look, after 5 slices
            assert min(len(portions) for portions, _ in dropped) == 5
            for portions, scored in step.rankings.items():
                assert {each.portions for each in scored} == {portions}
        words = Page(write_report(tmp_path).read_text()).words
        assert 'slices 1-5 of 10 (50 of 100 images)' in words
        assert 'mean coco/bbox_mAP' in words and '4, final' in words

    def test_of_an_evolution(self, tmp_path):
        searcher = EvolutionSearcher(operation_space((3, 4, 6, 3)), generations=4)
        best = search(tmp_path, searcher)
        (found,) = read_search(tmp_path).courses
        assert by_slices(found) == [{ALL: 50}] * 4 and found.finished
        assert found.ranking[0].arch == best.proposal.candidate.arch
        scores = []
        for step in found.steps[:-1]:
            scores += [(scored.score, scored.arch) for scored in step.scored]
            top = {arch for _, arch in sorted(scores, key=lambda s: -s[0])[:10]}
            assert step.kept == top & {scored.arch for scored in step.scored}
        assert found.steps[-1].kept is None
        page = Page(write_report(tmp_path).read_text())
        words = ' '.join(page.words.split())
        assert 'Generations' in words and 'best in score of all before it' in words
        assert f'1 50 all images {len(found.steps[0].kept)}' in words
        assert 'Front' not in words

    def test_of_a_search_for_a_front(self, tmp_path):
        space = detnas_300m().under(Budget(0, 300e6))
        searcher = EvolutionSearcher(space, generations=3, pareto=True)
        search(tmp_path, searcher)
        cut(tmp_path, 120)
        (found,) = read_search(tmp_path).courses
        assert not found.finished and len(found.ranking) == 120
        search(tmp_path, EvolutionSearcher(space, generations=3, pareto=True))
        (found,) = read_search(tmp_path).courses
        front = searcher.front()
        assert [scored.arch for scored in found.front] == [
            trial.proposal.candidate.arch for trial in front
        ]
        page = Page(write_report(tmp_path).read_text())
        words = ' '.join(page.words.split())
        for i, trial in enumerate(front):
            arch = trial.proposal.candidate.arch
            text = arch_text(arch, KINDS)
            row = f'{i} {text} {space.cost_of(arch):,} {100 * trial.score:.2f}'
            assert row in words
        assert page.tags.count('svg') == 3
        assert 'Xception block' in words and 'dilation' not in words
        others, dots = front_figure(found, 'AP', 100).axes[0].collections
        assert len(dots.get_offsets()) == len(front)
        assert len(others.get_offsets()) == 150 - len(front)

    def test_of_several_budgets(self, tmp_path):
        kinds = dict(budget_8=HalvingSearcher, budget_16=HalvingSearcher)
        joint = JointSearcher(
            {
                name: kind(resnet_stage_space(int(name.split('_')[1])))
                for name, kind in kinds.items()
            }
        )
        search(tmp_path, joint)
        assert not read_search(tmp_path).finished
        for name in kinds:
            (tmp_path / name).mkdir()
            (tmp_path / name / 'best_arch.json').write_text('{}')
        found = read_search(tmp_path)
        assert found.finished
        for course, best in zip(found.courses, joint.bests().values()):
            assert course.ranking[0].arch == best.proposal.candidate.arch
            blocks = int(course.name.split('_')[1])
            assert {sum(s.arch.values()) for s in course.steps[0].scored} == {blocks}
        page = Page(write_report(tmp_path).read_text())
        assert page.tags.count('svg') == 4
        words = ' '.join(page.words.split())
        for course in found.courses:
            text = arch_text(course.ranking[0].arch)
            assert f'{len(course.steps[0].scored)} {text}' in words
        assert 'Budget 8 ' in words and 'Budget 16 ' in words
        assert 'searcher.searchers.budget_8.kind halving' in words

    def test_of_overlapping_budgets(self, tmp_path):
        costs = {'a': {1: 1, 2: 2}, 'b': {1: 10, 2: 20}}
        choices = [Choice(name, tuple(row)) for name, row in costs.items()]

        def cost(name, value):
            return costs[name][value]

        budgets = dict(x=Budget(11, 12), y=Budget(12, 21))
        known = {
            name: {str(v): cost for v, cost in row.items()}
            for name, row in costs.items()
        }
        joint = JointSearcher(
            {
                name: ExhaustiveSearcher(SearchSpace(choices, cost, budget))
                for name, budget in budgets.items()
            }
        )
        own = joint.to_json()
        for searcher in own['searchers'].values():
            searcher['space']['costs'] = known
        joint.to_json = lambda: own
        search(tmp_path, joint)
        found = read_search(tmp_path)
        assert found.trials == 3
        assert [
            {sum(cost(*item) for item in s.arch.items()) for s in course.ranking}
            for course in found.courses
        ] == [{11, 12}, {12, 21}]
        assert '11 to 12' in Page(write_report(tmp_path).read_text()).words
        path = tmp_path / 'trials.jsonl'
        # without the costs nobody can say which budget a candidate meets
        path.write_text(path.read_text().replace('"costs"', '"other"'))
        (course,) = read_search(tmp_path).courses
        assert len(course.ranking) == 3
        for name in budgets:
            assert not read_search(tmp_path).finished
            (tmp_path / name).mkdir()
            (tmp_path / name / 'best_arch.json').write_text('{}')
        assert read_search(tmp_path).finished

    def test_of_a_search_of_another_kind(self, tmp_path):
        class Odd(HalvingSearcher):
            def to_json(self):
                return {**super().to_json(), 'kind': 'odd'}

        best = search(tmp_path, Odd(resnet_stage_space(16)))
        (found,) = read_search(tmp_path).courses
        assert [len(step.scored) for step in found.steps] == [153, 39, 10]
        assert found.ranking[0].arch == best.proposal.candidate.arch
        assert 'odd' in Page(write_report(tmp_path).read_text()).words

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
        assert arch_text(block_arch(((0,), (2, 3))), KINDS) == '3 7X'
        assert arch_text(Arch({'kernel': 3})) == 'kernel=3'

    def test_slices_in_words(self):
        thirds = ((0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.0))
        # 4 batches of 2, 2, 2 and 1 images, beginning at 0, 1/4, 1/2 and 3/4
        slices = Slices(7, 2)
        assert slices.words(ALL) == 'all 7 images'
        assert slices.words(((0.0, 0.25),)) == 'first 2 of 7 images'
        assert slices.words(((0.0, 0.26),)) == 'first 4 of 7 images'
        assert slices.words(thirds[:1]) == 'first 4 of 7 images'
        assert slices.words(thirds[:2]) == 'slices 1-2 of 3 (6 of 7 images)'
        assert slices.words(thirds[::2]) == 'slices 1, 3 of 3 (5 of 7 images)'
        assert slices.words(thirds) == 'slices 1-3 of 3 (all 7 images)'
        assert Slices().words(ALL) == 'all images'
        assert Slices().words(thirds[1:]) == 'slices 2-3 of 3'
