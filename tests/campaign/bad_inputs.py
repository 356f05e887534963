"""Bad inputs for every tool: each must end in one message and leave all as it was.

``python -m tests.campaign bad-inputs`` runs them all and prints their table;
``.ci/run`` runs some of them. A case is a command, run in a fork of a process
that has imported everything, in a folder that is compared before and after.
"""

import gc
import json
import os
import random
import re
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmcr.report.tables import markdown_table

ROOT = Path(__file__).parents[2]
if str(ROOT / 'tests') not in sys.path:  # helpers, as pytest finds them
    sys.path.insert(0, str(ROOT / 'tests'))

SECONDS = 60  # after which a case is ended
#: Values of any kind, by a name; a field takes some of them.
VALUES = {
    'null': None,
    'text': 'nonsense',
    'list': [1],
    'dict': {'_delete_': True, 'a': 1},  # in the place of what the base has
    'bool': True,
    'negative': -1,
    'zero': 0,
    'fraction': 0.5,
    'nan': float('nan'),
    'infinite': float('inf'),
    'huge': 10**30,
    'nested': 'DEEP',
}
NUMBER = frozenset({'null', 'text', 'list', 'dict', 'bool', 'nan', 'infinite'})
COUNT = NUMBER | {'negative', 'zero', 'fraction'}
SWITCH = frozenset({'text', 'list', 'dict', 'negative', 'fraction'})
MAPPING = frozenset({'text', 'list', 'bool', 'negative', 'fraction'})
NAME = frozenset({'text', 'list', 'dict', 'bool', 'negative', 'nan'})


@dataclass(frozen=True)
class Case:
    """A command of which is known how it ends.

    Attributes:
        kind: Of the mistake, for the table.
        name: Of the case, unique.
        tool: Below ``tools/``, without ``.py``.
        argv: What is typed behind it.
        says: A regular expression that the message matches.
        prepare: Called in the folder before; what it makes is part of the inputs.
        limit: Bytes that a file may have, as on a full disk.
        new: Names, as for `Path.glob`, of what may appear although it fails.
    """

    kind: str
    name: str
    tool: str
    argv: tuple[str, ...]
    says: str = ''
    prepare: Callable[[], None] | None = None
    limit: int | None = None
    new: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """How a case ended: what is wrong with that, nothing where all is well."""

    case: Case
    faults: tuple[str, ...]


class Campaign:
    """A folder with a user's data, configs and checkpoints, and cases run in it.

    Args:
        folder: Empty, or not there.
    """

    def __init__(self, folder: Path) -> None:
        self.master, self.here = folder / 'master', folder / 'here'
        self.here.mkdir(parents=True)
        self._make()
        shutil.copytree(self.here, self.master, symlinks=True)
        gc.collect()
        gc.freeze()  # forks then share what is there

    def _make(self) -> None:
        import torch
        from config_files import CONFIGS
        from mmengine.config import Config
        from mmengine.logging import MMLogger
        from mmengine.registry import init_default_scope
        from yapf.yapflib import yapf_api

        from mmcr.data.shapes import write_shapes
        from mmcr.engine.launch import read_config
        from mmcr.registry import MODELS
        from mmcr.workflow.reallocation import Reallocation
        from mmcr.workflow.settings import settings_of

        torch.set_num_threads(1)  # threads do not survive a fork
        # how a config is laid out takes most of a refusal's time
        yapf_api.FormatCode = lambda text, *_, **__: (f'{text}\n', True)
        os.chdir(self.here)
        write_shapes('data/shapes', 24, (96, 96), split='train')
        write_shapes('data/shapes', 8, (96, 96), split='test')
        cfg = Config.fromfile(CONFIGS / 'demo/shapes.py')
        changes = dict(train_cfg=dict(max_epochs=1), cost_shape=(96, 96))
        changes.update(val_dataloader=dict(batch_size=4), reallocation=None)
        cfg.merge_from_dict({**changes, 'test_dataloader': dict(batch_size=4)})
        cfg.reallocation = dict(archval=8)
        cfg.dump('mine.py')  # plain, which is read faster
        cfg = read_config('mine.py')
        settings = settings_of(cfg.pop('reallocation'))
        Reallocation(cfg, 'mine', 'steps', settings).write()
        Path('steps/.lock').touch()
        found = 'cr_backbone = dict(stage_blocks=(2, 2, 2, 2), dilations=None)\n'
        for search in ('02_stage_search', '04_op_search'):  # later configs wait for it
            Path('steps', search, 'best_arch.py').write_text(found)
        MMLogger.get_instance('campaign', log_level='ERROR')
        init_default_scope('mmdet')
        for step, name in (
            ('01_stage_supernet', 'stage'),
            ('networks/baseline', 'whole'),
        ):
            model = MODELS.build(Config.fromfile(f'steps/{step}/config.py').model)
            torch.save(dict(state_dict=model.state_dict()), f'{name}.pth')
        MMLogger._instance_dict.clear()
        arch = dict(stage1=2, stage2=2, stage3=2, stage4=2)
        Path('arch.json').write_text(json.dumps(dict(arch=arch)))

    def run(self, case: Case) -> Verdict:
        """Runs a case in a process of its own."""
        os.chdir(self.here)
        if case.prepare:
            case.prepare()
        before = snapshot(self.here)
        code, said = self._fork(case)
        after = snapshot(self.here)
        faults = tuple(_faults(case, code, said, before, after))
        if after != before or case.prepare:
            os.chdir(self.master)
            shutil.rmtree(self.here)
            shutil.copytree(self.master, self.here, symlinks=True)
        return Verdict(case, faults)

    def _fork(self, case: Case) -> tuple[int, str]:
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if not child:
                _run(case, said.fileno())
            _, status = os.waitpid(child, 0)
            said.seek(0)
            return os.waitstatus_to_exitcode(status), said.read().decode(
                errors='backslashreplace'
            )


