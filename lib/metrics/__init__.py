"""How good predicted people are: COCO's AP, MPII's PCKh of single people, and MPII's AP of groups of people."""

from lib.metrics.coco import METRICS, CocoScorer, coco_output, people_to_results

__all__ = ["METRICS", "CocoScorer", "coco_output", "people_to_results"]
