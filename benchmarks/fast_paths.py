"""Which of the fast paths of a search on a CPU has the gain.

The same candidates are scored exactly, in one process and in turn, forwards and
backwards: as the search does today ("all"), with some of the fast paths, and in mmdet's
own arithmetic ("plain"). Prints seconds per candidate by the wall clock and of the
processor, the ratios to "all" (medians over the repeats), and the largest difference of
scores to "plain".

    CR_STEP=crnas/stage_search_r18 python benchmarks/fast_paths.py CONFIG CHECKPOINT \
        --out DIR --candidates 40 --archval 100 --calibration 100 --repeats 4
"""

import time
from contextlib import contextmanager, nullcontext
from statistics import median
from unittest import mock

import search_speed

import mmcr.scoring.evaluator as scoring
from mmcr.search import Complete, Proposal

PARTS = ('roi_align', 'folding', 'channels_last')
WAYS = {
    'all': PARTS,
    'roi_align': PARTS[:1],
    'roi_align+folding': PARTS[:2],
    'roi_align+channels_last': PARTS[::2],
    'plain': (),
}


@contextmanager
def only(parts):
    """Leaves the other fast paths out."""
    norms = scoring.PathNorms

    def path_norms(backbone, behind, keep_bytes, fold, adapt):
        return norms(backbone, behind, keep_bytes, 'folding' in parts, adapt)

    with mock.patch.object(scoring, 'PathNorms', path_norms):
        with leave_out('fast_roi_align', 'roi_align' in parts):
            with leave_out('channels_last', 'channels_last' in parts):
                yield


def leave_out(name, kept):
    if kept:
        return nullcontext()
    return mock.patch.object(scoring, name, lambda model: nullcontext())


def main() -> None:
    args = search_speed.parse_args()
    benchmark = search_speed.Benchmark(search_speed.load_config(args), args)
    benchmark.warm_up()
    proposals = [Proposal(Complete(arch)) for arch in benchmark.space]
    walls, cpus, scores = ({way: [] for way in WAYS} for _ in range(3))
    for repeat in range(args.repeats):
        for way in list(WAYS)[:: -1 if repeat % 2 else 1]:
            evaluator = benchmark.evaluator(benchmark.candidates.archval)
            with only(WAYS[way]):
                start = time.perf_counter(), time.process_time()
                trials = evaluator.evaluate(proposals)
                walls[way].append(time.perf_counter() - start[0])
                cpus[way].append(time.process_time() - start[1])
            scores[way] = [trial.score for trial in trials]
            print(repeat, way, f'{cpus[way][-1] / len(proposals):.3f}', flush=True)
    for way in WAYS:
        wall, cpu = (median(s[way]) / len(proposals) for s in (walls, cpus))
        ratios = [
            median(a / b for a, b in zip(s[way], s['all'])) for s in (walls, cpus)
        ]
        difference = max(100 * abs(a - b) for a, b in zip(scores[way], scores['plain']))
        print(
            f'{way:24} wall {wall:.3f} s, CPU {cpu:.3f} s a candidate; to "all": wall '
            f'{ratios[0]:.3f}, CPU {ratios[1]:.3f}; AP to "plain": {difference:.4f}'
        )


if __name__ == '__main__':
    main()