def _run(case: Case, said: int) -> None:
    """What the child does; it never returns."""
    code = 1
    try:
        signal.alarm(SECONDS)
        null = os.open(os.devnull, os.O_RDWR)
        for own, number in ((null, 0), (null, 1), (said, 2)):
            os.dup2(own, number)
        # pytest has put others in their place
        sys.stdout, sys.stderr = (open(n, 'w', closefd=False) for n in (1, 2))
        if case.limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.limit, case.limit))
        tool = str(ROOT / 'tools' / f'{case.tool}.py')
        sys.argv = [tool, *case.argv]
        runpy.run_path(tool, run_name='__main__')
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def snapshot(folder: Path) -> dict[str, object]:
    """All that lies in a folder, by path: how it could be told that it was changed."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in folders:
            path = os.path.join(root, name)
            found[path] = os.readlink(path) if os.path.islink(path) else 'folder'
        for name in files:
            path = os.path.join(root, name)
            state = os.lstat(path)
            found[path] = state.st_mode, state.st_size, state.st_mtime_ns
    return found


def _is_message(line: str) -> bool:
    return re.match(r'(\w+\.py: )?error: ', line) is not None


def _faults(case: Case, code: int, said: str, before: dict, after: dict):
    """What is wrong with how a case ended."""
    messages = [line for line in said.splitlines() if _is_message(line)]
    if code < 0:
        yield f'ended by signal {-code}'
    if 'Traceback' in said:
        yield f'traceback: {said.strip().splitlines()[-1][:200]}'
    elif code == 0:
        yield 'accepted'
    elif len(messages) != 1:
        yield f'{len(messages)} messages: {said.strip()[-300:]}'
    elif not re.search(case.says, messages[0], re.IGNORECASE):
        yield f'says nothing of {case.says}: {messages[0][:300]}'
    changed = [path for path, state in before.items() if after.get(path) != state]
    if changed:
        yield f'changed: {", ".join(sorted(changed)[:4])}'
    here = Path.cwd()
    allowed = {str(path) for name in case.new for path in here.rglob(name)}
    new = [path for path in after if path not in before and path not in allowed]
    if new and code:
        yield f'left behind: {", ".join(sorted(new)[:4])}'


# the cases


def cases() -> list[Case]:
    """All of them; those of a kind follow each other."""
    return [*_fields(), *_paths(), *_outputs(), *_configs(), *_json(), *_options()]


def sample(count: int = 40) -> list[Case]:
    """A part that takes no longer than a test may: of so many mistakes one each."""
    found = {}
    mixed = cases()
    random.Random(0).shuffle(mixed)
    for case in mixed:
        found.setdefault(case.kind.rpartition(': ')[2], case)
    return list(found.values())[:count]


def _changed(path: str, value: object, base: str) -> Callable:
    """Writes ``bad.py``: a config with another value at a path."""
    first, *others = path.split('.')
    text = repr(value)
    if isinstance(value, float):
        text = f'float({text!r})'
    elif value == 'DEEP':
        text = '[' * 90 + ']' * 90
    for key in reversed(others):
        text = f'{{{key!r}: {text}}}'
    if first == 'custom_hooks' and others:
        text = f'[{text}]'

    def write() -> None:
        Path('bad.py').write_text(f"_base_ = '{base}'\n{first} = {text}\n")

    return write


def _fields() -> Iterator[Case]:
    """Values of a wrong type or out of range, in a config."""
    user, stage = 'mine.py', 'steps/02_stage_search/config.py'
    train = 'steps/01_stage_supernet/config.py'
    operation = 'steps/03_op_supernet/config.py'
    network = 'steps/networks/full_cr/config.py'
    reallocate = 'reallocate', ('bad.py', '--work-dir', 'new', '--write-only'), user
    search = 'search', ('bad.py', 'stage.pth', '--work-dir', 'new'), stage
    supernet = 'train', ('bad.py', '--work-dir', 'new'), train
    flops = 'analysis_tools/get_flops', ('bad.py', '--shape', '96'), operation
    stage_flops = flops[:2] + (train,)
    tables = [
        (
            'reallocation',
            reallocate,
            {
                'reallocation': MAPPING,
                'reallocation.archval': COUNT - {'null'},
                'reallocation.method': NAME,
                'reallocation.recipe': NAME,
                'reallocation.budget': NAME,
                'reallocation.latency_table': NAME,
                'reallocation.seed': COUNT - {'zero'} | {'huge'},
                'reallocation.gpus': COUNT - {'null'},
                'reallocation.width': NUMBER | {'negative', 'zero'},
                'reallocation.fast': SWITCH,
                'reallocation.scale_lr': SWITCH,
                'reallocation.dilations': SWITCH,
                'reallocation.candidates': COUNT,
                'reallocation.trainings': COUNT - {'null'},
                'reallocation.jobs': COUNT,
                'reallocation.gate': NAME | {'null'},
                'reallocation.amp': SWITCH | {'bool'},
                'reallocation.backbone': MAPPING | {'dict'},
                'reallocation.supernet': MAPPING,
                'reallocation.search': MAPPING,
                'cost_shape': NAME - {'null'},
            },
        ),
        (
            'detector',
            reallocate,
            {
                'model': VALUES.keys() - {'dict'},
                'model.backbone': VALUES.keys() - {'dict'},
                'model.backbone.depth': VALUES.keys(),
                'model.neck': {'text', 'negative', 'list'},
                'train_dataloader': VALUES.keys() - {'dict'},
                'train_dataloader.dataset': VALUES.keys() - {'dict'},
                'train_dataloader.dataset.ann_file': NAME | {'null'},
                'train_dataloader.dataset.pipeline': {'text', 'bool', 'negative'},
                'val_evaluator': {'text', 'negative', 'bool'},
                'custom_hooks': {'text', 'negative', 'bool'},
                'default_scope': {'text', 'negative', 'list'},
                'work_dir': {'negative', 'list'},
            },
        ),
        (
            'search',
            search,
            {
                'test_cfg': VALUES.keys() - {'dict'},
                'test_cfg.budget': COUNT - {'null', 'list'} | {'huge'},
                'test_cfg.searcher': VALUES.keys(),
                'test_cfg.searcher.type': NAME | {'null'},
                'test_cfg.searcher.no_such_option': {'zero'},
                'test_cfg.searcher.max_trials': COUNT,
                'test_cfg.final_backbone': MAPPING | {'dict'},
                'test_cfg.gate': NAME,
                'test_cfg.score': NAME | {'null'},
                'test_cfg.num_minibatches': COUNT,
                'test_cfg.group_size': COUNT,
                'test_cfg.calibration_images': COUNT - {'zero'},
                'test_cfg.calibration_seed': COUNT - {'zero'},
                'test_cfg.archval_seed': COUNT - {'zero'},
                'test_cfg.fp16': SWITCH | {'bool'},
                'test_cfg.plain': SWITCH,
                'test_dataloader.batch_size': COUNT,
                'test_evaluator': {'null', 'text', 'negative'},
            },
        ),
        (
            'supernet',
            supernet,
            {
                'val_cfg.archs': VALUES.keys() - {'dict'},
                'val_cfg.archs.deep': VALUES.keys() - {'nested'},
                'custom_hooks': {'text', 'negative', 'dict', 'list'},
                'custom_hooks.type': NAME | {'null'},
                'custom_hooks.no_type': {'zero'},
                'default_hooks.checkpoint': {'text', 'list', 'dict', 'negative'},
                'train_cfg.max_epochs': {'text', 'list', 'negative', 'nan'},
                'optim_wrapper': {'null', 'text', 'list'},
                'optim_wrapper.optimizer.lr': {'text', 'list', 'negative'},
                'optim_wrapper.optimizer.type': {'text', 'negative'},
                'train_dataloader.batch_size': COUNT,
                'train_dataloader.num_workers': {'text', 'negative', 'list'},
                'default_hooks.checkpoint.type': {'text'},
                'randomness.seed': {'text', 'negative', 'list', 'huge', 'dict'},
            },
        ),
        (
            'training',
            supernet[:2] + ('steps/networks/baseline/config.py',),
            {
                'model.backbone.init_cfg': NAME,
                'model.backbone.init_cfg.type': NAME | {'null'},
                'model.neck': {'text', 'negative', 'list'},
                'custom_hooks.no_type': {'zero'},
                'default_hooks': {'text', 'list'},
                'optim_wrapper': {'text', 'list', 'negative'},
                'param_scheduler': {'text', 'negative', 'list', 'dict'},
                'train_cfg': {'text', 'negative', 'list', 'dict'},
                'train_cfg.max_epochs': COUNT,
                'load_from': {'text', 'list', 'negative'},
                'randomness.seed': {'text', 'negative', 'huge'},
            },
        ),
        (
            'stage backbone',
            stage_flops,
            {
                'model.backbone.supernet': NAME,
                'model.backbone.stage_choices': VALUES.keys() - {'null'},
                'model.backbone.stage_choices.stage1': VALUES.keys() - {'list'},
                'model.backbone.share': NAME | {'null'},
                'model.backbone.type': NAME | {'null'},
            },
        ),
        (
            'operation backbone',
            flops,
            {
                'model.backbone.stage_blocks': VALUES.keys() - {'null'},
                'model.backbone.dilations': VALUES.keys() - {'null'},
                'model.backbone.choices': VALUES.keys() - {'null'},
                'model.backbone.base_channels': COUNT,
                'model.backbone.no_such_option': {'zero'},
            },
        ),
        (
            'fixed backbone',
            flops[:2] + (network,),
            {
                'model.backbone.stage_blocks': VALUES.keys() - {'null'},
                'model.backbone.dilations': VALUES.keys() - {'null'},
                'model.rpn_head.type': {'text', 'null'},
            },
        ),
    ]
    for kind, (tool, argv, base), fields in tables:
        for path, bad in fields.items():
            for value in sorted(bad):
                yield Case(
                    f'{kind}: {value}',
                    f'{kind}: {path} = {value}',
                    tool,
                    argv,
                    _naming(path, value),
                    _changed(path, VALUES[value], base),
                )


#: What a message may call a field instead.
CALLED = dict(optimizer='SGD', ann_file='Annotation', init_cfg='ResNet')
SHOWN = dict(nested='deep', dict="'a'", list='1')


def _naming(path: str, value: str) -> str:
    """What a message on a field has: its name, or the value."""
    names = [name for name in path.split('.') if name not in ('model', 'test_cfg')]
    names += [CALLED[name] for name in names if name in CALLED]
    shown = SHOWN.get(value, str(VALUES[value]))
    return '|'.join(map(re.escape, [*names, path, shown]))


def _paths() -> Iterator[Case]:
    """Paths that cannot be read."""
    step = 'steps/{}/config.py'.format
    shown = 'analysis_tools/', 'dataset_converters/', 'model_converters/'
    inputs = {
        'config of reallocate': ('reallocate', ('BAD', '--work-dir', 'new')),
        'config of train': ('train', ('BAD', '--work-dir', 'new')),
        'config of test': ('test', ('BAD', 'whole.pth', '--work-dir', 'new')),
        'config of search': ('search', ('BAD', 'stage.pth', '--work-dir', 'new')),
        'config of get_flops': (f'{shown[0]}get_flops', ('BAD',)),
        'config of latency_table': (f'{shown[0]}latency_table', ('BAD',)),
        'config of ranking': (f'{shown[0]}ranking', ('BAD', '--work-dir', 'new')),
        'checkpoint of search': (
            'search',
            (step('02_stage_search'), 'BAD', '--work-dir', 'new'),
        ),
        'checkpoint of test': (
            'test',
            (step('networks/baseline'), 'BAD', '--work-dir', 'new'),
        ),
        'checkpoint of train': (
            'train',
            (step('networks/baseline'), '--work-dir', 'new', '--resume', 'BAD'),
        ),
        'checkpoint of extract_subnet': (
            f'{shown[2]}extract_subnet',
            (step('01_stage_supernet'), 'BAD', 'arch.json', 'new.pth'),
        ),
        'arch of extract_subnet': (
            f'{shown[2]}extract_subnet',
            (step('01_stage_supernet'), 'stage.pth', 'BAD', 'new.pth'),
        ),
        'checkpoint of reallocate_weights': (
            f'{shown[2]}reallocate_weights',
            ('BAD', step('networks/baseline'), 'new.pth'),
        ),
        'annotations of split_coco': (
            f'{shown[1]}split_coco',
            ('BAD', '--archval', '4', '--out-dir', 'new'),
        ),
        'archval of reallocate': (
            'reallocate',
            ('mine.py', '--archval', 'BAD', '--work-dir', 'new', '--write-only'),
        ),
        'latency table of reallocate': (
            'reallocate',
            (*('mine.py', '--budget', 'latency', '--latency-table', 'BAD'),)
            + ('--work-dir', 'new', '--write-only'),
        ),
        'search of ranking': (
            f'{shown[0]}ranking',
            (*('mine.py', '--work-dir', 'new', '--search', 'a=BAD'),),
        ),
    }
    for role, (tool, argv) in inputs.items():
        for fault, (path, prepare) in BROKEN.items():
            given = tuple(word.replace('BAD', path) for word in argv)
            new = ('new/members.json', 'new/.lock', 'new') if 'ranking' in role else ()
            yield Case(
                f'path: {fault}', f'{role}: {fault}', tool, given, '', prepare, new=new
            )


def _written(path: str, content: bytes) -> Callable:
    def write() -> None:
        Path(path).write_bytes(content)

    return write


BROKEN = {
    'missing': ('nowhere.x', None),
    'empty name': ('', None),
    'a folder': ('data', None),
    'empty': ('empty.py', _written('empty.py', b'')),
    'binary': ('binary.py', _written('binary.py', bytes(range(256)) * 9)),
    'a loop of links': ('loop.py', lambda: os.symlink('loop.py', 'loop.py')),
    'too long': ('n' * 300 + '.py', None),
    'not UTF-8 name': ('n\udcff.py', None),
    'below a file': ('mine.py/x.py', None),
    'null byte': ('a\0b.py', None),
    'unreadable': ('/proc/self/mem', None),
    'null device': ('/dev/null', None),
}


def _outputs() -> Iterator[Case]:
    """Places that cannot be written to, or hold something else."""
    step = 'steps/{}/config.py'.format
    folders = {
        'reallocate': ('reallocate', ('mine.py', '--write-only', '--work-dir', 'OUT')),
        'train': ('train', (step('networks/baseline'), '--work-dir', 'OUT')),
        'test': ('test', (step('networks/baseline'), 'whole.pth', '--work-dir', 'OUT')),
        'search': (
            'search',
            (step('02_stage_search'), 'stage.pth', '--work-dir', 'OUT'),
        ),
        'ranking': ('analysis_tools/ranking', ('mine.py', '--work-dir', 'OUT')),
        'make_shapes': (
            'dataset_converters/make_shapes',
            (*('--train', '2', '--image-size', '64', '--out-dir', 'OUT'),),
        ),
        'split_coco': (
            'dataset_converters/split_coco',
            ('data/shapes/train.json', '--archval', '4', '--out-dir', 'OUT'),
        ),
    }
    places = {
        'empty name': ('', None),
        'a file': ('arch.json', None),
        'below a file': ('arch.json/new', None),
        'a loop of links': ('loop', lambda: os.symlink('loop', 'loop')),
        'too long': ('n' * 300, None),
        'not a real file system': ('/proc/new', None),
        'null byte': ('a\0b', None),
        'a dead link': ('dead', lambda: os.symlink('/proc/nothing/there', 'dead')),
    }
    for role, (tool, argv) in folders.items():
        for fault, (path, prepare) in places.items():
            given = tuple(path if word == 'OUT' else word for word in argv)
            yield Case(
                f'folder: {fault}', f'{role} to {fault}', tool, given, '', prepare
            )
    converted = step('01_stage_supernet'), 'stage.pth', 'arch.json'
    files = {
        'test --out': (
            'test',
            (
                step('networks/baseline'),
                'whole.pth',
                '--work-dir',
                'new',
                '--out',
                'OUT.pkl',
            ),
            'whole.pth',
        ),
        'latency_table --out': (
            'analysis_tools/latency_table',
            (*(step('02_stage_search'), '--shape', '96', '--repeats', '1'),)
            + ('--check', '0', '--out', 'OUT'),
            step('02_stage_search'),
        ),
        'extract_subnet': (
            'model_converters/extract_subnet',
            (*converted, 'OUT'),
            'stage.pth',
        ),
        'reallocate_weights': (
            'model_converters/reallocate_weights',
            ('whole.pth', step('networks/full_cr'), 'OUT'),
            'whole.pth',
        ),
        'zoo_costs --out': ('analysis_tools/zoo_costs', ('--out', 'OUT'), 'mine.py'),
    }
    for role, (tool, argv, source) in files.items():
        for fault, (path, prepare) in _places_of(source).items():
            if role == 'test --out' and fault in NO_PICKLE:
                continue
            given = tuple(
                path.removesuffix('.pkl') + word[3:]
                if 'OUT.' in word
                else word.replace('OUT', path)
                for word in argv
            )
            said = f'file: {fault}', f'{role} to {fault}'
            yield Case(*said, tool, given, '', prepare)


#: Faults that are none with another ending.
NO_PICKLE = (
    *('over its input', 'over its input by ./', 'over its input by ..', 'empty name'),
)


def _places_of(source: str) -> dict[str, tuple]:
    """Where a file cannot go."""
    shown = Path(source).parent / '.' / Path(source).name

    def link(kind: Callable, name: str) -> Callable:
        return lambda: kind(Path(source).resolve(), name)

    return {
        'over its input': (source, None),
        'over its input by ./': (f'./{shown}', None),
        'over its input by ..': (f'data/../{source}', None),
        'over its input by a link': ('link.pkl', link(os.symlink, 'link.pkl')),
        "over another's file": ('own.pkl', _written('own.pkl', b'mine')),
        'a folder': ('dir.pkl', lambda: Path('dir.pkl').mkdir()),
        'empty name': ('', None),
        'in no folder': ('nowhere/new.pkl', None),
        'below a file': ('mine.py/new.pkl', None),
        'too long': ('n' * 300 + '.pkl', None),
        'null byte': ('a\0b.pkl', None),
        'a loop of links': ('loop.pkl', lambda: os.symlink('loop.pkl', 'loop.pkl')),
        'not a real file system': ('/proc/new.pkl', None),
    }


def _configs() -> Iterator[Case]:
    """Config files that are none."""
    texts = {
        'no Python': 'a = (',
        'indentation': 'a = 1\n  b = 2',
        'a name that is not defined': "_base_ = 'mine.py'\na = nothing",
        'an error of its own': "_base_ = 'mine.py'\na = 1 / 0",
        'a base that is missing': "_base_ = 'nowhere.py'",
        'a base that is a folder': "_base_ = 'data'",
        'its own base': "_base_ = 'bad.py'",
        'a base that is null': '_base_ = None',
        'a base of a package that is missing': "_base_ = 'mmnothing::a.py'",
        'a base of mmdet that is missing': "_base_ = 'mmdet::a.py'",
        'two bases of one name': "_base_ = ['mine.py', 'mine.py']",
        'nothing': '',
        'no model': 'a = 1',
        'an end of the process': 'raise SystemExit(3)',
        'a null byte': 'a = "\0"',
        'nothing of this registry': "_base_ = 'mine.py'\n"
        "model = dict(backbone=dict(type='CRResNot'))",
        'a key of a base that is missing': "_base_ = 'mine.py'\na = _base_.nothing",
        'a reserved name': "_base_ = 'mine.py'\nfilename = 'a'",
        'an import that is missing': "_base_ = 'mine.py'\n"
        "custom_imports = dict(imports=['nothing_there'])",
        'a value where the base has a dict': "_base_ = 'mine.py'\n"
        "model = dict(backbone=dict(init_cfg=dict(a=1)), neck='FPN')",
        'deep nesting': "_base_ = 'mine.py'\na = " + '[' * 150 + ']' * 150,
        'an old variable': "a = '$CR_STEP'",
    }
    tools = {
        'reallocate': ('bad.py', '--work-dir', 'new', '--write-only'),
        'train': ('bad.py', '--work-dir', 'new'),
        'search': ('bad.py', 'stage.pth', '--work-dir', 'new'),
        'analysis_tools/get_flops': ('bad.py', '--shape', '96'),
    }
    for fault, text in texts.items():
        for tool, argv in tools.items():
            if text.startswith("_base_ = ['mine") and tool != 'train':
                continue
            prepare = _written('bad.py', text.encode())
            yield Case(
                'config: ' + fault, f'{tool}: config: {fault}', tool, argv, '', prepare
            )


def _json() -> Iterator[Case]:
    """JSON files that are damaged."""
    damages = {
        'cut': b'{"a": 1',
        'a list': b'[1, 2]',
        'a number': b'7',
        'null': b'null',
        'deep': b'[' * 100_000,
        'not UTF-8': b'\xff\xfe{}',
        'NaN': b'{"a": NaN, "arch": {"stage1": NaN}}',
        'other keys': b'{"done": true, "conditions": [1], "configs": 5}',
        'empty': b'',
    }
    work = 'reallocate', ('mine.py', '--work-dir', 'steps', '--write-only')
    converted = 'steps/01_stage_supernet/config.py', 'stage.pth', 'broken.json'
    extract = 'model_converters/extract_subnet', (*converted, 'new.pth')
    split = (
        'dataset_converters/split_coco',
        ('broken.json', '--archval', '4', '--out-dir', 'new'),
    )
    table = (
        'reallocate',
        (*('mine.py', '--budget', 'latency', '--latency-table', 'broken.json'),)
        + ('--work-dir', 'new', '--write-only'),
    )
    for damage, content in damages.items():
        for role, (tool, argv), path in (
            ('configs.json', work, 'steps/configs.json'),
            ('arch', extract, 'broken.json'),
            ('annotations', split, 'broken.json'),
            ('cost table', table, 'broken.json'),
            ('step.json', work, 'steps/01_stage_supernet/step.json'),
        ):

            def prepare(path=path, content=content) -> None:
                Path(path).write_bytes(content)
                folder = Path(path).parent
                if path.endswith('step.json'):
                    (folder / 'last_checkpoint').write_text('epoch_1.pth')

            if role == 'configs.json' and damage in ('other keys', 'NaN'):
                continue
            yield Case(f'JSON: {damage}', f'{role}: {damage}', tool, argv, '', prepare)


def _options() -> Iterator[Case]:
    """What is typed."""
    search = 'steps/02_stage_search/config.py', 'stage.pth', '--work-dir', 'new'
    given = ('mine.py', '--work-dir', 'new', '--write-only')
    typed = {
        'a dict': 'test_cfg.budget=dict(type="macs",value=1)',
        'open brackets': 'test_cfg.budget=[1,2',
        'crossed brackets': 'test_cfg.budget=(1,[2)]',
        'no value': 'test_cfg.budget',
        'no key': '=5',
        'a key below a number': 'test_cfg.budget.type=5',
        'an index beyond a list': 'custom_hooks.99.type=5',
        'no index': 'custom_hooks.first.type=5',
        'deep brackets': 'test_cfg.budget=' + '[' * 2000 + ']' * 2000,
        'braces': 'test_cfg.budget={type:macs}',
    }
    for fault, text in typed.items():
        yield Case(
            '--cfg-options',
            f'--cfg-options: {fault}',
            'search',
            (*search, '--cfg-options', text),
        )
    numbers = {
        'reallocate': (
            given,
            ('--gpus', '--width', '--archval', '--candidates', '--trainings')
            + ('--jobs', '--gate', '--check-images'),
        ),
        'dataset_converters/make_shapes': (
            ('--out-dir', 'new'),
            ('--train', '--seed', '--image-size'),
        ),
        'dataset_converters/split_coco': (
            ('data/shapes/train.json', '--out-dir', 'new'),
            ('--archval',),
        ),
        'analysis_tools/get_flops': (
            ('steps/networks/baseline/config.py',),
            ('--shape',),
        ),
        'analysis_tools/latency_table': (
            ('steps/02_stage_search/config.py', '--out', 'new.json'),
            ('--shape', '--repeats', '--check', '--device'),
        ),
        'analysis_tools/ranking': (
            ('mine.py', '--work-dir', 'new'),
            ('--members', '--seeds', '--search'),
        ),
        'model_converters/reallocate_weights': (
            ('whole.pth', 'steps/networks/baseline/config.py', 'new.pth'),
            ('--seed', '--prefix'),
        ),
    }
    for tool, (argv, options) in numbers.items():
        for option in options:
            for value in ('', 'abc', '-1', '0', '1.5', 'nan', '1' * 30):
                if (option, value) in ACCEPTED:
                    continue
                yield Case(
                    f'option: {value[:5] or "empty"}',
                    f'{tool} {option}={value}',
                    tool,
                    (*argv, f'{option}={value}'),
                )
    for tool in ('reallocate', 'train', 'test', 'search'):
        yield Case('option: none', f'{tool} without anything', tool, ())
        yield Case(
            'option: unknown', f'{tool} --nothing', tool, ('a', 'b', '--nothing')
        )
    yield Case('option: fp16', 'train --amp', 'train', (*search[:1], '--amp'), 'GPU')


#: What is no mistake.
ACCEPTED = {
    *(('--width', '1.5'), ('--train', '0'), ('--seed', '0'), ('--check', '0')),
    *(('--prefix', 'abc'), ('--width', '1' * 30), ('--prefix', '')),
    # as much work as was asked for
    *((name, '1' * 30) for name in ('--train', '--seed', '--repeats', '--check')),
    *((name, '1' * 30) for name in ('--candidates', '--jobs', '--check-images')),
    ('--check-images', '0'),
}


FAULTS = ('accepted', 'traceback', 'changed', 'left behind')


def table(verdicts: list[Verdict]) -> str:
    """For people, in Markdown: how inputs of each kind ended."""
    kinds: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        kinds.setdefault(verdict.case.kind.partition(': ')[0], []).append(verdict)
    columns = ['what is wrong', 'inputs', 'as they should', *FAULTS, 'else']
    lines = []
    for kind, found in (*kinds.items(), ('in all', verdicts)):
        faults = Counter(v.faults[0].partition(':')[0] for v in found if v.faults)
        counts = [faults[fault] for fault in FAULTS]
        other = faults.total() - sum(counts)
        cells = kind, len(found), len(found) - faults.total(), *counts, other
        lines.append(map(str, cells))
    return markdown_table(columns, lines, words=(0,))


def main(argv: list[str]) -> int:
    """Runs the cases, or those whose kind and name match regular expressions.

    Returns:
        The exit status.
    """
    chosen = [
        c for c in cases() if all(re.search(w, f'{c.kind} {c.name}') for w in argv)
    ]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder).resolve())
        verdicts = []
        for case in chosen:
            verdicts.append(verdict := campaign.run(case))
            if verdict.faults:
                print(f'{case.name}: {"; ".join(verdict.faults)}', flush=True)
        os.chdir(ROOT)
    print(f'{time.monotonic() - begin:.0f} s\n{table(verdicts)}')
    return int(any(verdict.faults for verdict in verdicts))
