"""Times a whole search on one core, for runs of two checkouts in turn.

The supernet has random weights, alike in all checkouts: what a search takes does not
depend on what it finds. Which mmcr runs is decided by PYTHONPATH.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import mmcr
from mmcr.registry import MODELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='search config, plain')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    init_default_scope('mmdet')
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        cfg.load_from = str(Path(folder, 'supernet.pth'))
        torch.save(dict(state_dict=model.state_dict()), cfg.load_from)
        cfg.work_dir, cfg.log_level = folder, 'ERROR'
        runner = Runner.from_cfg(cfg)
        start = time.process_time()
        metrics = runner.test()
        seconds = time.process_time() - start
    print(json.dumps(dict(mmcr=mmcr.__file__, seconds=round(seconds, 2), **metrics)))


if __name__ == '__main__':
    main()
