import subprocess
import sys
from pathlib import Path

HEAVY = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmdet')


def test_space_and_search_need_the_standard_library_only():
    script = (
        f'import sys; sys.modules.update(dict.fromkeys({HEAVY}))\n'
        'import mmcr.space, mmcr.search\n'
        'print(mmcr.search.ExhaustiveSearcher(mmcr.space.resnet_stage_space(8)).total)'
    )
    done = subprocess.run(
        [sys.executable, '-c', script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ('9\n', '')
