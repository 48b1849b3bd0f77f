"""How good is a model on a COCO keypoint file: the AP table, a table per keypoint, and the card that says what was run."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from lib import ROOT, files
from lib.checkpoints import file_sha256
from lib.data.coco import category_named, find_split, read_coco
from lib.metrics import METRICS, CocoScorer, people_to_results
from lib.people import People
from lib.predict import Predictor

PROTOCOLS = ("all", "with_people")


@dataclass
class Report:
    """An evaluation.

    Attributes:
        metrics: COCO's AP, AP50, … ARl in 0..1.
        per_keypoint: rows of keypoint, labelled, similarity, found, error (see `CocoScorer.per_keypoint`).
        per_image: rows of image_id, file_name, people, predictions, oks (mean over true people, NaN without any).
        people: {image_id: People} as predicted, in pixels of the image.
        results: the same as COCO results.
        run_card: what was evaluated on what, with which settings and versions.
    """

    metrics: dict[str, float]
    per_keypoint: list[dict]
    per_image: list[dict]
    people: dict[int, People]
    results: list[dict]
    run_card: dict

    def worst_images(self, count: int = 6) -> list[dict]:
        """Rows of `per_image` with people, the least similar first."""
        return sorted((r for r in self.per_image if r["people"]), key=lambda r: r["oks"])[:count]

    def table(self) -> str:
        """The COCO figures as two aligned lines of text."""
        return _columns(METRICS, [f"{self.metrics[name]:.3f}" for name in METRICS])

    def keypoint_table(self) -> str:
        """The table per keypoint as aligned text."""
        lines = [f"{'keypoint':16}{'labelled':>9}{'similarity':>12}{'found':>8}{'error px':>10}"]
        lines += [f"{r['keypoint']:16}{r['labelled']:9d}{r['similarity']:12.3f}{r['found']:8.1%}{r['error']:10.2f}"
                  for r in self.per_keypoint]  # fmt: skip
        return "\n".join(lines)


def evaluate(predictor: Predictor, annotations: str | Path, images: str | Path, out_dir: str | Path | None = None,
             category: str | None = None, protocol: str = "all", limit: int | None = None,
             batch_size: int = 8) -> Report:  # fmt: skip
    """Predict and score one annotation file.

    Args:
        predictor: the model with its settings.
        annotations: COCO keypoint file; its skeleton (and sigmas) may differ from the model's, keypoints pair by name.
        images: folder of the pictures.
        out_dir: where `coco_results.json`, `metrics.json`, `run_card.json` go; None writes nothing.
        category: name, where the file has several with keypoints.
        protocol: "all" scores every image, "with_people" only those with an annotated person (trt_pose's own evaluation).
        limit: only the first so many images.
        batch_size: images per network call.

    Raises:
        ValueError: no image to score, or no keypoint in common, or an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r} is unknown; choose {' or '.join(PROTOCOLS)}")
    coco = read_coco(annotations, category)
    kind = category_named(coco, category, annotations)
    occupied = {a.image_id for a in coco.annotations if a.category_id == kind.id and any((a.keypoints or [])[2::3])}
    chosen = [image for image in coco.images if protocol == "all" or image.id in occupied][:limit]
    if not chosen:
        raise ValueError(f"{annotations}: no image to score among {len(coco.images)} (protocol {protocol!r})")
    scorer = CocoScorer(coco, predictor.skeleton, category, [image.id for image in chosen])

    found = predictor([Path(images) / image.file_name for image in chosen], batch_size=batch_size)
    results = [r for image, people in zip(chosen, found) for r in people_to_results(people, image.id, kind.id)]
    matches = {m["image_id"]: m for m in scorer.match(results)}
    per_image = [
        {"image_id": image.id, "file_name": image.file_name, "people": matches[image.id]["people"],
         "predictions": matches[image.id]["predictions"],
         "oks": float(np.mean(matches[image.id]["oks"])) if matches[image.id]["people"] else float("nan")}
        for image in chosen
    ]  # fmt: skip
    card = run_card(predictor, annotations, images=len(chosen), protocol=protocol, missing_keypoints=scorer.missing)
    report = Report(scorer(results), scorer.per_keypoint(list(matches.values())), per_image,
                    {image.id: people for image, people in zip(chosen, found)}, results, card)  # fmt: skip
    if out_dir is not None:
        write_report(report, out_dir)
    return report


def run_card(predictor: Predictor, annotations: str | Path, **facts) -> dict:
    """Everything someone needs to get the same figures again."""
    return {
        "model": predictor.metadata,
        "model_file": predictor.source
        and {"name": Path(predictor.source).name, "sha256": file_sha256(predictor.source)},
        "provider": predictor.provider,
        "codec_options": predictor.codec.options,
        "flip_test": predictor.flip_test,
        "input_size": list(predictor.input_size),
        "annotations": {"name": Path(annotations).name, "sha256": file_sha256(annotations)},
        **facts,
        "versions": {p: version(p) for p in ("torch", "torchvision", "numpy", "faster-coco-eval", "pose-workbook")},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }


def write_report(report: Report, out_dir: str | Path) -> None:
    """Write results, figures and run card as JSON files, each whole or not at all."""
    out_dir = Path(out_dir)
    metrics = {"metrics": report.metrics, "per_keypoint": report.per_keypoint}
    for name, content in (("coco_results", report.results), ("metrics", metrics), ("run_card", report.run_card)):
        files.write(out_dir / f"{name}.json", json.dumps(content, indent=None if name == "coco_results" else 2))


def main(model: Path, data_dir: str = "data/synthetic", split: str = "val", out_dir: str | None = None,
         category: str | None = None, protocol: str = "all", limit: int | None = None, device: str = "cpu",
         flip_test: bool = False) -> None:  # fmt: skip
    """Print the COCO table of a model on a dataset.

    Args:
        model: .safetensors, .onnx or .plan file.
        data_dir: folder as data/README.md describes.
        split: train or val.
        out_dir: also write coco_results.json, metrics.json and run_card.json there.
        category: name, where the file has several with keypoints.
        protocol: "all" images, or only those "with_people".
        limit: only the first so many images.
        device: cpu, cuda, cuda:1.
        flip_test: average with the mirrored image.
    """
    annotations, images = find_split(ROOT / data_dir, split)
    predictor = Predictor(model, device, flip_test=flip_test)
    report = evaluate(predictor, annotations, images, out_dir and ROOT / out_dir, category, protocol, limit)
    print(report.table(), report.keypoint_table(), sep="\n\n")


def _columns(names, values) -> str:
    widths = [max(len(n), len(v)) + 2 for n, v in zip(names, values)]
    return "\n".join("".join(cell.rjust(w) for cell, w in zip(row, widths)) for row in (names, values))
