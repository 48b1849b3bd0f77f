"""Classifiers: what a picture shows. Trained as a recipe says (`python -m lib train`), used by `python -m lib classify`."""

from lib.classify.drawing import draw_top, top
from lib.classify.module import ClassifierModule, ImageNetData, hits

__all__ = ["ClassifierModule", "ImageNetData", "draw_top", "hits", "top"]
