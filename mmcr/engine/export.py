"""What a search leaves behind: the architecture, ready for any detector."""

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from zlib import crc32

from mmcr.errors import UserError
from mmcr.files import write_bytes
from mmcr.models.reallocated_backbone import ReallocatedBackbone
from mmcr.registry import MODELS
from mmcr.search.candidate import Trial
from mmcr.space.arch import Arch
from mmcr.space.space import SearchSpace

#: Arguments of a backbone that its detector decides.
OF_THE_DETECTOR = (
    *('out_indices', 'frozen_stages', 'norm_cfg', 'norm_eval', 'style', 'with_cp'),
    *('in_channels', 'num_stages', 'drop_path_rate'),
)


def write_best(folder: Path, trial: Trial, backbone_cfg: dict) -> None:
    """Writes ``best_arch.json`` and the config fragment ``best_arch.py``.

    A detector's config lists the fragment in ``_base_`` and sets
    ``model = dict(backbone=_base_.cr_arch)``, which changes what was reallocated and
    leaves the rest of its own backbone, such as `out_indices`, as it is. In the place
    of another backbone comes ``cr_backbone``, with ``cr_neck_in_channels``.

    Args:
        folder: Where to write; made if there is none.
        trial: The best one.
        backbone_cfg: Constructor arguments of the network to build from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = dict(
        arch=trial.proposal.candidate.arch.to_json(),
        backbone=backbone_cfg,
        score=trial.score,
        metrics=trial.metrics,
    )
    record['crc32'] = _checksum(record)
    _write_indented(folder / 'best_arch.json', record)
    comment = f'Found by search: {trial.score:.4f} on archval with supernet weights.'
    fragment = arch_fragment(backbone_cfg, comment)
    write_bytes(folder / 'best_arch.py', fragment.encode())


def read_arch(path: str | Path) -> Arch:
    """The architecture in ``best_arch.json``, or in a file of it alone.

    Raises:
        UserError: It is neither, or it is damaged.
    """
    try:
        content = json.loads(Path(path).read_text())
        if isinstance(content, dict) and isinstance(content.get('arch'), dict):
            noted = content.pop('crc32', None)  # earlier versions wrote none
            if noted not in (None, _checksum(content)):
                raise ValueError('it is not as it was written')
            content = content['arch']
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f'The architecture must be a best_arch.json that a search wrote, but '
            f'reading {path} fails: {error}'
        ) from None
    return Arch.from_json(content)


def _checksum(record: dict) -> str:
    return f'{crc32(json.dumps(record).encode()):08x}'


def set_aside(folder: Path) -> None:
    """Renames what an earlier search has left: it is not what this one has found."""
    for name in ('best_arch.json', 'best_arch.py', 'front.json', 'front'):
        _rename_away(folder / name)


def _rename_away(path: Path) -> None:
    if path.exists():
        numbers = (path.with_name(f'{path.name}.old{i}') for i in count(1))
        path.rename(next(place for place in numbers if not place.exists()))


def write_front(folder: Path, front: Sequence[Trial], space: SearchSpace) -> None:
    """Writes ``front.json``: architecture, score and, by the space, cost of each."""
    archs = [trial.proposal.candidate.arch for trial in front]
    members = [
        dict(arch=arch.to_json(), score=trial.score, cost=space.cost_of(arch))
        for trial, arch in zip(front, archs)
    ]
    _write_indented(folder / 'front.json', members)
    for i in count(len(front)):  # a longer front of an earlier search
        if not (folder / f'front/{i}').exists():
            break
        _rename_away(folder / f'front/{i}')


def _write_indented(path: Path, content: dict | list) -> None:
    write_bytes(path, (json.dumps(content, indent=2) + '\n').encode())


def arch_fragment(backbone_cfg: dict, comment: str) -> str:
    """The text of a config fragment that defines the backbone."""
    lines = ''.join(
        f'    {key}={_literal(value)},\n' for key, value in backbone_cfg.items()
    )
    network = MODELS.build(backbone_cfg)
    text = (
        f'# {comment}\n'
        f'cr_backbone = dict(\n    _delete_=True,\n{lines})\n'
        f'cr_neck_in_channels = {list(network.out_channels)}\n'
    )
    if isinstance(network, ReallocatedBackbone):
        others = '_delete_', *(k for k in backbone_cfg if k in OF_THE_DETECTOR)
        text += (
            '# For a detector with such a backbone, whose other settings stay.\n'
            'cr_arch = {\n    key: value\n    for key, value in cr_backbone.items()\n'
            f'    if key not in {others}\n}}\n'
            "cr_arch['reallocated_start'] = True\n"
        )
    return text


def _literal(value: object) -> str:
    if isinstance(value, tuple) and any(isinstance(entry, tuple) for entry in value):
        stages = ''.join(f'        {entry!r},\n' for entry in value)
        return f'(\n{stages}    )'  # one line per stage
    return repr(value)
