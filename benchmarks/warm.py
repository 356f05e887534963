"""What a supernet that starts from a trained detector gives.

    python benchmarks/warm.py benchmarks/ranking_shapes.py --out warm

trains the detector by its config (or takes that of --from), the warm supernet, searches
it, and trains a cold supernet of the same width for as many iterations. Of the baseline
and of architectures of its cost that are far from each other it then has the AP, under
the same seeds: as extracted; after a short training (`warm` of the config's
`reallocation`); grown, which is started from the detector without a supernet and
trained for as long as supernet and path; and trained alone by the recipe. Beside them
is the baseline as it was given and trained on for as long. Everything is tested as the
config tests. Started again, it goes on where it was.

    python benchmarks/warm.py CONFIG --out other --from DETECTOR \
        --alone warm/warm.json --cfg-options reallocation.warm.distillation=1

trains a warm supernet and no other network: its paths are scored as they are, on
archval and on the test's images, beside an earlier run's AP of the networks alone.
"""

import argparse
import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from statistics import fmean

from mmengine.config import Config, DictAction
from scipy.stats import kendalltau
from speed_results import hardware, versions

from mmcr.cli import user_errors
from mmcr.engine.extract import is_path, opened, write_path
from mmcr.engine.launch import read_config
from mmcr.errors import UserError
from mmcr.files import file_digest, read_json, read_state, write_json
from mmcr.models.weights.checkpoint import only_weights, write_weights
from mmcr.registry import MODELS
from mmcr.report.paired import Difference
from mmcr.report.tables import markdown_table, write_results
from mmcr.search import Complete, Proposal
from mmcr.workflow import recipe
from mmcr.workflow.contests.candidates import complete_trials
from mmcr.workflow.contests.contest import Contest
from mmcr.workflow.contests.finals import most_blocks, unrounded
from mmcr.workflow.contests.study import name_of, spread
from mmcr.workflow.continuation import continued, one_after_the_other, started
from mmcr.workflow.place import alone
from mmcr.workflow.reallocation import Reallocation
from mmcr.workflow.screen import Screen
from mmcr.workflow.settings import settings_of
from mmcr.workflow.steps import Step, StepRunner, write_configs
from mmcr.workflow.variants.warm import WarmReallocation

COLD = Step('cold', 'cold supernet')
SUPERNET, SEARCH = '01_stage_supernet', '02_stage_search'


