"""Tries every host and writes docs/hosts.md: about ten minutes on one core.

python -m tests.hosts [HOST ...]

With names of hosts it tries these alone and writes nothing.
"""

import sys
import tempfile
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS)]  # helpers, as pytest finds them


def main(names: list[str]) -> int:
    import torch
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope
    from tiny import write_data

    import mmcr.engine  # noqa: F401, registers what configs name

    from .table import HOSTS
    from .trial import page, tried

    torch.set_num_threads(1)  # a gain for so small networks
    MMLogger.get_instance('quiet', log_level='ERROR')
    init_default_scope('mmdet')
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = write_data(Path(folder, 'data'))
        for i, name in enumerate(names or HOSTS):
            start = time.monotonic()
            try:
                rows.append(tried(name, root, Path(folder, f'{i}')))
                said = rows[-1].text
            except Exception:
                said = f'{name} FAILED\n{traceback.format_exc(limit=-3)}'
            print(f'{time.monotonic() - start:5.1f} s  {said}', flush=True)
    if not names and len(rows) == len(HOSTS):
        (TESTS.parent / 'docs/hosts.md').write_text(page(rows))
    return len(rows) < len(names or HOSTS)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
