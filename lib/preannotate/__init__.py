"""A model annotates first, people correct: pictures or a video in, a zip for CVAT and a start for our own annotator out."""

from lib.preannotate.command import Preannotated, main, preannotate

__all__ = ["Preannotated", "main", "preannotate"]
