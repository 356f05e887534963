"""The commands of the room: what they say, where it goes, how they fail."""

import subprocess
import sys
from pathlib import Path

from mmcr.data import read_coco, split_coco, write_shapes

ROOT = Path(__file__).parents[2]


def run(tool: str, *arguments: str) -> tuple[int, list[str], str]:
    script = ROOT / 'tools/dataset_converters' / tool
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env={'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_split_coco(tmp_path):
    ann_file = write_shapes(tmp_path, 20, (64, 64))
    out = tmp_path / 'out'
    arguments = ['split_coco.py', str(ann_file), '--out-dir', str(out), '--archval']
    written = [out / 'archtrain.json', out / 'archval.json']
    assert run(*arguments, '6') == (0, [*map(str, written)], '')
    expected = split_coco(ann_file, 6, tmp_path / 'direct')
    assert [p.read_bytes() for p in written] == [p.read_bytes() for p in expected]

    code, said, error = run(*arguments, '20')
    assert (code, said, error.count('\n')) == (1, [], 1)
    assert error.startswith('error: archval must hold at least 1 image')


def test_make_shapes(tmp_path):
    arguments = ['make_shapes.py', '--out-dir', str(tmp_path), '--image-size', '64']
    written = [str(tmp_path / 'train.json'), str(tmp_path / 'val.json')]
    numbers = ['--train', '3', '--val', '2', '--test', '0']
    assert run(*arguments, *numbers) == (0, written, '')
    assert len(read_coco(tmp_path / 'val.json')['images']) == 2
    error = 'error: The seed must be an integer of at least 0, but got -3\n'
    assert run(*arguments, '--seed', '-3') == (1, [], error)
