"""Annotate keypoints in a notebook: `Session` holds the rules and the file, `Annotator` shows it."""

from lib.annotate.session import Session
from lib.annotate.widget import Annotator

__all__ = ["Annotator", "Session"]
