"""Slices of archval in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmcr.search.candidate import batches_before

#: Where slices start and stop, as fractions of archval's mini-batches.
Portions = tuple[tuple[float, float], ...]
ALL: Portions = ((0.0, 1.0),)


@dataclass(frozen=True)
class Slices:
    """Says which images a slice of archval has.

    Args:
        images: How many archval has, where that is known.
        batch_size: Of the batches that slices are made of.
    """

    images: int | None = None
    batch_size: int = 1

    def words(self, portions: Portions) -> str:
        """The slices of a candidate, as 'first 32 of 500 images'."""
        if portions == ALL:
            return f'all {self.images} images' if self.images else 'all images'
        if len(portions) == 1 and portions[0][0] == 0:
            if self.images:
                return f'first {self._count(portions)} of {self.images} images'
            return f'first {100 * portions[0][1]:.3g}% of the images'
        number = round(1 / (portions[0][1] - portions[0][0]))
        numbers = sorted(1 + round(start * number) for start, _ in portions)
        text = f'slices {_ranges(numbers)} of {number}'
        if not self.images:
            return text
        count = self._count(portions)
        part = 'all' if count == self.images else f'{count} of'
        return f'{text} ({part} {self.images} images)'

    def _count(self, portions: Portions) -> int:
        """A batch belongs to the slice that it begins in, as when it is scored."""
        batches = -(-self.images // self.batch_size)
        return sum(
            min(self.batch_size, self.images - batch * self.batch_size)
            for batch in range(batches)
            if any(
                batches_before(a, batches) <= batch < batches_before(b, batches)
                for a, b in portions
            )
        )


def _ranges(numbers: Sequence[int]) -> str:
    """As '1-3, 5'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ', '.join(
        f'{run[0]}-{run[-1]}' if len(run) > 1 else f'{run[0]}' for run in runs
    )
