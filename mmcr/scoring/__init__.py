"""How candidates are scored: many in one pass, each with its own norm statistics."""

from mmcr.scoring.bn_calibrator import BNCalibrator
from mmcr.scoring.coco_metric import UnroundedCocoMetric
from mmcr.scoring.evaluator import CandidateEvaluator

__all__ = ['BNCalibrator', 'CandidateEvaluator', 'UnroundedCocoMetric']
