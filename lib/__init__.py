"""The package behind the pose workbook: five published keypoint systems, one set of nouns and contracts."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository: relative paths in notebooks and recipes are meant from here."""
