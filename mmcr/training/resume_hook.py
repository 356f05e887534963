"""Training that was interrupted ends where it would have ended anyway."""

from collections.abc import Iterator
from itertools import chain, repeat

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmcr.errors import UserError
from mmcr.models.detector import unwrapped
from mmcr.registry import HOOKS
from mmcr.training.numbered_batches import number_batches, seed_everything


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Makes a resumed run equal, bit for bit, to one that was never interrupted.

    mmengine restores weights, optimizer, schedules, averages and the seed, but no
    generator of random numbers, neither here nor in the workers, and in a loop by
    epochs no position inside the epoch; it builds the sampler of the images before
    it knows the checkpoint's seed. With this hook every iteration begins with
    generators whose state is a function of the run's seed, the rank and the
    iteration, and so does the loading of its batch. There is no state to save that
    grows, to gather from ranks or to lose in workers, and what happens between
    iterations, such as a validation, cannot leave a trace.

    Images, augmentations, samples and paths are the same on every device; weights
    only where the kernels give the same bits each time, as they do on a CPU.
    """

    priority = 'VERY_HIGH'  # what other hooks draw comes after

    def __init__(self) -> None:
        self._state = None  # of the checkpoint that the run goes on from
        self._done = 0  # batches of an interrupted epoch

    def before_train(self, runner: Runner) -> None:
        try:
            self.batches = number_batches(
                runner.train_dataloader, runner.seed, get_rank(), 'batch'
            )
        except UserError as error:
            self.batches = None
            runner.logger.warning(f'{error} A resumed run will not be exact.')
            return
        if self._state is not None:
            self._go_on(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        if self.batches is None:
            return
        if _is_one_epoch(runner):
            self.batches.seek(epoch=0, iteration=runner.iter, skip=runner.iter)
            self._begin_there(runner)
        else:
            self.batches.seek(runner.epoch, runner.iter, self._done)
            self._done = 0

    def _begin_there(self, runner: Runner) -> None:
        """Starts a loop by iterations where its batches stand, without loading."""
        loop = runner.train_loop
        images = loop.dataloader_iterator
        if hasattr(images, 'skip_iter'):
            images.skip_iter = lambda iterations: None
            return
        # That of mmengine 0.10.7 began when the loop was built, before this hook:
        # its workers took images of an endless sampler. It skips by asking for them.
        if isinstance(self.batches.sampler, InfiniteSampler):
            self.batches.sampler.indices = self.batches.sampler._indices_of_rank()
        loop.dataloader._iterator = None  # that of persistent workers
        skipped = repeat(None, runner.iter)
        loop.dataloader_iterator = chain(skipped, type(images)(loop.dataloader))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        seed_everything(runner.seed, get_rank(), 'step', runner.iter)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.batches is None:
            return
        checkpoint['exact_resume'] = dict(
            conditions=self._conditions(runner),
            length=len(self.batches),
            sampler_seed=getattr(self.batches.sampler, 'seed', None),
            # None: each process has its own, and this one cannot ask for them
            gradients=_gradients(runner) if get_world_size() == 1 else None,
            between_updates=bool(_gradients(runner)),
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self._state = checkpoint.get('exact_resume', {})

    def _go_on(self, runner: Runner) -> None:
        state, length = self._state, len(self.batches)
        for reason in self._inexact(runner):
            runner.logger.warning(
                f'{reason} The run goes on with the weights of the checkpoint, but '
                f'not bit for bit as one that was never interrupted.'
            )
        if state.get('sampler_seed') is not None:
            self.batches.sampler.seed = state['sampler_seed']
        # an epoch of another length goes on after the same part of it
        before = state.get('length', length)
        done = runner.iter - runner.epoch * before
        self._done = min(max(done, 0) * length // before, length)
        gradients = state.get('gradients')
        if gradients:
            for name, parameter in unwrapped(runner.model).named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter.device)
            runner.logger.info(
                'The gradients of the update that was interrupted are restored.'
            )

    def _inexact(self, runner: Runner) -> Iterator[str]:
        if not self._state:
            yield 'The checkpoint was written without mmcr.ExactResumeHook.'
            return
        now = self._conditions(runner)
        for name, before in self._state['conditions'].items():
            if before != now[name]:
                yield (
                    f'An exact run has the same {name} throughout, but got '
                    f'{now[name]} after {before}.'
                )
        if self._state['between_updates'] and self._state['gradients'] is None:
            yield (
                'The checkpoint of a distributed run lies between two updates and '
                'lacks the gradients gathered so far: save them at multiples of '
                'accumulative_counts.'
            )

    def _conditions(self, runner: Runner) -> dict[str, int | None]:
        return {
            'number of processes': get_world_size(),
            'number of training images': len(runner.train_dataloader.dataset),
            'batch size': self.batches.batch_size,
        }


def _is_one_epoch(runner: Runner) -> bool:
    """Whether the loop goes by iterations; mmengine calls all of them one epoch."""
    return hasattr(runner.train_loop, 'dataloader_iterator')


def _gradients(runner: Runner) -> dict[str, Tensor]:
    """Those that are there after an iteration: of an update that is not done yet."""
    return {
        name: parameter.grad
        for name, parameter in unwrapped(runner.model).named_parameters()
        if parameter.grad is not None
    }
