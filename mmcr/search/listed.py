"""Score the architectures of a list, and no others."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmcr.checks import is_list
from mmcr.errors import UserError
from mmcr.search.candidate import Complete, Proposal
from mmcr.search.searcher import Rounds, Searcher
from mmcr.space import SearchSpace


class ListedSearcher(Searcher):
    """Asks for every architecture of a list, in one round.

    Args:
        space: What they are members of.
        archs: Each as `SearchSpace.member` takes it, which raises a UserError where it
            is none; or the name of a JSON file with a list of them.
    """

    kind = 'listed'

    def __init__(self, space: SearchSpace, archs: Sequence[Mapping | Sequence] | str):
        super().__init__(space)
        source = ''
        if isinstance(archs, str | Path):
            source = f' in {archs}'
            try:
                archs = json.loads(Path(archs).read_text())
            except (OSError, ValueError) as error:
                raise UserError(
                    f'archs must be a list or name a JSON file with one, but {archs} '
                    f'cannot be read: {error}'
                ) from None
        if not is_list(archs):
            raise UserError(
                f'archs must be a list of architectures, also of a single one, or name '
                f'a JSON file with one, but got {archs!r}{source}'
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
