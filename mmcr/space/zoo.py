"""The architectures that the paper publishes (CR-NAS, Tables 5 and 6)."""

from dataclasses import dataclass
from itertools import islice

from mmcr.space.arch import ArchError


@dataclass(frozen=True)
class Published:
    """A backbone before and after computation reallocation.

    Args:
        depth: The number in the network's name.
        baseline: Blocks per stage of the classifier's backbone.
        stage_cr: Blocks per stage after stage reallocation, as many in all.
        dilation_code: For every block of `stage_cr` 0, 1 or 2 for dilation 1, 2
            or 3; None where the paper publishes none.

    Raises:
        ArchError: The block counts and the code do not fit each other.
    """

    depth: int
    baseline: tuple[int, ...]
    stage_cr: tuple[int, ...]
    dilation_code: tuple[int, ...] | None = None

    def __post_init__(self):
        blocks = sum(self.stage_cr)
        if sum(self.baseline) != blocks:
            raise ArchError(
                'reallocation keeps the number of blocks, but got '
                f'{self.baseline} and {self.stage_cr}'
            )
        code = self.dilation_code
        if code is not None and (len(code) != blocks or not {0, 1, 2}.issuperset(code)):
            raise ArchError(
                f'a dilation code has one entry 0, 1 or 2 for each of the {blocks} '
                f'blocks of {self.stage_cr}, but got {code}'
            )

    @property
    def dilations(self) -> tuple[tuple[int, ...], ...] | None:
        """The dilation rates of `stage_cr`'s blocks by stage, None if unpublished."""
        if self.dilation_code is None:
            return None
        rates = (code + 1 for code in self.dilation_code)
        return tuple(tuple(islice(rates, blocks)) for blocks in self.stage_cr)


# fmt: off
PUBLISHED = {
    'r18': Published(18, (2, 2, 2, 2), (1, 1, 2, 4), (
        0,
        0,
        1, 0,
        1, 0, 2, 1)),
    'r50': Published(50, (3, 4, 6, 3), (1, 3, 5, 7), (
        0,
        0, 1, 0,
        0, 0, 1, 2, 0,
        0, 1, 0, 2, 1, 1, 2)),
    'r101': Published(101, (3, 4, 23, 3), (2, 3, 17, 11), (
        0, 0,
        0, 0, 0,
        0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0, 1, 0,
        1, 1, 0, 0, 1, 0, 1, 2, 0, 1, 1)),
    'x50': Published(50, (3, 4, 6, 3), (2, 2, 6, 6)),
    # 15 blocks in stage 3 are not among the paper's own choices for that stage:
    # any backbone accepts them, the stage space does not.
    'x101': Published(101, (3, 4, 23, 3), (3, 4, 15, 11)),
}
# fmt: on
