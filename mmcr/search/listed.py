"""Score the architectures of a list, and no others."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmcr.errors import UserError
from mmcr.search.candidate import Complete, Proposal
from mmcr.search.searcher import Rounds, Searcher
from mmcr.space import SearchSpace


class ListedSearcher(Searcher):
    """Asks for every architecture of a list, in one round.

    Args:
        space: What they are members of.
        archs: Each as `SearchSpace.member` takes it; or the name of a JSON file with
            a list of them.

    Raises:
        UserError: There is none, `archs` or the file is no list, or one of them is
            not a member of the space.
    """

    kind = 'listed'

    def __init__(self, space: SearchSpace, archs: Sequence[Mapping | Sequence] | str):
        super().__init__(space)
        if isinstance(archs, str | Path):
            archs = _read(Path(archs))
        if not isinstance(archs, Sequence):
            raise UserError(
                f'archs must be a list of architectures, also of a single one, or name '
                f'a JSON file with one, but got {archs!r}'
            )
        self.archs = tuple(dict.fromkeys(map(space.member, archs)))
        if not self.archs:
            raise UserError('archs must list one architecture at least, but is empty')

    def rounds(self) -> Rounds:
        yield [Proposal(Complete(arch)) for arch in self.archs]

    @property
    def total(self) -> int:
        return len(self.archs)

    def to_json(self) -> dict:
        return {**super().to_json(), 'archs': [list(a.values()) for a in self.archs]}


def _read(path: Path) -> list:
    try:
        archs = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f'archs must be a list or name a JSON file with one, but {path} cannot be '
            f'read: {error}'
        ) from None
    if not isinstance(archs, list):
        raise UserError(f'{path} must hold a list of architectures, but holds {archs}')
    return archs
