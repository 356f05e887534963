"""What the page of a run is told beforehand."""

from mmcr.report.pages.run_page import Plan
from mmcr.workflow.contests.finals import CHOOSING, JUDGING
from mmcr.workflow.contests.run_off import BASELINE
from mmcr.workflow.steps import STAGE_SEARCH


def page_plan(work) -> Plan:
    """Of a `Reallocation`, after its `plan`."""
    schedule, steps = work.schedule, {step.name: step.title for step in work.steps}
    own = {STAGE_SEARCH: getattr(work, 'own', None)}  # DetNAS has none
    return Plan(
        name=work.name,
        work_dir=work.work_dir,
        about=work.understanding(),
        titles={**steps, CHOOSING: 'run-off', JUDGING: 'judging'},
        estimates=work.estimates,
        trainings={CHOOSING: schedule.choosing, JUDGING: 2 * schedule.judges},
        searches={
            step.name: own.get(step.name) for step in work.steps if step.supernet
        },
        baseline=BASELINE,
        metric=f'coco/{work.finals.kind}_mAP',
        jobs=work.settings.jobs,
        visualizer=work.baseline.cfg.get('visualizer'),
    )
