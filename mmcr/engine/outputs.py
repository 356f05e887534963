"""What a run leaves in its work dir: nothing where it is refused, nothing of others.

Of a work of several steps: `mmcr.workflow.place`; of a file: `mmcr.files.check_output`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config

from mmcr.cli import message_of
from mmcr.engine.launch import is_first, out_dir_of
from mmcr.errors import UserError
from mmcr.files import made_folder
from mmcr.models.weights.checkpoint import checkpoints_in, pointed


@contextmanager
def work_dir_of(cfg: Config) -> Iterator[None]:
    """For building a Runner and running it: the work dir is as before if it is refused.

    What a refused run has there is a folder with its log and a copy of its config.
    Where the work dir has a file of the config's name that no run wrote, such as the
    config itself, the copy goes under another name.

    Raises:
        UserError: The work dir has no name.
    """
    if not str(cfg.work_dir).strip():
        raise UserError(
            'work_dir must name a folder, but is empty, which would be the current '
            'folder. Name one by --work-dir.'
        )
    if not is_first():
        yield
        return
    folder = Path(cfg.work_dir)
    copy = folder / Path(cfg.filename or '').name
    if cfg.filename and os.path.lexists(copy) and not _is_of_a_run(copy):
        # mmengine then names the copy by the time
        super(Config, cfg).__setattr__('_filename', None)
    old = copy.read_bytes() if cfg.filename and copy.is_file() else None
    before = set(folder.iterdir()) if folder.is_dir() else set()
    with made_folder(folder):
        try:
            yield
        except Exception as error:
            if message_of(error) is not None:
                _remove_new(folder, before, copy, old)
            raise


def _is_of_a_run(copy: Path) -> bool:
    """Whether a copy of a config lies there that mmengine wrote, a file of its own."""
    if copy.is_symlink() or not copy.is_file() or copy.stat().st_nlink > 1:
        return False
    content = copy.read_bytes()
    written = copy.parent.glob('*/vis_data/config.py')
    return any(path.read_bytes() == content for path in written)


def _remove_new(folder: Path, before: set[Path], copy: Path, old: bytes | None) -> None:
    new = set(folder.iterdir()) - before if folder.is_dir() else set()
    journal = folder / 'trials.jsonl'
    if journal in new and journal.read_bytes().count(b'\n') <= 1:  # no trial in it
        journal.unlink()
        new.remove(journal)
    logs = {path for path in new if path.is_dir() and not _has_results(path)}
    copies = {path for path in new - logs if path.suffix == '.py' and path.is_file()}
    if new - logs - copies:
        return  # it has run
    for path in logs:
        shutil.rmtree(path, ignore_errors=True)
    for path in copies:
        path.unlink()
    if old is not None and copy.read_bytes() != old:
        copy.write_bytes(old)


def _has_results(log_dir: Path) -> bool:
    """Whether a run's folder has more than what mmengine writes at its start."""
    files = [path for path in log_dir.rglob('*') if path.is_file()]
    return any(path.suffix not in ('.log', '.py') for path in files)


def check_no_training(cfg: Config) -> None:
    """Checks that a training that begins anew does not write over another.

    The file that it begins with (`load_from`) may lie there under another name than
    trainings give.

    Raises:
        UserError: Where its checkpoints go, there are others.
    """
    start = cfg.get('load_from') or ''
    saving = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    begin = (saving.get('filename_tmpl') or 'epoch_').partition('{')[0]
    if Path(start).name.startswith((begin, 'epoch_', 'iter_', 'best_')):
        start = ''
    found = checkpoints_in(out_dir_of(cfg), start)
    if '://' in pointed(cfg.work_dir):
        found = [pointed(cfg.work_dir)]
    if found and not cfg.get('resume'):
        raise UserError(
            f'A training that begins anew needs a work dir without checkpoints, which '
            f'it would write over, but there is {found[0]}. Go on with --resume, name '
            f'another --work-dir, or move that away.'
        )
