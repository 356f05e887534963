"""A reallocation that grows what it finds from the detector that the user has trained.

Supernets start from nothing and say where blocks should be; the networks that they find
then start from the user's checkpoint, block by block (`mmcr.ReallocatedInit`), and are
trained on for as long as the detector itself.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmcr.errors import UserError
from mmcr.models.weights.report import ChainReport
from mmcr.workflow.baseline import checkpoint_of
from mmcr.workflow.contests.finals import Finals
from mmcr.workflow.contests.grown_finals import GrownFinals
from mmcr.workflow.continuation import Continuation, absolute, unlike
from mmcr.workflow.reallocation import Reallocation
from mmcr.workflow.settings import Settings

COLD = 'none'  # in the place of a checkpoint: the config's own is left out
SEEN = (
    'The checkpoint may have been trained on the images of archval, which favours '
    'architectures like its own: name images that it has not seen by --archval FILE.'
)


def wanted(cfg: Config, settings: Settings) -> str | None:
    """The checkpoint of the detector that a reallocation is to start from.

    That of the settings, else what the config starts all of the model from, which
    means nothing to DetNAS's networks.
    """
    own = checkpoint_of(cfg) if settings.method == 'crnas' else None
    checkpoint = settings.checkpoint or own
    if checkpoint not in (None, COLD) and settings.scales:
        raise UserError(
            f'Scales of images are searched from nothing, but this reallocation would '
            f'start from {checkpoint}. Give --from {COLD}, or leave scales out.'
        )
    if checkpoint in (None, COLD):
        if settings.grow:
            raise UserError(
                'What is found grows from a trained detector (--grow), but none is '
                'named. Name its checkpoint by --from, or leave --grow out.'
            )
        if settings.front:
            raise UserError(
                'A front is one of networks that can be used as the supernet has them, '
                'which a trained detector starts. Name its checkpoint by --from, or '
                'leave --front out.'
            )
        return None
    return absolute(checkpoint)


def _said(depths: Sequence[ChainReport]) -> str:
    return ', '.join(
        f'{each.name} {each.source_blocks} there, {each.blocks} here' for each in depths
    )


class GrownReallocation(Reallocation):
    """All steps of a reallocation whose networks start from a trained detector.

    Args:
        checkpoint: Of the detector, from `wanted`; the others as there.

    Raises:
        UserError: As there, or the checkpoint is not of the detector.
    """

    how_it_starts = (
        'Start: your detector and what is found start from {}, block by block, and are '
        'trained on for equal epochs; the supernets start from nothing.'
    )

    def __init__(
        self,
        cfg: Config,
        name: str,
        work_dir: str | Path,
        settings: Settings,
        checkpoint: str,
    ) -> None:
        if settings.method != 'crnas':
            raise UserError(
                f'A trained detector starts networks of its own blocks (crnas), but '
                f'got method={settings.method!r}. Leave it out, or give --from {COLD}.'
            )
        super().__init__(cfg, name, work_dir, settings)
        self.checkpoint = checkpoint
        self.how = Continuation.of(self.settings.options)
        self._check_checkpoint()
        if self.baseline.dilates_by_block:
            self.notes.append(
                'Dilations that your backbone has block by block are 1 in networks of '
                'other blocks, until an operation search gives them some.'
            )

    def _check_checkpoint(self) -> None:
        try:
            others, depths = unlike(self.baseline, self.checkpoint)
        except UserError as error:
            if self.settings.checkpoint:
                raise
            raise UserError(
                f'{error} It is what the config starts all of its model from; --from '
                f'{COLD} leaves it out.'
            ) from error
        self.is_whole = not others and not depths
        if depths and self.settings.checkpoint:
            raise UserError(
                f'--from takes a checkpoint of this detector, but {self.checkpoint} '
                f'has other numbers of blocks: {_said(depths)}. Give the config that '
                f'it was trained with.'
            )
        if others and self.settings.checkpoint:
            raise UserError(
                f'--from takes a checkpoint of this detector, but in {self.checkpoint} '
                f'{len(others)} weights of its neck and heads are missing or of '
                f'another shape, such as {others[0]}. Give the config that it was '
                f'trained with.'
            )
        self.notes.append(self.how_it_starts.format(self.checkpoint))
        if depths:
            self.notes.append(
                f'It has other numbers of blocks ({_said(depths)}), so that your '
                f'detector starts from it as the networks that are found do: block by '
                f'block, new blocks as the identity.'
            )
        if others:
            self.notes.append(
                f'{len(others)} weights of neck and heads are not in it, or of another '
                f'shape ({others[0]}): these start at random, each network its own.'
            )
        if not os.path.isfile(str(self.settings.archval)):  # drawn of the training's
            self.notes.append(SEEN)

    def _make_finals(self) -> Finals:
        return GrownFinals(
            *self._of_finals(), checkpoint=self.checkpoint, is_whole=self.is_whole
        )

    @property
    def length(self) -> float:
        """Of a training of the run-off, in trainings by the user's recipe."""
        return self.how.length
