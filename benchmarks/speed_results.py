"""Gathers the runs of search_speed.py and writes them down."""

import json
import os
import platform
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import torch

from mmcr.cost.timing import cpu_name
from mmcr.errors import UserError
from mmcr.files import write_bytes
from mmcr.space import Arch

WAYS = {'a': 'naive loop', 'b': 'ours, exact', 'c': 'ours, halving'}
PARTS = ('loading', 'calibration', 'backbone', 'neck and heads', 'evaluation')
PACKAGES = [
    prefix + name
    for name in ('mmengine', 'mmcv', 'mmdet', 'mmdetection')
    for prefix in ('', 'onedl-')
] + ['numpy', 'pycocotools', 'faster-coco-eval']


@dataclass
class Run:
    """One search: `count` candidates in `seconds`.

    `scores` are those on all of archval (of halving, the winner's), `split` the
    seconds by part where they were taken.
    """

    seconds: float
    count: int
    scores: Mapping[Arch, float]
    split: Mapping[str, float] | None = None

    @classmethod
    def from_json(cls, obj: Mapping) -> 'Run':
        scores = {Arch.from_json(arch): score for arch, score in obj['scores']}
        return cls(**{**obj, 'scores': scores})

    def to_json(self) -> dict:
        scores = [[arch.to_json(), score] for arch, score in self.scores.items()]
        return {**vars(self), 'scores': scores}

    @property
    def per_candidate(self) -> float:
        return self.seconds / self.count

    @property
    def winner(self) -> Arch:
        return max(self.scores, key=self.scores.get)


class SpeedResults:
    """The runs by way and repeat.

    Args:
        out: Folder for ``search_speed.json`` and ``search_speed.md``.
        setting: What was benchmarked.
    """

    def __init__(self, out: str, setting: dict) -> None:
        self.out = Path(out)
        self.setting = dict(
            date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
            command=' '.join(['python', *sys.argv]),
            hardware=hardware(setting['device']),
            threads=torch.get_num_threads(),
            versions=versions(),
            **setting,
        )
        self.runs: dict[str, dict[int, Run]] = {way: {} for way in WAYS}
        self.splits: dict[str, list[dict]] = defaultdict(list)
        self._go_on()

    def _go_on(self) -> None:
        """Takes over what an earlier call with the same setting has run."""
        file = self.out / 'search_speed.json'
        if not file.exists():
            return
        old = json.loads(file.read_text())
        differ = [
            name
            for name, value in self.setting.items()
            if name not in ('date', 'command') and old['setting'].get(name) != value
        ]
        if differ:
            raise UserError(
                f'{file} must be of the same setting to be gone on with, but differs '
                f'in {", ".join(differ)}. Give another folder.'
            )
        for way, runs in old['runs'].items():
            for repeat, run in runs.items():
                self.add(way, int(repeat), Run.from_json(run))

    def add(self, way: str, repeat: int, run: Run) -> None:
        """Takes a run that counts."""
        self.runs[way][repeat] = run
        print(f'{repeat}  {WAYS[way]:13}  {run.per_candidate:.3f} s', flush=True)
        if run.split is not None:
            self.add_split(way, run)

    def add_split(self, way: str, run: Run) -> None:
        """Takes a run of which the split alone counts."""
        split = {part: run.split.get(part, 0.0) for part in PARTS}
        split['rest'] = run.seconds - sum(split.values())
        self.splits[way].append({p: s / run.count for p, s in split.items()})

    def ratios(self, way: str) -> list[float]:
        """(a)'s seconds per candidate over those of `way`, repeat by repeat."""
        return [
            naive.per_candidate / self.runs[way][repeat].per_candidate
            for repeat, naive in sorted(self.runs['a'].items())
            if repeat in self.runs[way]
        ]

    def score_difference(self) -> float | None:
        """The largest between (a) and (b), in points of AP."""
        differences = [
            100 * abs(score - exact.scores[arch])
            for run in self.runs['a'].values()
            for arch, score in run.scores.items()
            for exact in self.runs['b'].values()
        ]
        return max(differences, default=None)

    def regrets(self) -> list[float]:
        """What (c)'s winner of each seed lacks to the best of all, in points of AP."""
        exact = next((run.scores for run in self.runs['b'].values()), None)
        return [
            100 * (max(exact.values()) - exact[run.winner])
            for _, run in sorted(self.runs['c'].items())
            if exact is not None
        ]

    def summary(self) -> dict:
        """Everything, as JSON."""
        return dict(
            setting=self.setting,
            seconds_per_candidate={
                way: [run.per_candidate for _, run in sorted(runs.items())]
                for way, runs in self.runs.items()
            },
            split={way: self.split(way) for way in self.splits},
            ratios={way: self.ratios(way) for way in 'bc'},
            largest_score_difference=self.score_difference(),
            regrets=self.regrets(),
            winners={
                way: {repeat: str(run.winner) for repeat, run in sorted(runs.items())}
                for way, runs in self.runs.items()
            },
            runs={
                way: {repeat: run.to_json() for repeat, run in sorted(runs.items())}
                for way, runs in self.runs.items()
            },
        )

    def split(self, way: str) -> dict[str, float]:
        """Seconds per candidate by part; medians over the runs."""
        splits = self.splits[way]
        return {part: median(s[part] for s in splits) for part in splits[0]}

    def table(self) -> str:
        """The figures as Markdown."""
        setting = self.setting
        parts = [*PARTS, 'rest']
        lines = [
            '# Search speed',
            '',
            f'{setting["date"]}; {setting["hardware"]}; threads: {setting["threads"]}; '
            f'candidates: {setting["candidates"]} (naive loop: '
            f'{setting["naive_candidates"]}); {setting["archval_images"]} archval and '
            f'{setting["calibration_images"]} calibration images.',
            '',
            f'    {setting["command"]}',
            '',
            f'| | s/candidate | {" | ".join(parts)} | times faster (median, range) |',
            '| --- |' + ' ---: |' * (len(parts) + 2),
        ]
        for way, name in WAYS.items():
            if not self.runs[way]:
                continue
            seconds = median(run.per_candidate for run in self.runs[way].values())
            split = self.split(way) if self.splits[way] else {}
            cells = [f'{split[part]:.3f}' if split else '' for part in parts]
            ratios = self.ratios(way) if way != 'a' else []
            faster = (
                f'{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
                if ratios
                else ''
            )
            lines.append(
                f'| ({way}) {name} | {seconds:.3f} | {" | ".join(cells)} | {faster} |'
            )
        if (difference := self.score_difference()) is not None:
            lines += ['', f'Largest score difference (a) to (b): {difference:.4f} AP.']
        if regrets := self.regrets():
            each = ', '.join(f'{regret:.2f}' for regret in regrets)
            lines += ['', f'Regret of (c) by seed: {each} AP.']
        packages = (f'{name} {number}' for name, number in setting['versions'].items())
        return '\n'.join([*lines, '', f'Versions: {", ".join(packages)}.', ''])

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.summary(), indent=2)
        write_bytes(self.out / 'search_speed.json', text.encode())
        write_bytes(self.out / 'search_speed.md', self.table().encode())


def hardware(device: str) -> str:
    """Names of the processor, and of the GPU in use."""
    names = [f'{os.cpu_count()} x {cpu_name()}']
    if device.startswith('cuda'):
        names.append(torch.cuda.get_device_name(device))
    return ', '.join(names)


def versions() -> dict[str, str]:
    """Of Python, torch and what else is installed of `PACKAGES`."""
    found = dict(python=platform.python_version(), torch=torch.__version__)
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
