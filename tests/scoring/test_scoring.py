import logging
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmcr.data import CLASSES, write_shapes
from mmcr.errors import UserError
from mmcr.scoring import UnroundedCocoMetric
from mmcr.scoring.metric_pool import MetricPool, result_bytes

pytestmark = pytest.mark.usefixtures('quiet_mmdet')


class Sum(BaseMetric):
    """Of numbers; tells where it was computed and does what it is asked to."""

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        MMLogger.get_current_instance().info('a table')
        if 'raise' in results:
            raise UserError('AP needs objects.')
        if 'die' in results:
            os.kill(os.getpid(), signal.SIGKILL)
        if 'sleep' in results:
            time.sleep(60)
        return dict(sum=sum(results), pid=os.getpid(), threads=torch.get_num_threads())


@pytest.fixture(scope='module')
def pool():
    with MetricPool([Sum(prefix='a'), Sum()], 1) as pool:
        yield pool


def coco_results(path, seed):
    rng = np.random.default_rng(seed)
    metric = UnroundedCocoMetric(ann_file=str(path))
    metric.dataset_meta = dict(classes=CLASSES)
    samples = []
    for image in range(1, 6):
        boxes = rng.uniform(0, 96, (40, 2, 2))
        samples.append(
            dict(
                img_id=image,
                ori_shape=(96, 96),
                pred_instances=dict(
                    bboxes=torch.tensor(np.sort(boxes, axis=1).reshape(-1, 4)),
                    labels=torch.tensor(rng.integers(0, len(CLASSES), 40)),
                    scores=torch.tensor(rng.uniform(size=40)),
                ),
            )
        )
    for annotation in metric._coco_api.anns.values():  # so that something fits
        x, y, width, height = annotation['bbox']
        found = samples[annotation['image_id'] - 1]['pred_instances']
        found['bboxes'][0] = torch.tensor([x, y, x + width, y + height])
        found['labels'][0] = annotation['category_id'] - 1
    metric.process({}, samples)
    return metric, metric.results


def test_processes_give_the_values_of_this_one(tmp_path):
    path = write_shapes(tmp_path, 5, (96, 96), seed=1)
    metric, _ = coco_results(path, 0)
    candidates = [[coco_results(path, seed)[1]] for seed in range(4)]
    with MetricPool([metric], 0) as here, MetricPool([metric], 1) as there:
        expected = [here.submit(found).result() for found in candidates]
        futures = [there.submit(found) for found in candidates]
        assert [future.result(60) for future in futures] == expected
        futures = [there.submit(candidates[0]) for _ in range(200)]
    assert futures[-1].cancelled()  # they had not begun at the end
    assert all(future.done() for future in futures)
    assert expected[0]['coco/bbox_mAP'] > 0
    assert len({values['coco/bbox_mAP'] for values in expected}) == 4


def test_values_of_all_metrics_carry_their_prefix(pool):
    values = pool.submit([[1, 2], [3]]).result(60)
    assert list(values) == ['a/sum', 'a/pid', 'a/threads', 'sum', 'pid', 'threads']
    assert (values['a/sum'], values['sum']) == (3, 3)
    assert values['pid'] != os.getpid()
    assert values['threads'] == 1


def test_results_may_change_once_they_are_submitted(pool):
    results = [[1] * 1000, []]
    future = pool.submit(results)
    results[0].clear()
    assert future.result(60)['a/sum'] == 1000


def test_without_workers_it_is_done_at_once():
    metric = Sum()
    metric.results = [5]
    with MetricPool([metric], 0) as pool:
        future = pool.submit([[1, 2]])
        assert future.done()
        assert future.result()['pid'] == os.getpid()
        assert metric.results == []
        assert isinstance(pool.submit([['raise']]).exception(), UserError)


def test_an_error_of_a_metric_arrives_and_the_pool_goes_on(pool):
    with pytest.raises(UserError, match='AP needs objects'):
        pool.submit([[], ['raise']]).result(60)
    assert isinstance(pool.submit([[], ['x']]).exception(60), TypeError)
    assert pool.submit([[2], []]).result(60)['a/sum'] == 2


