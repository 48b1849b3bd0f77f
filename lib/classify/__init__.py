"""Classifiers: what a picture shows. Trained as a recipe says (`python -m lib train`), used by `python -m lib classify`."""

from lib.classify.command import classify, main
from lib.classify.module import ClassifierModule, ImageNetData, hits
from lib.classify.predictor import PictureClassifier, draw_top, top

__all__ = ["ClassifierModule", "ImageNetData", "PictureClassifier", "classify", "draw_top", "hits", "main", "top"]
