"""The campaigns against "nothing silent, nothing lost", for people and nightly jobs.

python -m tests.campaign kills --count 1000 --seed 1 [--kinds evolution,joint] [--out F]
python -m tests.campaign kills --real [--kinds train.py]
python -m tests.campaign reallocations --count 24 --seed 1 [--kinds stage]
python -m tests.campaign flips --count 1000 --seed 1
python -m tests.campaign bad-inputs

Each prints a table in Markdown; benchmarks/results/reliability.md has the last ones.
"""

import sys
from importlib import import_module
from pathlib import Path

CAMPAIGNS = ('kills', 'reallocations', 'flips', 'bad-inputs')

if len(sys.argv) < 2 or sys.argv[1] not in CAMPAIGNS:
    sys.exit(__doc__)
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / 'engine')]  # helpers, as pytest finds them
module = import_module(f'.{sys.argv[1].replace("-", "_")}', __package__)
sys.exit(module.main(sys.argv[2:]))