def test_a_process_that_dies_is_told(tmp_path):
    with MetricPool([Sum()], 1) as pool:
        waiting = [pool.submit([['die']]), pool.submit([[1]])]
        for future in waiting:
            with pytest.raises(UserError, match='process ended.*fewer'):
                future.result(60)
        with pytest.raises(UserError, match='process ended.*fewer'):
            pool.submit([[1]]).result(60)


@pytest.mark.slow
def test_processes_end_with_the_one_that_is_killed(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'import sys\n'
        'from test_scoring import MetricPool, Sum\n'
        'if __name__ == "__main__":\n'
        '    pool = MetricPool([Sum()], 1)\n'
        '    print("pid", pool.submit([[1]]).result()["pid"], flush=True)\n'
        '    pool.submit([["sleep"]]).result()\n'
    )
    with _started(script, stdout=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stdout if line.startswith('pid'))
        process.kill()
    worker = int(line.split()[1])
    deadline = time.monotonic() + 20
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(worker)


@pytest.mark.slow
def test_a_process_ends_whether_or_not_it_has_closed_its_pool(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'from test_scoring import MetricPool, Sum\n'
        'if __name__ == "__main__":\n'
        '    metric = Sum()\n'
        '    metric.more_than_a_pipe_takes = bytes(10**6)\n'
        '    pool = MetricPool([metric], 1)\n'
        '    raise SystemExit(3)\n'
    )
    with _started(script) as process:
        try:
            assert process.wait(60) == 3
        finally:
            process.kill()


def _started(script, **options):
    root = Path(__file__).parent
    path = os.pathsep.join([str(root), str(root.parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, 'PYTHONPATH': path},
        **options,
    )


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # ended, but nobody has asked for its exit status
    status = Path(f'/proc/{pid}/stat')
    return not status.exists() or status.read_text().split(')')[-1].split()[0] != 'Z'


@pytest.mark.parametrize('workers', (-1, 1.5, None))
def test_a_wrong_number_of_workers_is_refused(workers):
    with pytest.raises(UserError, match='0 or more.*' + str(workers)):
        MetricPool([Sum()], workers)


def test_a_metric_that_cannot_be_sent_is_refused():
    metric = Sum()
    metric.results = [1]
    metric.function = lambda: None
    with pytest.raises(UserError, match='picklable.*Sum.*0 scoring processes'):
        MetricPool([metric], 1)
    assert metric.results == [1]
    assert MetricPool([metric], 0).submit([[1]]).result()['sum'] == 1


def test_metrics_log_no_tables(caplog):
    pool = MetricPool([Sum()], 0)
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    try:
        pool.submit([[1]])
        logger.info('after')
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(level)
    assert [record.message for record in caplog.records] == ['after']


def image_results(count, masks, rng):
    """As mmdet's metric keeps them, every object a new one."""
    results = []
    for i in range(300, 700):
        found = dict(
            img_id=i,
            bboxes=rng.random((count, 4), np.float32),
            scores=rng.random(count, np.float32),
            labels=rng.integers(0, 80, count),
        )
        if masks:
            found['masks'] = [
                dict(size=[800 + i, 1333], counts=bytes(rng.integers(50, 250)))
                for _ in range(count)
            ]
        results.append((dict(width=1333, height=800, img_id=i), found))
    return [results]


@pytest.mark.parametrize('masks', (False, True))
@pytest.mark.parametrize('count', (0, 5, 100))
def test_bytes_are_those_that_were_allocated(count, masks):
    rng = np.random.default_rng(0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    results = image_results(count, masks, rng)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.8 * used < result_bytes(results) < 1.2 * used


def test_bytes_of_what_a_view_keeps():
    base = np.zeros(10_000)
    assert 80_000 < result_bytes([base[:2], base[2:4]]) < 81_000
    tensor = torch.zeros(10_000)
    views = [tensor[:2].numpy(), tensor[2:4].numpy(), tensor[:5], tensor]
    assert 40_000 < result_bytes(views) < 41_000
    assert result_bytes([torch.zeros(5000), torch.zeros(5000)]) > 40_000


def test_bytes_of_the_same_thing_twice():
    text = 'x' * 10_000
    assert result_bytes([text, text]) < 1.1 * result_bytes([text]) < 12_000
    ring = [text]
    ring.append(ring)
    assert 10_000 < result_bytes(ring) < 11_000
