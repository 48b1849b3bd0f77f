"""How good predicted people are: COCO's AP, MPII's PCKh of single people, and MPII's AP of groups of people."""

from lib.metrics.coco import METRICS, CocoScorer, coco_output, people_to_results
from lib.metrics.mpii_people import MpiiPeopleScorer, average_precision
from lib.metrics.pckh import Pckh, PckhScorer, pckh

__all__ = ["METRICS", "CocoScorer", "MpiiPeopleScorer", "Pckh", "PckhScorer", "average_precision", "coco_output",
           "pckh", "people_to_results"]  # fmt: skip
