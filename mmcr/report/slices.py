"""Slices of archval in words."""

from dataclasses import dataclass

from mmcr.search.candidate import batches_before

#: Where slices start and stop, as fractions of archval's mini-batches.
Spans = tuple[tuple[float, float], ...]
ALL: Spans = ((0.0, 1.0),)


@dataclass(frozen=True)
class Slices:
    """Says which images a slice of archval has."""

    images: int | None = None  # of archval, where that is known
    batch_size: int = 1

    def words(self, spans: Spans) -> str:
        """The slices of a candidate, as 'first 32 of 500 images'."""
        if spans == ALL:
            return f'all {self.images} images' if self.images else 'all images'
        (start, stop), *others = spans
        if start == 0 and not others:
            if self.images:
                return f'first {self._count(spans)} of {self.images} images'
            return f'first {100 * stop:.3g}% of the images'
        number = round(1 / (stop - start))
        numbers = [1 + round(start * number) for start, _ in spans]
        text = f'slices {_ranges(numbers)} of {number}'
        if not self.images:
            return text
        count = self._count(spans)
        part = 'all' if count == self.images else f'{count} of'
        return f'{text} ({part} {self.images} images)'

    def _count(self, spans: Spans) -> int:
        """A batch belongs to the slice that it begins in, as when it is scored."""
        batches = -(-self.images // self.batch_size)
        return sum(
            min(self.batch_size, self.images - batch * self.batch_size)
            for span in spans
            for batch in range(*(batches_before(part, batches) for part in span))
        )


def _ranges(numbers: list[int]) -> str:
    """Rising numbers, as '1-3, 5'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ', '.join(
        f'{run[0]}-{run[-1]}' if len(run) > 1 else f'{run[0]}' for run in runs
    )