class Comparison:
    """All trainings, scores and tests, in one folder.

    Args:
        args: The command line's.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        if args.paths < 2:
            raise UserError(
                f'--paths must be 2 at least, the baseline and another, but got '
                f'{args.paths}.'
            )
        cfg = read_config(args.config, args.cfg_options)
        self.out, self.args = Path(args.out), args
        given = dict(cfg.pop('reallocation', {}))
        given.update(width=1.0, dilations=False, jobs=args.jobs)
        self.given, self.cfg = given, cfg
        prepared = Reallocation(cfg, 'mine', self.out, settings_of(given))
        self.plain = prepared.baseline.cfg
        recipe.set_amp(self.plain, prepared.settings.options)
        self.plain.test_evaluator = unrounded(self.plain.test_evaluator, 'bbox')
        self.screen = Screen([])

    def run(self, lock: int) -> str:
        """Everything that is not done yet; returns the page."""
        self.lock = lock
        checkpoint = self.args.checkpoint or self._detector()
        settings = settings_of(dict(self.given, checkpoint=checkpoint))
        work = WarmReallocation(
            self.cfg, 'mine', self.out / 'warm', settings, checkpoint
        )
        work.write()
        self.work, self.how = work, work.how
        steps = work.steps[:1] if self.args.alone else work.steps
        self.runner = StepRunner(work.work_dir, steps, self.screen)
        self.screen.expect(step.name for step in steps)
        self.runner.run(lock)
        others = [arch for arch in work.space if arch != work.own]
        count = min(self.args.paths - 1, len(others))
        self.archs = [work.own, *spread(others, count)]
        if self.args.alone:
            return self._untrained()
        self._train_cold()
        scores = self._scores()
        self._compete(checkpoint)
        return self._write(scores)

    def _detector(self) -> str:
        contest = Contest(self.out, {'detector': self.plain}, screen=self.screen)
        contest.run([('detector', 0)], self.lock)
        return str(Path(contest.checkpoint('detector', 0)).resolve())

    def _train_cold(self) -> None:
        """At the recipe's full rate, from random weights."""
        longer = continued(self.plain, self.how.length, 1.0)
        base = replace(self.work.baseline, cfg=longer)
        options, data = self.work.settings.options, self.work.data
        cfg = recipe.supernet(base, data, options, 'stage', self.work.space)
        write_configs(self.out, {COLD.name: recipe.text_of(cfg)})
        self.screen.expect([COLD.name])
        StepRunner(self.out, [COLD], self.screen).run(self.lock)

    def _scores(self) -> dict[str, list[float]]:
        """AP on archval of the paths in the warm supernet, before it, in the cold."""
        journal = self.out / f'warm/{SEARCH}/trials.jsonl'
        known = complete_trials(journal, len(self.work.own))
        folder, start = self.out / 'warm', self.out / 'start.pth'
        config = folder / SEARCH / 'config.py'
        warm = self.runner.checkpoint(SUPERNET)
        cold = StepRunner(self.out, [], self.screen).checkpoint(COLD.name)
        if not start.exists():
            detector = MODELS.build(read_config(config).model)
            detector.init_weights()
            write_weights(start, detector.state_dict())
        scores = {
            'warm': [known[a].score for a in self.archs if a in known],
            'start': self._scored(read_config(config), str(start)),
            'cold': self._scored(read_config(config), cold),
        }
        if len(scores['warm']) < len(self.archs):
            scores['warm'] = self._scored(read_config(config), warm)
        return scores

    def _scored(self, cfg: Config, checkpoint: str, on: str = '') -> list[float]:
        """Kept in a file; the architectures and the checkpoint tell them apart."""
        file = self.out / 'scores.json'
        key = f'{file_digest(checkpoint)} {self.archs}{on}'
        state = read_state(file)
        if key not in state:
            cfg.model.pop('init_cfg', None)
            with opened(cfg, checkpoint) as candidates:
                trials = candidates.evaluate(
                    [Proposal(Complete(a)) for a in self.archs]
                )
            state[key] = [trial.score for trial in trials]
            write_json(file, state)
        return state[key]

    def _untrained(self) -> str:
        """The page of a supernet whose paths are not trained further."""
        known = read_json(Path(self.args.alone), 'the results of an earlier run')
        alone = {n: row['alone'] for n, row in zip(known['archs'], known['rows'])}
        names = [name_of(arch) for arch in self.archs]
        if not alone.keys() >= set(names):
            raise UserError(f'{self.args.alone} must be of this config and its paths.')
        supernet = self.runner.checkpoint(SUPERNET)
        archval = read_config(self.out / f'warm/{SEARCH}/config.py')
        tested = copy.deepcopy(archval)
        tested.test_evaluator = self.plain.test_evaluator
        tested.test_dataloader = dict(
            self.plain.test_dataloader, batch_size=archval.test_dataloader.batch_size
        )
        scores = self._scored(archval, supernet), self._scored(tested, supernet, 'test')
        rows = [
            dict(score=100 * score, extracted=100 * ap, alone=alone[name])
            for name, score, ap in zip(names, *scores)
        ]
        aps = [row['extracted'] for row in rows]
        record = dict(archs=names, rows=rows, taus=taus_of(rows))
        text = (
            f'{table_of(record)}\nExtracted: mean {fmean(aps):.2f}, least '
            f'{min(aps):.2f}, baseline {aps[0]:.2f}. {said_of(record["taus"])}'
        )
        write_results(self.out, 'warm', text, record)
        return text

    def _compete(self, checkpoint: str) -> None:
        paths = self._extracted()
        base, options = self.work.baseline, self.work.settings.options
        how, networks, single = self.how, {}, {}
        both = one_after_the_other(self.plain, how.length, how.tune)
        for arch in self.archs:
            name = name_of(arch)
            net = recipe.network(base, dict(stage_blocks=list(arch.values())), options)
            net.test_evaluator = self.plain.test_evaluator
            single[name] = net
            networks[f'{name}_extracted'] = net
            networks[f'{name}_tuned'] = started(
                continued(net, how.tune, how.rate), paths[name]
            )
            if arch != self.work.own:
                grown = continued(net, both, how.rate)
                networks[f'{name}_grown'] = started(grown, checkpoint)
        networks['baseline_given'] = self.plain
        longer = continued(self.plain, both, how.rate)
        networks['baseline_longer'] = started(longer, checkpoint)
        given = {f'{name}_extracted': path for name, path in paths.items()}
        given['baseline_given'] = checkpoint
        draft, _ = recipe.stage_draft(base, options)
        large = recipe.network(base, most_blocks(draft), options).model.backbone
        shared = dict(screen=self.screen, jobs=self.args.jobs)
        self.warm = Contest(self.out / 'paths', networks, given=given, **shared)
        self.alone = Contest(
            self.out / 'alone', single, dict(_delete_=True, **large), **shared
        )
        names, seeds = [name_of(arch) for arch in self.archs], range(self.args.seeds)
        tested = [*given, *(f'{name}_tuned' for name in names), 'baseline_longer']
        tested += [f'{name}_grown' for name in names[1:]]
        self.warm.run(
            [(n, seed) for seed in seeds for n in tested if not seed or n not in given],
            self.lock,
        )
        self.alone.run([(name, seed) for seed in seeds for name in names], self.lock)

    def _extracted(self) -> dict[str, str]:
        """By name of an architecture the checkpoint of its path."""
        supernet = self.runner.checkpoint(SUPERNET)
        digest, cfg = file_digest(supernet), self.runner.config(self.work.steps[1])
        paths = {name_of(a): self.out / f'{name_of(a)}.pth' for a in self.archs}
        missing = [a for a in self.archs if not is_path(paths[name_of(a)], a, digest)]
        if missing:
            with opened(cfg, supernet) as candidates:
                for arch in missing:
                    write_path(paths[name_of(arch)], candidates, arch, supernet)
        return {name: str(path.resolve()) for name, path in paths.items()}

    def _by_seed(self, contest: Contest, what: str, name: str) -> list[float]:
        seeds = range(1 if name in contest.given else self.args.seeds)
        return [getattr(contest, what)(name, seed) for seed in seeds]

    def _mean(self, *args) -> float:
        return fmean(self._by_seed(*args))

    def _write(self, scores: dict[str, list[float]]) -> str:
        rows, names = [], [name_of(arch) for arch in self.archs]
        for i, name in enumerate(names):
            row = {f'score {kind}': 100 * scores[kind][i] for kind in scores}
            row['extracted'] = self._mean(self.warm, 'ap', f'{name}_extracted')
            row['tuned'] = self._mean(self.warm, 'ap', f'{name}_tuned')
            row['grown'] = self._mean(self.warm, 'ap', self._grown(name))
            row['alone'] = self._mean(self.alone, 'ap', name)
            rows.append(row)
        record = dict(
            archs=names,
            rows=rows,
            taus=taus_of(rows),
            baseline={
                way: self._mean(self.warm, 'ap', f'baseline_{way}')
                for way in ('given', 'longer')
            },
            ahead={
                'tuned': self._ahead(f'{name}_tuned' for name in names[1:]),
                'grown': self._ahead(f'{name}_grown' for name in names[1:]),
            },
            trainings=self._costs(names),
            hardware=hardware('cpu'),
            versions=versions(),
        )
        text = page(record)
        write_results(self.out, 'warm', text, json.loads(json.dumps(record)))
        return text

    def _grown(self, name: str) -> str:
        """The detector's own blocks grow by none: it is trained on."""
        own = name == name_of(self.archs[0])
        return 'baseline_longer' if own else f'{name}_grown'

    def _ahead(self, networks: Iterable[str]) -> list[list[float]]:
        """Of the baseline that was trained on, by network and seed."""
        longer = self._by_seed(self.warm, 'ap', 'baseline_longer')
        return [
            [ap - own for ap, own in zip(self._by_seed(self.warm, 'ap', name), longer)]
            for name in networks
        ]

    def _costs(self, names: Iterable[str]) -> dict[str, float]:
        """What each part took, in trainings alone (mean, with their tests)."""
        unit = fmean(self._mean(self.alone, 'seconds', name) for name in names)
        tuned = fmean(self._mean(self.warm, 'seconds', f'{n}_tuned') for n in names)
        parts = dict(supernet=SUPERNET, search=SEARCH)
        taken = {part: self.runner.seconds(step) for part, step in parts.items()}
        taken['path tuned'] = tuned
        longer = self._mean(self.warm, 'seconds', 'baseline_longer')
        taken['path grown or baseline longer'] = longer
        return {part: seconds / unit for part, seconds in taken.items()}


def tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's, of two rankings; ``None`` where all of one are alike."""
    value = float(kendalltau(first, second).statistic)
    return None if isnan(value) else value


def taus_of(rows: Sequence[dict]) -> dict[str, float | None]:
    """By column, that with the last."""
    *columns, alone = rows[0]
    return {
        column: tau([row[column] for row in rows], [row[alone] for row in rows])
        for column in columns
    }


def said_of(taus: dict[str, float | None]) -> str:
    """A line about the rankings."""
    found = '; '.join(
        f'{name} {"-" if value is None else f"{value:.2f}"}'
        for name, value in taus.items()
    )
    return f'Tau with the AP alone: {found}.\n'


def table_of(record: dict) -> str:
    """A row for each path."""
    columns = list(record['rows'][0])
    cells = [
        [name, *(f'{row[column]:.2f}' for column in columns)]
        for name, row in zip(record['archs'], record['rows'])
    ]
    return markdown_table(['blocks', *columns], cells, words=(0,))


def page(record: dict) -> str:
    """The results for people."""
    behind = [row['alone'] - row['extracted'] for row in record['rows']]
    tuned = [row['alone'] - row['tuned'] for row in record['rows']]
    costs = '; '.join(f'{n} {cost:.2f}' for n, cost in record['trainings'].items())
    cold = [row['score cold'] for row in record['rows'][1:]]
    chosen = cold.index(max(cold))
    said = '; '.join(
        f'{way} {Difference(ahead[chosen])} (all others, on average: '
        f'{Difference([fmean(seed) for seed in zip(*ahead)])})'
        for way, ahead in record['ahead'].items()
    )
    return (
        f'{table_of(record)}\n'
        f'AP in points of 100, the first row the baseline. Scores on archval in the '
        f'warm supernet, at its start, in the cold one; then the tests: the path as '
        f'extracted, after a short training, grown from the detector, and trained '
        f'alone.\n\n'
        f'- Baseline as given: {record["baseline"]["given"]:.2f}; trained on for as '
        f'long as supernet and path: {record["baseline"]["longer"]:.2f}.\n'
        f'- Ahead of that baseline, what the cold supernet says is the best other '
        f'path, {record["archs"][1 + chosen]}: {said}.\n'
        f'- Training alone minus as extracted: {fmean(behind):+.2f} on average, '
        f'{max(behind):+.2f} at the most; minus tuned: {fmean(tuned):+.2f} and '
        f'{max(tuned):+.2f}.\n'
        f'- {said_of(record["taus"])}'
        f'- In trainings alone: {costs}.\n'
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='of a detector')
    parser.add_argument('--out', required=True, help='folder for all of it')
    parser.add_argument('--from', dest='checkpoint', help='of the detector, trained')
    parser.add_argument('--alone', help='warm.json of an earlier run')
    parser.add_argument('--paths', type=int, default=12)
    parser.add_argument('--seeds', type=int, default=1)
    parser.add_argument('--jobs', type=int, default=1, help='side by side, on a CPU')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args()


@user_errors()
def main() -> None:
    args = parse_args()
    only_weights()
    with alone(Path(args.out)) as lock:
        print(Comparison(args).run(lock))


if __name__ == '__main__':
    main()
