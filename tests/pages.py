"""Pages as a reader has them, and searches that fill them."""

import json
import re
from html import unescape
from random import Random

from mmcr.search import Journal, Trial, run_search


class Page:
    """What a page loads, its tags and its words."""

    def __init__(self, path):
        text = path.read_text()
        self.loads = re.findall(r'(?:href|src)="(?!#|data:)', text)
        self.tags = re.findall(r'<(\w+)', text)
        self.words = ' '.join(unescape(re.sub('<[^>]+>', ' ', text)).split())


def evaluate(proposals):
    """Any scores: distinct and reproducible."""
    for proposal in proposals:
        ap = Random(proposal.key).random()
        metrics = {'bbox_mAP': ap, 'bbox_mAP_50': ap / 2, 'bbox_mAP_s': -1.0}
        yield Trial(proposal, ap, {f'coco/{name}': v for name, v in metrics.items()})


def search(work_dir, searcher, evaluate=evaluate, finish=True, **more):
    """Searches; writes the results as far as the report asks for them."""
    header = dict(
        space=searcher.space.to_json(),
        searcher=searcher.to_json(),
        score='coco/bbox_mAP',
        checkpoint='ab' * 32,
        **more,
    )
    journal = Journal(work_dir / 'trials.jsonl', header)
    best = run_search(searcher, evaluate, journal.scores, journal.append)
    searchers = getattr(searcher, 'searchers', {'': searcher})
    for name, each in searchers.items() if finish else ():
        (work_dir / name).mkdir(exist_ok=True)
        record = json.dumps(dict(score=each.best().score))
        (work_dir / name / 'best_arch.json').write_text(record)
    return best
