"""What a user decides of a reallocation: in the config, or on the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch

from mmcr.checks import (
    check_integer,
    check_kind,
    check_seed,
    is_list,
    is_number,
    near,
)
from mmcr.errors import UserError
from mmcr.registry import BUDGETS
from mmcr.workflow import recipe
from mmcr.workflow.recipe import Options

LEAST = 6  # trainings: three seeds that judge; two say next to nothing
MOST = 120  # trainings: the exact test goes through all patterns of signs
MOST_GPUS = 1024
FRONT = 0.5, 0.75, 1.0, 1.5, 2.0  # costs of a front, in those of the baseline
MOST_COST = 100
MOST_SCALE = 8


@dataclass(frozen=True)
class Settings:
    """What a user decides of a reallocation.

    Attributes:
        method: One of `recipe.METHODS`.
        recipe: One of `recipe.RECIPES`.
        checkpoint: Of the detector, trained: a warm reallocation starts from it
            (`workflow.variants.warm`). ``None``: what the config starts all of its
            model from, if there is such; 'none': that is left out.
        grow: Whether supernets start from nothing and only what is found, and the
            baseline, from the checkpoint (`workflow.variants.grown`).
        archval: Images to hold out of the training set for scoring, or a COCO file
            that is held out already; ``None``: a tenth.
        budget: What networks have in common with the baseline, one of `BUDGETS`;
            ``None``: blocks, where those of all stages cost alike, else macs.
        latency_table: For a budget of latency; where scales are searched, those of
            the others lie beside it (`workflow.variants.scaled`).
        front: Costs, in those of the baseline, that a network is named for: one search
            goes from the least to the greatest. ``None``: at the baseline's own cost.
        trained: Networks to be marked on the front, dicts of ``name``, ``config`` and
            ``ap`` on archval, in points of 100.
        scales: Of images, in those of the config, that are searched beside that one
            (`workflow.variants.scaled`); ``None``: none.
        fast: Whether searches take the quicker form of their method.
        scale_lr: Whether the learning rate follows the batch size of this run.
        gpus: Processes of a step; ``None``: one, without torchrun.
        dilations: Whether dilations are searched as well (CR-NAS, Sec. 3.3).
        candidates: How many of the searches' best meet in the run-off.
        trainings: Of networks, in the run-off and for the verdict; ``None``: as many
            as cost no more than the supernets, `LEAST` at least.
        jobs: Trainings of the run-off side by side, on a CPU.
        gate: What happens where a supernet's scores cannot tell its networks apart:
            'warn' or 'stop'.
        seed: Of the split, and of all trainings where the config has none.
        options: Of the recipe.
    """

    method: str = 'crnas'
    recipe: str = 'paper'
    checkpoint: str | None = None
    grow: bool = False
    archval: int | str | None = None
    budget: str | None = None
    latency_table: str | None = None
    front: Sequence[float] | None = None
    trained: Sequence[Mapping] = ()
    scales: Sequence[float] | None = None
    fast: bool = False
    scale_lr: bool = True
    gpus: int | None = None
    dilations: bool = True
    candidates: int = 4
    trainings: int | None = None
    jobs: int = 1
    gate: str = 'warn'
    seed: int = 0
    options: Options = Options()

    def __post_init__(self) -> None:
        self._check_texts()
        for name, known in (
            ('method', recipe.METHODS),
            ('recipe', recipe.RECIPES),
            ('budget', (None, *BUDGETS.module_dict)),
            ('gate', ('warn', 'stop')),
        ):
            if getattr(self, name) not in known:
                names = ', '.join(filter(None, known))
                raise UserError(
                    f'{name} must be one of {names}, but got {getattr(self, name)!r}.'
                )
        check_seed('seed', self.seed)
        for name in ('grow', 'fast', 'scale_lr', 'dilations'):
            check_kind(name, getattr(self, name), bool)
        check_kind('amp', self.options.amp, bool)
        if self.checkpoint is not None:
            check_kind('checkpoint', self.checkpoint, str)
        self._check_numbers()
        if self.front is not None:
            self._check_front()
        if self.grow:
            self._check_grow()
        if self.trained:
            self._check_trained()
        if self.scales is not None:
            self._check_scales()
        if self.method == 'detnas':
            self._check_detnas()
        if (self.budget == 'latency') != (self.latency_table is not None):
            raise UserError(
                'A budget of latency needs a table of the device, and only that: '
                '--budget latency --latency-table FILE, made by '
                'tools/analysis_tools/latency_table.py.'
            )
        if self.options.amp and not torch.cuda.is_available():
            raise UserError(
                '--amp trains in half precision on a GPU, but torch finds no CUDA '
                'device here. Leave it out.'
            )

    def _check_texts(self) -> None:
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        empty = [n for n, v in given.items() if isinstance(v, str) and not v.strip()]
        if empty:
            name = dict(checkpoint='checkpoint (--from)').get(empty[0], empty[0])
            raise UserError(
                f'{name} must not be empty, as the value of a shell variable that is '
                f'not set would be, but got {given[empty[0]]!r}. Name one, or leave it '
                f'out.'
            )

    def _check_numbers(self) -> None:
        check_integer('gpus', 1 if self.gpus is None else self.gpus)
        if (self.gpus or 1) > MOST_GPUS:
            raise UserError(f'gpus must be at most {MOST_GPUS}, but got {self.gpus}.')
        check_integer('candidates', self.candidates)
        check_integer('jobs', self.jobs)
        if self.trainings is not None:
            check_integer('trainings', self.trainings, at_least=LEAST)
            if self.trainings > MOST:
                raise UserError(
                    f'trainings must be at most {MOST}, but got {self.trainings}.'
                )
        if self.jobs > 1 and (self.gpus or torch.cuda.is_available()):
            raise UserError(
                f'Trainings run side by side on a CPU alone, but got jobs={self.jobs} '
                f'and a GPU, which one training fills. Leave it out.'
            )

    def _check_grow(self) -> None:
        for name, value, usual in (
            ('method', self.method, 'crnas'),
            ('scales', self.scales, None),
            ('front', self.front, None),
        ):
            if value != usual:
                raise UserError(
                    f'What grows from your detector are networks of its own blocks '
                    f'(crnas), at its image scale and cost, but with grow=True '
                    f'(--grow) got {name}={value!r}. Leave one of them out.'
                )

    def _check_detnas(self) -> None:
        if self.budget not in (None, 'blocks'):
            raise UserError(
                f'detnas searches under a limit of multiply-accumulates, not at the '
                f'cost of your backbone, but got budget={self.budget!r}. Leave it out; '
                f'the limit is search=dict(budget=dict(limit=...)) of reallocation in '
                f'the config.'
            )
        if self.fast:
            raise UserError(
                'A fast search takes the place of an exhaustive or a greedy one '
                '(crnas), but detnas searches by evolution, which has no fast form. '
                'Leave --fast out; fewer generations of the searcher make it shorter.'
            )

    def _check_scales(self) -> None:
        scales = list(self.scales) if is_list(self.scales) else []
        known = all(is_number(each) and 0 < each <= MOST_SCALE for each in scales)
        if not set(scales) - {1} or not known:
            raise UserError(
                f'scales must be numbers above 0 and at most {MOST_SCALE}, in image '
                f'scales of the config, one of them not 1, but got {self.scales!r}.'
            )
        for name, value, others in (
            ('method', self.method, ('crnas',)),
            ('budget', self.budget, (None, 'macs', 'latency')),
            ('front', self.front, (None,)),
        ):
            if value not in others:
                raise UserError(
                    f'Scales of images are searched by crnas, from nothing and at '
                    f'equal multiply-accumulates or within a latency, but got '
                    f'{name}={value!r}. Leave one of them out.'
                )

    def _check_trained(self) -> None:
        each_fits = is_list(self.trained) and all(
            isinstance(each, Mapping)
            and each.keys() == {'name', 'config', 'ap'}
            and all(_is_text(each[name]) for name in ('name', 'config'))
            and is_number(each['ap'])
            and 1 <= each['ap'] <= 100
            for each in self.trained
        )
        if not each_fits or len({e['name'] for e in self.trained}) < len(self.trained):
            raise UserError(
                f"trained must be a list like [dict(name='R18', config='r18.py', "
                f'ap=31.2)], of names of their own and AP from 1 to 100, but got '
                f'{self.trained!r}.'
            )
        if self.front is None or self.budget not in (None, 'blocks', 'macs', 'params'):
            raise UserError(
                f'Trained networks are marked on a front, by multiply-accumulates or '
                f'parameters, but got front={self.front} and budget={self.budget!r}. '
                f'Leave trained out.'
            )

    def _check_front(self) -> None:
        parts = list(self.front) if is_list(self.front) else []
        known = all(is_number(part) and 0 < part <= MOST_COST for part in parts)
        if len(set(parts)) < 2 or not known:
            raise UserError(
                f'front must be two costs at least, in those of your backbone, each '
                f'above 0 and at most {MOST_COST}, but got {self.front!r}.'
            )
        if not min(parts) < 1 <= max(parts):
            raise UserError(
                f'front must have a cost below that of your backbone, 1, and one of 1 '
                f'or more, since the verdict is on a path that costs no more than '
                f'yours, but got {self.front!r}.'
            )
        if self.fast:
            raise UserError(
                'A front is searched by evolution, which has no fast form. Leave '
                '--fast out; fewer generations of the searcher make it shorter.'
            )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def settings_of(given: Mapping, **more) -> Settings:
    """Settings by name, as a config's ``reallocation`` and the command line give them.

    Raises:
        UserError: There is no such setting, or a value breaks its rule.
    """
    if not isinstance(given, Mapping):
        raise UserError(
            f'reallocation of a config must be a dict of settings, but is {given!r}.'
        )
    given = {**given, **more}
    names = [field.name for field in fields(Settings) if field.name != 'options']
    of_recipe = [field.name for field in fields(Options)]
    unknown = [name for name in given if name not in (*names, *of_recipe)]
    if unknown:
        raise UserError(
            f'reallocation of a config may have {", ".join([*names, *of_recipe])}, '
            f'but has {", ".join(map(str, unknown))}'
            f'{near(unknown[0], [*names, *of_recipe])}.'
        )
    options = Options(**{n: given[n] for n in of_recipe if n in given})
    settings = Settings(options=options, **{n: given[n] for n in names if n in given})
    warm = settings.checkpoint not in (None, 'none') and not settings.grow
    if warm and given.get('width', 1) != 1:
        raise UserError(
            f'A supernet that starts from your detector is as wide as that, but got '
            f'width={given["width"]}. Leave it out, or give --grow: then the supernet '
            f'starts from nothing.'
        )
    return settings
