"""`python -m lib predict`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2

from lib.draw import draw_people
from lib.files import write
from lib.metrics import people_to_results
from lib.predict.predictor import Predictor
from lib.predict.sources import open_source
from lib.predict.stream import watch


def predict(
    source: Path,
    model: Path,
    out: Path,
    device: str = "cpu",
    batch_size: int = 8,
    flip_test: bool = False,
    min_score: float = 0.2,
) -> Path:
    """Find people in image files, draw them, and list them as COCO results."""
    predictor, results = Predictor(model, device, flip_test=flip_test), []
    for seen in watch(predictor, open_source(source, without=out), batch_size=batch_size):
        name = f"{seen.index:06d}_{seen.path.stem}.jpg"
        picture = draw_people(seen.image, seen.people, predictor.skeleton, min_score=min_score)
        write(out / name, cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes())
        results += [{**row, "file_name": name} for row in people_to_results(seen.people, seen.index)]
    write(out / "results.json", json.dumps(results))
    return out
