"""The search as an mmengine loop (CR-NAS, Sec. 3)."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

import mmcr.search
from mmcr.cost.budget import budget_name, budget_space
from mmcr.engine.archval_loop import ArchEvalLoop
from mmcr.engine.export import set_aside, write_best, write_front
from mmcr.engine.gate import check_open, look, not_told_apart
from mmcr.engine.progress import SearchProgress
from mmcr.errors import UserError
from mmcr.files import file_digest, write_json
from mmcr.models.weights.compatibility import check_supernet_checkpoint
from mmcr.registry import LOOPS, MODELS, TASK_UTILS, config_errors
from mmcr.scoring.evaluator import RESAMPLED
from mmcr.search import (
    JointSearcher,
    Journal,
    Proposal,
    Searcher,
    Trial,
    UnrankedError,
    run_search,
)
from mmcr.search.searcher import all_tie, compared, ranked

LOOKED_AT = 16  # of the best, for which of them the images cannot tell apart

for kind in vars(mmcr.search).values():
    if isinstance(kind, type) and issubclass(kind, Searcher) and kind is not Searcher:
        TASK_UTILS.register_module(module=kind)


@LOOPS.register_module()
class ArchSearchLoop(ArchEvalLoop):
    """Searches the supernet's space under one budget or several.

    Used as ``test_cfg``, so that it needs no optimizer. In the work dir it keeps the
    journal ``trials.jsonl``, from which a stopped search goes on, and at the end
    writes ``best_arch.json`` and ``best_arch.py``; with a list of budgets those of
    each into a folder of its name, such as ``budget_16``. A search for a front writes
    ``front.json`` as well, and the same two files of each of its architectures into
    ``front/0``, the cheapest, ``front/1`` and so on.

    Args:
        searcher: Config of the search method; it is given the space.
        budget: What the networks to find may cost: a number of blocks (N of
            Sec. 3.2) or a limit of another kind (`mmcr.cost.budget`), or a list of
            such: all are searched together, so that what they share is scored
            once. ``None`` where choices cost nothing.
        final_backbone: Backbone arguments that the found network gets in the
            place of the supernet's (usually its full width).
        gate: 'warn' or 'stop' where, before the search, the images of archval cannot
            tell a few networks of this supernet apart (`mmcr.engine.gate`); at the
            end, which of the best they cannot tell apart is written to
            ``not_told_apart.json``. Where the score is mAP; ``None``: neither.
        **options: Of `ArchEvalLoop` and of `CandidateEvaluator`.

    Raises:
        CheckpointError: The checkpoint is not one of this supernet.
        BudgetError: No architecture meets the budget.
        UnrankedError: At the end, scores that tell no architecture from another; what
            the other budgets of a list have found is written.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: Evaluator | dict | list,
        searcher: dict,
        budget: int | float | Mapping | list | None = None,
        final_backbone: Mapping | None = None,
        gate: str | None = None,
        **options,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, **options)
        if gate not in (None, 'warn', 'stop'):
            raise UserError(f'gate must be None, warn or stop, but got {gate!r}.')
        if gate and self.candidates.score.rpartition('/')[2] not in RESAMPLED:
            runner.logger.info(f'No gate: {self.candidates.score} is not mAP.')
            gate = None
        self.gate = gate
        # now: the runner loads whatever it finds before it runs the loop
        check_supernet_checkpoint(self.candidates.model, runner._load_from)
        with config_errors('final_backbone must be arguments of the backbone, but'):
            self.final_backbone = dict(final_backbone or {})
            backbone = self.candidates.backbone
            final = backbone.arch_cfg(backbone.space.sample(Random(0)))
            with torch.device('meta'):  # what is written in the end can be built
                MODELS.build({**final, **self.final_backbone})
        if isinstance(budget, list):
            names = [f'budget_{budget_name(each)}' for each in budget]
            if len(set(names)) < len(names):
                raise UserError(
                    f'The budgets of a list need names of their own, for the folders '
                    f'of the results, but those of {budget} are {", ".join(names)}. '
                    f'Leave out equal ones; give latency tables file names that differ.'
                )
            searchers = [self._searcher(searcher, each) for each in budget]
            self.searcher = JointSearcher(dict(zip(names, searchers)))
        else:
            self.searcher = self._searcher(searcher, budget)

    def _searcher(self, searcher: dict, budget: int | float | Mapping | None):
        backbone, detector = self.candidates.backbone, self.runner.cfg.model
        space = budget_space(backbone, self.final_backbone, budget, detector)
        return TASK_UTILS.build(dict(searcher, space=space))

    def run(self) -> dict:
        """Searches; returns the metrics of the best architecture."""
        self.runner.call_hook('before_test')
        self.runner.call_hook('before_test_epoch')
        known = self._known_scores()
        progress = SearchProgress(self.searcher.work, _work_of(known))
        if known:
            self.runner.logger.info(
                f'The journal holds {len(known)} trials: going on from there.'
            )
        elif self.gate:
            self._look()

        def evaluate(proposals: list[Proposal]) -> Iterator[Trial]:
            work, trials = sum(proposal.width for proposal in proposals), []
            for trial in self.candidates.stream(
                proposals, lambda part: progress.scoring(part * work)
            ):
                trials.append(trial)
                yield trial
            progress.finished(work)
            if all_tie(compared(trials)):
                self.runner.logger.warning(
                    f'All {len(trials)} trials of this round have equal scores, such '
                    f'as {trials[0].score}: their order decides which go on.'
                )

        def record(trial: Trial) -> None:
            if is_main_process():
                self.journal.append(trial)

        metrics, unranked = {}, None
        try:
            metrics.update(run_search(self.searcher, evaluate, known, record).metrics)
        except UnrankedError as error:
            unranked = error
        if self.gate and not unranked:
            self._write_not_told_apart()
        if is_main_process():
            self._export()
        if unranked:
            raise unranked
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics

    def _look(self) -> None:
        """Whether a search makes sense; before it, since that is the long part."""
        space = next(iter(self._searchers().values())).space
        if space.countable and space.size == 1:
            return  # there is nothing to tell apart
        cfg = self.runner.cfg.get('val_cfg') or {}
        references = {}
        for name, values in (cfg.get('archs') or {}).items():
            with suppress(UserError):  # not of this space
                references[name] = space.member(values)
        found = look(self.candidates, space, references)
        self.runner.logger.info(str(found))
        if warning := check_open(found, self.gate):
            self.runner.logger.warning(warning)

    def _write_not_told_apart(self) -> None:
        for name, searcher in self._searchers().items():
            best = ranked(searcher.complete)[:LOOKED_AT]
            archs = [trial.proposal.candidate.arch for trial in best]
            found = not_told_apart(self.candidates, archs)
            if is_main_process():
                folder = Path(self.runner.work_dir, name)
                folder.mkdir(exist_ok=True)
                write_json(folder / 'not_told_apart.json', found)
                self.runner.logger.info(
                    f'Of the best {found["of"]} the {found["images"]} images cannot '
                    f'tell {len(found["same"])} from the first.'
                )

    def _searchers(self) -> dict[str, Searcher]:
        """By the folder of its results."""
        if isinstance(self.searcher, JointSearcher):
            return self.searcher.searchers
        return {'': self.searcher}

    def _known_scores(self) -> dict:
        """What the journal holds, on every rank; only the main process opens it."""
        shared: list = [None]
        if is_main_process():
            try:
                self.check_score()
                header = dict(
                    space=self.searcher.space.to_json(),
                    searcher=self.searcher.to_json(),
                    checkpoint=file_digest(self.runner._load_from),
                    **self.fingerprint(),
                )
                self.journal = Journal(f'{self.runner.work_dir}/trials.jsonl', header)
                shared = [self.journal.scores]
            except UserError as error:  # the other ranks are waiting
                shared = [error]
        broadcast_object_list(shared)
        if isinstance(shared[0], UserError):
            raise shared[0]
        return shared[0]

    def _export(self) -> None:
        for name, searcher in self._searchers().items():
            folder = Path(self.runner.work_dir, name)
            try:
                best = searcher.best()
            except UnrankedError:  # raised when the others are written
                set_aside(folder)
                continue
            if getattr(searcher, 'pareto', False):
                front = searcher.front()
                for i, trial in enumerate(front):
                    write_best(folder / f'front/{i}', trial, self._found_cfg(trial))
                write_front(folder, front, searcher.space)
            write_best(folder, best, self._found_cfg(best))
            self.runner.logger.info(
                f'Best architecture: {best.proposal.candidate.arch} with '
                f'{self.candidates.score} {best.score:.4f}, written to '
                f'{folder}/best_arch.py'
            )

    def _found_cfg(self, trial: Trial) -> dict:
        """Constructor arguments of the network that was found."""
        arch = trial.proposal.candidate.arch
        return {**self.candidates.backbone.arch_cfg(arch), **self.final_backbone}


def _work_of(known: Mapping[str, dict]) -> float:
    """Of the trials that a journal holds, in candidates scored on all of archval."""
    portions = (json.loads(key)[1] for key in known)
    return sum(stop - start for start, stop in portions)
