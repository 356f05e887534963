"""What the journal of a search tells, and the page that shows it."""

import json
from html.parser import HTMLParser
from random import Random

import pytest
from pages import Page, evaluate, search
from published import detnas_300m

from mmcr.report import write_report
from mmcr.report.pages.search_page import Search, read_search
from mmcr.report.score_figure import front_figure, score_figure
from mmcr.report.slices import ALL, Slices
from mmcr.search import (
    Complete,
    EvolutionSearcher,
    ExhaustiveSearcher,
    GreedySearcher,
    HalvingSearcher,
    JointSearcher,
    Journal,
    JournalError,
    ListedSearcher,
    Proposal,
    RacingGreedySearcher,
    Trial,
    UnrankedError,
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


def cut(work_dir, lines):
    """Leaves the header and so many trials."""
    path = work_dir / 'trials.jsonl'
    path.write_text(''.join(path.read_text().splitlines(keepends=True)[: lines + 1]))


def without_rounds(work_dir):
    """Makes the journal what it was before trials had rounds."""
    path = work_dir / 'trials.jsonl'
    header, *entries = map(json.loads, path.read_text().splitlines())
    for line in (header, *entries):
        line.pop('crc32', None)
    searchers = header['searcher'].get('searchers', {})
    for searcher in (header['searcher'], *searchers.values()):
        searcher.pop('about', None)
    for entry in entries:
        del entry['round']
        entry.pop('asked_by', None)
    path.write_text(''.join(f'{json.dumps(line)}\n' for line in (header, *entries)))


def by_budget(kind, *budgets):
    return JointSearcher({f'budget_{n}': kind(resnet_stage_space(n)) for n in budgets})


def by_slices(history):
    """Per step, how many candidates were scored on what."""
    return [
        {slices: len(scored) for slices, scored in step.rankings.items()}
        for step in history.steps
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
        space = resnet_stage_space(16)
        best = search(work_dir, ExhaustiveSearcher(space), finish=False)
        path = write_report(work_dir)
        assert path == work_dir / 'report.html'
        page = Page(path)
        assert not page.loads and not {'script', 'link', 'b'} & set(page.tags)
        assert page.tags.count('svg') == 2
        assert 'a <b> & c' in page.words and 'not finished' in page.words
        assert '153 candidates' in page.words and '153 in all' in page.words
        blocks = list(best.proposal.candidate.arch.values())
        assert f'τ = {blocks}' in page.words and 'baseline' not in page.words
        row = f'1 {blocks} {100 * best.score:.2f} {50 * best.score:.2f}'
        assert row in page.words and 'APs' not in page.words
        assert 'abababababab…' in page.words and 'exhaustive' in page.words

        (history,) = read_search(work_dir).histories
        last = history.ranking[-1].arch
        words = Page(write_report(work_dir, baseline=last)).words
        assert f'153 {list(last.values())} (baseline)' in words

    def test_of_a_list_and_not_of_an_earlier_search(self, tmp_path):
        searcher = ListedSearcher(resnet_stage_space(8), [[2, 2, 2, 2], [1, 3, 2, 2]])
        search(tmp_path, searcher)
        (history,) = read_search(tmp_path).histories
        assert len(history.ranking) == 2 and history.budget == (8, 8)
        assert 'has finished' in Page(write_report(tmp_path)).words
        (tmp_path / 'trials.jsonl').unlink()
        search(tmp_path, ExhaustiveSearcher(resnet_stage_space(9)), finish=False)
        assert not read_search(tmp_path).finished

    def test_of_a_greedy_search(self, tmp_path):
        best = search(tmp_path, GreedySearcher(operation_space((1, 2, 1))))
        page = Page(write_report(tmp_path))
        assert 'has finished' in page.words and 'stage1.0 to stage3.0' in page.words
        assert GreedySearcher.about['method'] in page.words
        found = read_search(tmp_path)
        assert found.baseline == Arch(dict.fromkeys(best.proposal.candidate.arch, 1))
        assert f'1 {found.text(best.proposal.candidate.arch)} ' in page.words
        (history,) = found.histories
        assert by_slices(history) == [{ALL: n} for n in (3, 9, 9, 9)]
        assert len(history.ranking) == 9 and history.ranking[0].score == best.score
        for step, later in zip(history.steps, history.steps[1:]):
            (ranking,) = step.rankings.values()
            assert step.kept == {scored.arch for scored in ranking[:3]}
            assert all(
                any(arch.items() <= scored.arch.items() for arch in step.kept)
                for scored in later.scored
            )
        # of each step the others and the kept ones
        dots = score_figure(history, 'AP', 100).axes[0].collections
        assert [len(each.get_offsets()) for each in dots] == [0, 3, 6, 3, 6, 3, 8, 1]

    def test_of_a_search_that_is_writing(self, tmp_path):
        search(tmp_path, GreedySearcher(operation_space((1, 2))), finish=False)
        path = tmp_path / 'trials.jsonl'
        lines = path.read_text().splitlines(keepends=True)
        for text, trials in ((lines[0], 0), (''.join(lines[:3]) + lines[3][:30], 2)):
            path.write_text(text)
            page = Page(write_report(tmp_path))
            assert f'{trials} candidates' in page.words
            assert 'Best architecture' not in page.words

    def test_of_a_halving_search(self, tmp_path):
        archval = dict(images=500, batch_size=3)
        searcher = HalvingSearcher(resnet_stage_space(16))
        best = search(tmp_path, searcher, archval=archval)
        (history,) = read_search(tmp_path).histories
        first, second = ((0.0, 1 / 16),), ((0.0, 0.25),)
        assert by_slices(history) == [{first: 153}, {second: 39}, {ALL: 10}]
        # a candidate's ranks are among scores of one slice
        for step, later in zip(history.steps, history.steps[1:]):
            (ranking,) = step.rankings.values()
            assert step.kept == {s.arch for s in later.scored}
            assert {s.arch for s in ranking[: len(later.scored)]} == step.kept
        assert history.ranking[0].arch == best.proposal.candidate.arch
        words = Page(write_report(tmp_path)).words
        assert '153 candidates have been scored, in 202 trials' in words
        # 167 batches of 3, of which 11 begin in the first sixteenth
        for text in (' 153 39 4 first 33 of 500 images', 'all 500 images', 'Rungs'):
            assert text in words

    def test_of_a_halving_search_that_is_running(self, tmp_path):
        searcher = HalvingSearcher(resnet_stage_space(16))
        search(tmp_path, searcher, finish=False)
        cut(tmp_path, 160)
        (history,) = read_search(tmp_path).histories
        assert [len(step.scored) for step in history.steps] == [153, 7]
        assert not history.ranking and {step.kept for step in history.steps} == {None}
        words = Page(write_report(tmp_path)).words
        assert 'not finished' in words and 'first 6.25% of the images' in words
        assert 'Best architecture' not in words

    def test_of_a_racing_search(self, tmp_path):
        searcher = RacingGreedySearcher(operation_space((2, 2)))
        archval = dict(images=100, batch_size=1)
        best = search(tmp_path, searcher, near, archval=archval)
        (history,) = read_search(tmp_path).histories
        # the 3 values of the first choice are all kept, without a score
        *races, final = history.steps
        assert [step.decided for step in history.steps] == [2, 3, 4, 4]
        assert by_slices(history)[-1] == {ALL: 3}
        assert history.ranking[0].arch == best.proposal.candidate.arch
        for step in races:
            assert len(step.scored) == 9 and len(step.kept) == 3
            (most, kept), *dropped = step.rankings.items()
            assert step.kept <= {scored.arch for scored in kept}
            assert len(most) > 5 and ((0.0, 0.1), (0.1, 0.2)) == most[:2]
            # three were far behind at the first look, after 5 slices
            assert min(len(slices) for slices, _ in dropped) == 5
        words = Page(write_report(tmp_path)).words
        assert 'slices 1-5 of 10 (50 of 100 images)' in words and 'mean AP' in words

    def test_of_an_evolution(self, tmp_path):
        searcher = EvolutionSearcher(operation_space((3, 4, 6, 3)), generations=4)
        best = search(tmp_path, searcher)
        (history,) = read_search(tmp_path).histories
        assert by_slices(history) == [{ALL: 50}] * 4
        assert history.ranking[0].arch == best.proposal.candidate.arch
        scores = []
        for step in history.steps[:-1]:
            scores += [(scored.score, scored.arch) for scored in step.scored]
            top = {arch for _, arch in sorted(scores, key=lambda s: -s[0])[:10]}
            assert step.kept == top & {scored.arch for scored in step.scored}
        assert history.steps[-1].kept is None
        words = Page(write_report(tmp_path)).words
        assert 'Generations' in words and 'parents of the next' in words
        assert f' 50 {len(history.steps[0].kept)} 16 all images' in words
        assert 'Front' not in words

    def test_of_a_search_for_a_front(self, tmp_path):
        space = detnas_300m().under(Budget(0, 300e6))
        searcher = EvolutionSearcher(space, generations=3, pareto=True)
        search(tmp_path, searcher)
        cut(tmp_path, 120)
        (history,) = read_search(tmp_path).histories
        assert len(history.ranking) == 120
        search(tmp_path, EvolutionSearcher(space, generations=3, pareto=True))
        found = read_search(tmp_path)
        (history,) = found.histories
        front = searcher.front()
        assert [scored.arch for scored in history.front] == [
            trial.proposal.candidate.arch for trial in front
        ]
        alone = EvolutionSearcher(space, generations=3, pareto=True)
        alone.tell(list(evaluate(alone.ask())))
        assert history.steps[0].kept == {
            trial.proposal.candidate.arch for trial in alone.parents()
        }
        page = Page(write_report(tmp_path))
        for i, trial in enumerate(front):
            arch = trial.proposal.candidate.arch
            cost = f'{space.cost_of(arch):,}'
            row = f'{i} {found.text(arch)} {100 * trial.score:.2f} {cost}'
            assert row in page.words
        assert page.tags.count('svg') == 3
        assert 'Xception block' in page.words and 'dilation' not in page.words
        others, dots = front_figure(history, 'AP', 100).axes[0].collections
        assert len(dots.get_offsets()) == len(front)
        assert len(others.get_offsets()) == 150 - len(front)

    def test_of_several_budgets(self, tmp_path):
        joint = by_budget(HalvingSearcher, 8, 16)
        search(tmp_path, joint)
        found = read_search(tmp_path)
        assert found.finished
        page = Page(write_report(tmp_path))
        assert page.tags.count('svg') == 4
        for history, searcher in zip(found.histories, joint.searchers.values()):
            best = searcher.best()
            arch = best.proposal.candidate.arch
            assert history.ranking[0].arch == arch
            blocks = int(history.name.split('_')[1])
            assert {sum(s.arch.values()) for s in history.steps[0].scored} == {blocks}
            count = len(history.steps[0].scored)
            shown = f'{found.text(arch)} {100 * best.score:.2f}'
            assert f'{blocks} {shown} {blocks} {count}' in page.words
            assert f'Budget {blocks} ' in page.words
        assert 'searcher.searchers.budget_8.kind halving' in page.words
        (tmp_path / 'budget_8/best_arch.json').unlink()
        assert not read_search(tmp_path).finished

    def test_of_overlapping_budgets(self, tmp_path):
        """What another search asked before is told in its own round as well."""
        costs = {'a': {1: 1, 2: 2}, 'b': {1: 10, 2: 20}}
        choices = [Choice(name, tuple(row)) for name, row in costs.items()]

        def space(low, high):
            return SearchSpace(choices, lambda n, v: costs[n][v], Budget(low, high))

        joint = JointSearcher(
            dict(
                x=ExhaustiveSearcher(space(11, 12)),
                y=HalvingSearcher(space(12, 22), rungs=2, finalists=2),
            )
        )

        def cheap_first(proposals):
            for proposal in proposals:
                arch = proposal.candidate.arch
                yield Trial(proposal, -sum(costs[n][v] for n, v in arch.items()))

        search(tmp_path, joint, cheap_first)
        found = read_search(tmp_path)
        of_both = Arch({'a': 2, 'b': 1})
        of_x, of_y = found.histories
        assert [scored.arch for scored in of_x.ranking][1] == of_both
        assert [len(step.scored) for step in of_y.steps] == [3, 2]
        assert of_y.ranking[0].arch == of_both and of_both in of_y.steps[0].kept
        assert found.trials == 2 + 3 + 1
        assert '11 to 12' in Page(write_report(tmp_path)).words

    @pytest.mark.parametrize(
        'new, steps',
        [
            (lambda: HalvingSearcher(resnet_stage_space(16)), [[153, 39, 10]]),
            (lambda: GreedySearcher(operation_space((1, 2, 1))), [[3, 9, 9, 9]]),
            (lambda: RacingGreedySearcher(operation_space((2, 2))), [[9, 9, 9, 3]]),
            (lambda: EvolutionSearcher(operation_space((2, 2)), 5, 4, 3, 2, 2), [[20]]),
            (lambda: by_budget(ExhaustiveSearcher, 8, 9), [[25]]),
        ],
    )
    def test_of_a_journal_of_before_rounds(self, tmp_path, new, steps):
        """It goes on, and is told as far as its entries say."""
        best = search(tmp_path, new(), finish=False)
        without_rounds(tmp_path)
        for lines in (10**9, 7):
            cut(tmp_path, lines)
            assert search(tmp_path, new()) == best
            found = read_search(tmp_path)
            assert [[len(s.scored) for s in h.steps] for h in found.histories] == steps
            assert found.histories[0].ranking[0].score == best.score
            page = Page(write_report(tmp_path))
            assert found.text(best.proposal.candidate.arch) in page.words

    def test_damaged_or_missing(self, tmp_path):
        with pytest.raises(JournalError, match='holds trials.jsonl'):
            write_report(tmp_path)
        for text, words in (
            ('{}\n', 'begin with the header'),
            ('{}\n{"candidate": 1\n{}\n', 'Line 2 of .* is damaged'),
        ):
            (tmp_path / 'trials.jsonl').write_text(text)
            with pytest.raises(JournalError, match=words):
                write_report(tmp_path)


@pytest.mark.parametrize(
    'arch, values, text',
    [
        (Arch({'stage1': 3, 'stage2': 4}), (1, 2), '[3, 4]'),
        (dilation_arch(((1,), (2, 3))), (1, 2), '1 23'),
        (block_arch(((0,), (2, 3))), (0, 1), '3 7X'),
        (Arch({'kernel': 3}), (1, 3), 'kernel=3'),
    ],
)
def test_architectures_in_words(arch, values, text):
    header = dict(space=dict(choices=dict.fromkeys(arch, values)))
    assert Search('', header, [], 0, 0, False).text(arch) == text


def test_slices_in_words():
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


def renamed(value, text):
    """JSON with a text at the end of every string of it, and of every name."""
    if isinstance(value, dict):
        return {f'{k}': renamed(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(v, text) for v in value]
    return value + text if isinstance(value, str) else value


class Tags(HTMLParser):
    """The names of a page's tags and of their attributes."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def handle_starttag(self, tag, attrs):
        self.seen |= {tag, *dict(attrs)}


@pytest.mark.parametrize('kind', ['exhaustive', 'evolution', 'joint'])
def test_no_text_of_the_journal_is_markup(tmp_path, kind):
    script = '<script>alert("$\\frac$")</script>\' onload="x'
    choices = [Choice(f'{name}{script}', (1, 2)) for name in 'abc']
    space = SearchSpace(choices, lambda name, value: value, Budget(3, 5))
    searcher = dict(
        exhaustive=lambda: ExhaustiveSearcher(space),
        evolution=lambda: EvolutionSearcher(
            space, 3, 2, top=2, mutations=1, crossovers=1, pareto=True
        ),
        joint=lambda: JointSearcher({'budget': ExhaustiveSearcher(space)}),
    )[kind]()
    if kind == 'joint':
        searcher.searchers = {
            f'budget_{script.replace("/", "")}': searcher.searchers['budget']
        }
    texts = renamed(
        {**searcher.to_json(), 'unit': 'unit', 'about': EvolutionSearcher.about}, script
    )
    header = dict(
        space=space.to_json(),
        searcher=texts,
        score=f'AP{script}',
        other={script: [script]},
    )
    if kind == 'evolution':
        header['searcher']['costs'] = space.costs_to_json()
    journal = Journal(tmp_path / 'trials.jsonl', header)
    run_search(
        searcher,
        lambda ps: (Trial(p, Random(p.key).random(), {script: 1.0}) for p in ps),
        {},
        journal.append,
    )
    page = write_report(tmp_path).read_text()
    tags = Tags()
    tags.feed(page)
    assert 'svg' in tags.seen and not {'script', 'onload'} & tags.seen
    assert '&lt;script&gt;' in page and 'Best architecture' in page


@pytest.mark.parametrize(
    'header',
    [
        dict(space=1, searcher=2),
        dict(space={}, searcher={}),
        dict(space=dict(choices=[], budget=None), searcher=dict(kind='a')),
        dict(space=dict(choices={'a': [1]}, budget=3), searcher=dict(kind='a')),
        dict(space=dict(choices={'a': [1]}, budget=None), searcher=dict(searchers=[1])),
        dict(space=dict(choices={'a': 1}, budget=None), searcher={}),
        dict(
            space=dict(choices={'a': [1]}, budget=None),
            searcher=dict(about='x'),
            score=5,
        ),
    ],
)
def test_a_header_of_something_else_is_said(tmp_path, header):
    journal = Journal(tmp_path / 'trials.jsonl', header)
    journal.append(Trial(Proposal(Complete(Arch({'a': 1}))), 1.0))
    with pytest.raises(JournalError, match='must begin with the header of a search'):
        write_report(tmp_path)


def test_equal_scores_have_no_best(tmp_path):
    space = resnet_stage_space(8)
    with pytest.raises(UnrankedError):
        search(
            tmp_path, ExhaustiveSearcher(space), lambda ps: (Trial(p, -1) for p in ps)
        )
    page = Page(write_report(tmp_path))
    assert (
        'The scores do not tell which architecture is the best: all of 9' in page.words
    )
    assert 'Best architecture' not in page.words


def test_baseline_and_noise_are_drawn_at_their_ranks(tmp_path):
    search(tmp_path, ExhaustiveSearcher(resnet_stage_space(7)))
    (history,) = read_search(tmp_path).histories
    _, second, third, *_ = [each.arch for each in history.ranking]
    bars = {second: (10.0, 20.0)}
    axes = score_figure(history, 'AP', 100, third, bars).axes[0]
    others, first, bar, diamond = axes.collections
    assert first.get_offsets().tolist() == [[1, 100 * history.ranking[0].score]]
    assert bar.get_segments()[0].tolist() == [[2, 10], [2, 20]]
    assert diamond.get_offsets().tolist() == [[3, 100 * history.ranking[2].score]]
    plain = score_figure(history, 'AP', 100).axes[0]
    assert len(plain.collections) == 2 and plain.get_legend() is None
