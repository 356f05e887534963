"""The search as an mmengine loop (CR-NAS, Sec. 3)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

import mmcr.search
from mmcr.cost.budget import budget_name, budget_space
from mmcr.engine.archval_loop import ArchEvalLoop
from mmcr.engine.export import write_best, write_front
from mmcr.engine.progress import SearchProgress
from mmcr.errors import UserError
from mmcr.files import file_digest
from mmcr.models.weights.compatibility import check_supernet_checkpoint
from mmcr.registry import LOOPS, MODELS, TASK_UTILS, config_errors
from mmcr.search import JointSearcher, Journal, Proposal, Searcher, Trial, run_search

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
        **options: Of `ArchEvalLoop` and of `CandidateEvaluator`.

    Raises:
        CheckpointError: The checkpoint is not one of this supernet.
        BudgetError: No architecture meets the budget.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: Evaluator | dict | list,
        searcher: dict,
        budget: int | float | Mapping | list | None = None,
        final_backbone: Mapping | None = None,
        **options,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, **options)
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

        def evaluate(proposals: list[Proposal]) -> Iterator[Trial]:
            work = sum(proposal.width for proposal in proposals)
            yield from self.candidates.stream(
                proposals, lambda part: progress.scoring(part * work)
            )
            progress.finished(work)

        def record(trial: Trial) -> None:
            if is_main_process():
                self.journal.append(trial)

        best = run_search(self.searcher, evaluate, known, record)
        if is_main_process():
            self._export()
        metrics = dict(best.metrics)
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics

    def _known_scores(self) -> dict:
        """What the journal holds, on every rank; only the main process opens it."""
        shared: list = [None]
        if is_main_process():
            try:
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
            except OSError as error:
                rule = 'The journal must be written to the work dir, but that fails'
                shared = [UserError(f'{rule}: {error}')]
        broadcast_object_list(shared)
        if isinstance(shared[0], UserError):
            raise shared[0]
        return shared[0]

    def _export(self) -> None:
        searchers = {'': self.searcher}
        if isinstance(self.searcher, JointSearcher):
            searchers = self.searcher.searchers
        for name, searcher in searchers.items():
            folder = Path(self.runner.work_dir, name)
            if getattr(searcher, 'pareto', False):
                front = searcher.front()
                for i, trial in enumerate(front):
                    write_best(folder / f'front/{i}', trial, self._found_cfg(trial))
                write_front(folder, front, searcher.space)
            best = searcher.best()
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
