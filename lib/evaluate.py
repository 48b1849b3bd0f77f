"""How good is a model on a COCO keypoint file: a table, another per keypoint, and the card that says what was run.

Three measures: COCO's AP, and for files with head boxes MPII's PCKh and its AP of groups of people.

Figures made by different rules are different figures. Therefore everything that decides one stands in the run card, and the
most important of it in one line above the table.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from lib import ROOT, files
from lib.analysis import analyse, plain, write_analysis
from lib.checkpoints import Model, file_sha256, load_lightweight_openpose, load_model, load_weights
from lib.data.coco import Category, CocoFile, Image, category_named, find_split, read_coco
from lib.data.openpose_lists import val_subset
from lib.detect import box_ap
from lib.metrics import CocoScorer, MpiiPeopleScorer, PckhScorer, coco_output, people_to_results
from lib.metrics.pckh import PEOPLE, THRESHOLDS
from lib.models.lightweight_openpose import LightweightOpenPose
from lib.people import People
from lib.predict import Predictor
from lib.predict.detecting import detector_named
from lib.predict.published import check_published, has_old_decoder, published_predictor
from lib.runtime import PUBLIC_SUFFIXES, public_model

PROTOCOLS = ("all", "with_people")
RULES = ("ours", "published")
MEASURES = {"coco": CocoScorer, "pckh": PckhScorer, "mpii": MpiiPeopleScorer}
DETECTOR_THRESHOLD = 0.05
PEOPLE_PER_IMAGE = 20
"""COCO's score looks at the 20 surest of an image; what a bad network finds beyond is not kept."""


# what stands over a column of the table per keypoint, its width and the form of its values
_COLUMNS = {
    "keypoint": ("keypoint", "<16", ""), "labelled": ("labelled", ">9", "d"), "predicted": ("predicted", ">11", "d"),
    "similarity": ("similarity", ">12", ".3f"), "found": ("found", ">8", ".1%"), "recall": ("recall", ">9", ".1%"),
    "pckh": ("PCKh", ">8", ".1%"), "auc": ("AUC", ">8", ".1%"), "ap": ("AP", ">8", ".1%"), "error": ("error px", ">10", ".2f"),
}  # fmt: skip


@dataclass
class Report:
    """An evaluation.

    Attributes:
        metrics: in 0..1: COCO's AP, AP50, … ARl; or rows of joints, Total and AUC; or rows, mAP, UBody and mAP+UBody.
        per_keypoint: a row for each keypoint, see `per_keypoint` of `CocoScorer`, `PckhScorer` and `MpiiPeopleScorer`.
        per_image: rows of image_id, file_name, people, predictions, and oks (for MPII's measures pckh), the mean over true
            people, NaN without any.
        people: {image_id: People} as predicted, in pixels of the image.
        results: the same as COCO results.
        run_card: what was evaluated on what, with which settings and versions.
        config: the arguments of `python -m lib evaluate` that give the same again.
        curves: for PCKh its values {row: (T,)} at `lib.metrics.pckh.THRESHOLDS`.
    """

    metrics: dict[str, float]
    per_keypoint: list[dict]
    per_image: list[dict]
    people: dict[int, People]
    results: list[dict]
    run_card: dict
    config: dict
    curves: dict[str, np.ndarray] = field(default_factory=dict)

    def worst_images(self, count: int = 6) -> list[dict]:
        """Rows of `per_image` with people, the least similar first."""
        similarity = MEASURES[self.run_card["measure"]].similarity
        return sorted((r for r in self.per_image if r["people"]), key=lambda r: r[similarity])[:count]

    def rules(self) -> str:
        """What decides the figures, in one line."""
        card = self.run_card
        parts = [
            *card["measured"],
            f"published rules of {card['rules_of']}" if card["rules"] == "published" else "our rules",
            f"{card['images']} of {card['of_images']} images",
        ]
        parts += [f"subset of {card['subset']}"] * ((card["subset"] or card["of_images"]) < card["of_images"])
        parts += [card["protocol"].replace("_", " ")] * (card["protocol"] != "all")
        parts += ["old decoder"] * card["old_decoder"]
        kind, factors = "scale search" if card["scale_search"] else "scales", " ".join(f"{s:g}" for s in card["scales"])
        parts += [f"{kind} {factors}"] * (card["scales"] != [1.0])
        parts += [_whose_boxes(card["detector"])] if card["detector"] else []
        parts += ["flip test" + " of a model trained without mirror images" * card["mirror_is_new"]] * card["flip_test"]
        parts += ["half a pixel added"] * card["half_pixel"]
        return ", ".join(parts)

    def table(self) -> str:
        """The figures as two aligned lines of text, MPII's in percent."""
        coco = self.run_card["measure"] == "coco"
        values = [f"{v:.3f}" if coco else "none" if np.isnan(v) else f"{100 * v:.1f}" for v in self.metrics.values()]
        return _columns(self.metrics, values)

    def keypoint_table(self) -> str:
        """The table per keypoint as aligned text."""
        columns = [(key, *_COLUMNS[key]) for key in self.per_keypoint[0]]
        lines = ["".join(f"{heading:{width}}" for _, heading, width, _ in columns)]
        lines += ["".join(f"{format(row[key], form):{width}}" for key, _, width, form in columns)
                  for row in self.per_keypoint]  # fmt: skip
        return "\n".join(lines)


def evaluate(predictor: Predictor, annotations: str | Path, images: str | Path, out_dir: str | Path | None = None,
             category: str | None = None, protocol: str = "all", limit: int | None = None, batch_size: int = 8, *,
             subset: int | None = None, rules: str = "ours", half_pixel: bool | None = None, measure: str = "coco",
             people: str = "all", groups: str | Path | None = None) -> Report:  # fmt: skip
    """Predict and score one annotation file, by COCO's measure in memory that does not grow with what a network finds.

    Args:
        predictor: the model with its settings; for the published rules one of `published_predictor`. A top-down one brings its
            detector, such as `TruthBoxes(annotations)`, whose boxes are scored as well.
        annotations: COCO keypoint file; its skeleton (and sigmas) may differ from the model's, keypoints pair by name.
        images: folder of the pictures.
        out_dir: where the files of `write_report` go; None writes nothing.
        category: name, where the file has several with keypoints.
        protocol: "all" scores every image, "with_people" only those with an annotated person (the evaluations of trt_pose and
            of thawro/pytorch-human-pose).
        limit: only the first so many images of those that are to be scored.
        batch_size: images per network call.
        subset: only so many images, chosen as Lightweight OpenPose does while training (250 there); see `val_subset`.
        rules: "ours", or "published": those of the method's authors, see `lib.predict.published`. (Of heatmaps and tags
            HigherHRNet's on all images, and thawro/pytorch-human-pose's on those with people.)
        half_pixel: add 0.5 to x and y; None does what the rules say.
        measure: "coco"; or where people have a head_box, MPII's: "pckh" for single people, "mpii" for several.
        people: for PCKh: "all", or only the "single" ones who stand apart.
        groups: for MPII's AP: groups_v12.mat; without it the people's key `group`, or every picture is one.

    Raises:
        ValueError: no image or nobody to score, no keypoint in common, no head boxes, an unknown choice, one that does not belong to
            the measure, or a predictor that does not follow the published rules.
    """
    _check_measure(measure, rules, people, groups)
    _check_choice("protocol", protocol, PROTOCOLS)
    published = check_published(predictor, protocol) if rules == "published" else None
    if half_pixel is None:
        half_pixel = published is not None and published.half_pixel
    coco = read_coco(annotations, category)
    kind = category_named(coco, category, annotations)
    chosen = _chosen(coco, annotations, kind, protocol, subset, limit)
    scorer = _scorer(measure, coco, annotations, (predictor.skeleton, category, [i.id for i in chosen]), people, groups)
    choices = {"measure": measure, "people": people, "groups": groups and str(Path(groups).resolve()), "category": category,
               "protocol": protocol, "limit": limit, "subset": subset, "rules": rules, "half_pixel": half_pixel}  # fmt: skip
    config = _config(predictor, annotations, images, batch_size=batch_size, **choices)
    most = PEOPLE_PER_IMAGE if measure == "coco" else None
    card = run_card(predictor, annotations, **choices, rules_of=published and published.of, images=len(chosen),
                    of_images=len(coco.images), people_per_image=most, missing_keypoints=scorer.missing,
                    measured=scorer.rules(), details=dict(scorer.card))  # fmt: skip

    third = published.third if published else "score"
    noting, boxes = _noting(predictor)
    paths = [Path(images) / image.file_name for image in chosen]
    everybody = dict(zip([image.id for image in chosen], _predicted(noting, paths, batch_size, most)))
    results = [r for i, found in everybody.items() for r in people_to_results(found, i, kind.id, half_pixel, third)]
    if boxes and card["detector"]["name"] != "truth":
        card["detector"]["boxes"] = box_ap(dict(zip(everybody, map(boxes.get, paths))), coco, kind.name)
    report = _report(scorer, chosen, everybody, results, card, config)
    if out_dir is not None:
        write_report(report, out_dir, scorer.as_annotated(results))
    return report


def run_card(predictor: Predictor, annotations: str | Path, groups: str | Path | None = None, **facts) -> dict:
    """Everything someone needs to get the same figures again."""
    return {
        "model": predictor.metadata,
        "model_file": predictor.source
        and {"name": Path(predictor.source).name, "sha256": file_sha256(predictor.source)},
        "provider": predictor.provider,
        "codec_options": predictor.codec.options,
        "old_decoder": has_old_decoder(predictor.codec),
        "detector": predictor.detector and {
            "name": predictor.detector.name, "licence": predictor.detector.licence,
            "threshold": getattr(predictor.detector, "threshold", None),
        },
        "flip_test": predictor.flip_test,
        "mirror_is_new": predictor.mirror_is_new,
        "scales": list(predictor.scales),
        "scale_search": predictor.searches,
        "input_size": list(predictor.input_size),
        "fit": predictor.fit_to,
        "maps_at": predictor.maps_at,
        "precision": predictor.precision,
        "annotations": {"name": Path(annotations).name, "sha256": file_sha256(annotations)},
        "groups": groups and {"name": Path(groups).name, "sha256": file_sha256(groups)},
        **facts,
        "versions": {p: version(p) for p in ("torch", "torchvision", "numpy", "faster-coco-eval", "pose-workbook")},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }


def write_report(report: Report, out_dir: str | Path, results: Sequence[Mapping] | None = None) -> None:
    """Write what was found and how, each file whole or not at all.

    These are `coco_results.json`, which any COCO program can score; `coco_output.txt`, the table as COCO's own evaluation
    prints it (for its measure); `metrics.json`, for PCKh with its curves; `run_card.json`; and `config.yaml`, with which
    `python -m lib evaluate --config=config.yaml` does the same again.

    Args:
        report: what to write.
        out_dir: folder.
        results: instead of the report's, for example with the keypoints of the annotations.
    """
    out_dir = Path(out_dir)
    metrics = {"rules": report.rules(), "metrics": report.metrics, "per_keypoint": report.per_keypoint}
    if report.curves:
        metrics["curves"] = {"threshold": THRESHOLDS.round(2)} | report.curves
    results = report.results if results is None else results
    for name, content in (("coco_results", results), ("metrics", plain(metrics)), ("run_card", report.run_card)):
        files.write(out_dir / f"{name}.json", json.dumps(content, indent=None if name == "coco_results" else 2))
    if report.run_card["measure"] == "coco":
        files.write(out_dir / "coco_output.txt", coco_output(report.metrics))
    files.write(out_dir / "config.yaml", yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True))


def main(model: Path, data_dir: str = "data/synthetic", split: str = "val", out_dir: str | None = None,
         category: str | None = None, protocol: str = "all", limit: int | None = None, device: str = "cpu",
         flip_test: bool = False, rules: str = "ours", half_pixel: bool | None = None, subset: int | None = None,
         scales: tuple[float, ...] = (1.0,), old_decoder: bool = False,
         num_refinement_stages: int | None = None, input_size: int | list[int] | None = None, fit: str | None = None,
         maps_at: str | None = None, codec: dict[str, Any] | None = None, precision: str = "fp32", batch_size: int = 8,
         annotations: Path | None = None, images: Path | None = None, measure: str = "coco", people: str = "all",
         groups: Path | None = None, scale_search: tuple[float, ...] | None = None, detector: str | None = None,
         detector_threshold: float = DETECTOR_THRESHOLD, analysis: str | None = None) -> None:  # fmt: skip
    """Print the table of a model on a dataset: COCO's, or one of MPII's.

    Args:
        model: .safetensors, an exported .onnx, .plan, .pt2 or .ts, or a public .pth (see pretrained/README.md).
        data_dir: folder as data/README.md describes.
        split: train or val.
        out_dir: also write results, figures and run card there, and a config.yaml: with --config=config.yaml the same again.
        category: name, where the file has several with keypoints.
        protocol: "all" images, or only those "with_people".
        limit: only the first so many images.
        device: cpu, cuda, cuda:1.
        flip_test: average with the mirrored image; of use to models that were trained with mirror images.
        rules: "ours", or "published": as the method's authors evaluate it (HigherHRNet, with_people, as pytorch-human-pose does).
        half_pixel: add half a pixel to x and y; left out, Lightweight OpenPose's published rules do and others do not.
        subset: only so many images, chosen as Lightweight OpenPose does (250).
        scales: sizes of the picture whose maps are averaged; published: [0.5,1,1.5,2] (Lightweight OpenPose), [0.5,1,2] (HigherHRNet).
        old_decoder: with the published rules, Lightweight OpenPose's decoder of 2019.
        num_refinement_stages: leave out those after so many (the published figure of the third training step is with 1).
        input_size: [height,width] instead of the model's own, or one number for both.
        fit: how pictures get to that size: "model", "height" or "short"; left out, "model", or what the published rules say.
        maps_at: resolution at which maps are read: "input", "pixels" or "image"; left out, likewise.
        codec: decode options, each as --codec.NAME=VALUE: --codec.detection_threshold, --codec.tag_threshold and others of
            heatmaps and tags, --codec.peak_threshold, --codec.link_threshold and others of part affinity fields.
        precision: fp32 or bf16.
        batch_size: images per network call.
        annotations: COCO keypoint file, with images in place of data_dir and split.
        images: folder of its pictures.
        measure: coco; or where people have a head_box pckh (PCKh@0.5 and AUC), or mpii (AP of groups of people).
        people: for pckh: "all", or only those who stand apart ("single"), as MPII's own table does.
        groups: for mpii: groups_v12.mat of its evaluation toolkit; left out, the key `group`, or every picture is one.
        scale_search: of one person (`--codec.single=true`): the best pose of these sizes of the picture.
        detector: who finds people for a top-down model: "truth" (annotated boxes), "whole" (one person fills the picture), the
            .onnx of a YOLO, "torchvision:NAME", a model of this workbook for several people, or COCO results of boxes (.json).
        detector_threshold: boxes with a lower score are left out; the sure ones are not enough for AP.
        analysis: folder for what the errors are and what they cost: charts, the worst pictures, analysis.json.
    """
    _check_measure(measure, rules, people, groups, analysis)
    annotations, images = _where(data_dir, split, annotations, images)
    found_by = detector and detector_named(detector, device, threshold=detector_threshold, annotations=annotations)
    predictor = _predictor(
        _readable(model, num_refinement_stages), rules, old_decoder, protocol,
        {"device": device, "flip_test": flip_test, "scales": scales, "input_size": _size(input_size), "detector": found_by},
        {"fit": fit, "maps_at": maps_at, "codec": codec, "precision": None if precision == "fp32" else precision,
         "scale_search": scale_search},
    )  # fmt: skip
    predictor.source = model
    report = evaluate(predictor, annotations, images, out_dir and ROOT / out_dir, category, protocol, limit, batch_size,
                      subset=subset, rules=rules, half_pixel=half_pixel, measure=measure, people=people, groups=groups)  # fmt: skip
    print(report.rules(), report.table(), report.keypoint_table(), sep="\n\n")
    if analysis:
        print(f"\n{write_analysis(analyse(report), ROOT / analysis).table()}")


def _size(input_size: int | list[int] | None) -> tuple[int, int] | None:
    sides = [input_size] if isinstance(input_size, int) else input_size
    if sides is not None and len(sides) not in (1, 2):
        raise ValueError(f"input_size is [height,width], or one number for both, got {sides}")
    return sides and (sides[0], sides[-1])


def _predictor(network, rules: str, old_decoder: bool, protocol: str, common: dict, own: dict) -> Predictor:
    """By the published rules, which say themselves what `own` options are, or by ours."""
    own = {name: value for name, value in own.items() if value is not None}
    if rules == "published":
        if own:
            raise ValueError(f"the published rules say what {', '.join(own)} must be: leave out --{next(iter(own))}, or use "
                             "--rules=ours")  # fmt: skip
        return published_predictor(network, old_decoder=old_decoder, protocol=protocol, **common)
    if old_decoder:
        raise ValueError("old_decoder belongs to the published rules: add --rules=published")
    return Predictor(network, codec_options=own.pop("codec", None), **common, **own)


def _where(data_dir: str, split: str, annotations: Path | None, images: Path | None) -> tuple[Path, Path]:
    if (annotations is None) != (images is None):
        raise ValueError("annotations and images go together, in place of data_dir and split: give both or neither")
    return find_split(ROOT / data_dir, split) if annotations is None else (annotations, images)


def _config(predictor: Predictor, annotations: str | Path, images: str | Path, **choices) -> dict:
    """Arguments of `main` that repeat an evaluation; a model in memory has no file, and one must be named then."""
    source = predictor.source and Path(predictor.source).resolve()
    config = {"model": source and str(source), "annotations": str(Path(annotations).resolve()),
              "images": str(Path(images).resolve()), **choices, "device": predictor.device,
              "flip_test": predictor.flip_test,
              "scales": [1.0] if predictor.searches else list(predictor.scales),
              "old_decoder": choices["rules"] == "published" and has_old_decoder(predictor.codec)}  # fmt: skip
    if predictor.detector is not None:
        config["detector"] = getattr(predictor.detector, "spec", predictor.detector.name)
        config["detector_threshold"] = getattr(predictor.detector, "threshold", DETECTOR_THRESHOLD)
    stages = predictor.metadata["network"]["options"].get("num_refinement_stages")
    if stages is not None and source and source.suffix in (".safetensors", *PUBLIC_SUFFIXES):
        config["num_refinement_stages"] = stages
    free = source is None or source.suffix in (".safetensors", *PUBLIC_SUFFIXES)
    config["input_size"] = list(predictor.input_size) if free else None
    if choices["rules"] == "ours":
        # what the file itself says need not be said again; tuples become lists
        options, recorded = json.loads(json.dumps([predictor.codec.options, predictor.metadata["codec"]["options"]]))
        changed = {name: value for name, value in options.items() if name not in recorded or recorded[name] != value}
        config |= {"fit": predictor.fit_to, "maps_at": predictor.maps_at, "codec": changed or None,
                   "precision": predictor.precision,
                   "scale_search": list(predictor.scales) if predictor.searches else None}  # fmt: skip
    return config


def _scorer(measure: str, coco: CocoFile, annotations: str | Path, common: tuple, people: str, groups: str | Path | None):
    if measure == "pckh":
        return PckhScorer(annotations, *common, people=people)
    return MpiiPeopleScorer(annotations, *common, groups=groups) if measure == "mpii" else CocoScorer(coco, *common)


def _report(scorer, images: Sequence[Image], people: dict, results: list[dict], card: dict, config: dict) -> Report:
    matches = scorer.match(results)
    rows = _per_image(images, matches, scorer.similarity)
    if isinstance(scorer, MpiiPeopleScorer):
        card["details"]["predictions_outside_groups"] = len(results) - sum(row["predictions"] for row in rows)
    curves = scorer.curves(matches) if isinstance(scorer, PckhScorer) else {}
    return Report(scorer(results), scorer.per_keypoint(matches), rows, people, results, card, config, curves)


def _check_measure(measure: str, rules: str, people: str, groups: str | Path | None, analysis: str | None = None) -> None:
    _check_choice("measure", measure, tuple(MEASURES))
    _check_choice("rules", rules, RULES)
    _check_choice("people", people, PEOPLE)
    if rules == "published" and measure != "coco":
        raise ValueError(f"the published rules are those of evaluations by COCO's measure: leave out --rules=published or "
                         f"--measure={measure}")  # fmt: skip
    if analysis and measure != "coco":
        raise ValueError(f"--analysis is of evaluations by COCO's measure: leave it out, or --measure={measure}")
    if people != "all" and measure != "pckh":
        raise ValueError(f"--people={people} belongs to --measure=pckh, not to {measure}")
    if groups is not None and measure != "mpii":
        raise ValueError(f"--groups belongs to --measure=mpii, not to {measure}")


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{what} {value!r} is unknown; choose {' or '.join(choices)}")


def _chosen(coco: CocoFile, annotations: str | Path, category: Category, protocol: str, subset: int | None,
            limit: int | None) -> list[Image]:  # fmt: skip
    for name, count in (("subset", subset), ("limit", limit)):
        if count is not None and count < 1:
            raise ValueError(f"{name} is {count}; it counts images and must be at least 1")
    images = coco.images if subset is None else [coco.images[i] for i in val_subset(len(coco.images), subset)]
    occupied = {a.image_id for a in coco.annotations if a.category_id == category.id and any((a.keypoints or [])[2::3])}
    if protocol == "with_people":
        images = [image for image in images if image.id in occupied]
    images = images[:limit]
    if not images:
        raise ValueError(f"{annotations}: no image to score among {len(coco.images)} (protocol {protocol!r})")
    if occupied.isdisjoint(image.id for image in images):
        raise ValueError(f"{annotations}: no {category.name} with keypoints in the {len(images)} images to score of "
                         f"{len(coco.images)}, so there is nothing to measure; `python -m lib predict` shows what a model finds")  # fmt: skip
    return images


def _predicted(predictor: Predictor, paths: Sequence[Path], batch_size: int, most: int | None) -> Iterator[People]:
    """The surest people of each image, or all of them; nothing else is kept."""
    for people in predictor.each(paths, batch_size, "evaluate"):
        yield people[np.sort(np.argsort(-people.scores, kind="stable")[:most])]


def _whose_boxes(detector: dict) -> str:
    if detector["name"] == "truth":
        return "ground-truth boxes"
    ap = detector.get("boxes", {}).get("AP", -1)
    return f"boxes of {detector['name']}" + f" (AP {ap:.3f})" * (ap >= 0)


def _noting(predictor: Predictor) -> tuple[Predictor, dict[Path, np.ndarray]]:
    """The same predictor, and the boxes of every picture, which are noted down when its detector finds them."""
    noting, boxes = copy.copy(predictor), {}

    def detect(image: np.ndarray, path: Path) -> np.ndarray:
        boxes[path] = predictor.detector(image, path)
        return boxes[path]

    noting.detector = detect
    return noting, boxes


def _per_image(images: Sequence[Image], matches: Sequence[dict], similarity: str) -> list[dict]:
    """One row for every image, also where it holds several groups of people or none."""
    by_id: dict[int, list[dict]] = {image.id: [] for image in images}
    for match in matches:
        by_id[match["image_id"]].append(match)
    rows = []
    for image in images:
        values = np.concatenate([np.zeros(0), *(match[similarity] for match in by_id[image.id])])
        rows.append({"image_id": image.id, "file_name": image.file_name,
                     "people": sum(match["people"] for match in by_id[image.id]),
                     "predictions": sum(match["predictions"] for match in by_id[image.id]),
                     similarity: float(values.mean()) if len(values) else float("nan")})  # fmt: skip
    return rows


def _readable(path: Path, num_refinement_stages: int | None) -> Model | Path:
    """A public checkpoint, or one of ours with fewer refinement stages, as a model in memory; any other file as it is."""
    if path.suffix in PUBLIC_SUFFIXES:
        if num_refinement_stages is None:
            return public_model(path)
        return load_lightweight_openpose(path, num_refinement_stages=num_refinement_stages)
    if num_refinement_stages is None:
        return path
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path}: refinement stages are left out of a checkpoint (.safetensors), before it is exported"
        )
    model = load_model(path)
    if not isinstance(model.network, LightweightOpenPose):
        raise ValueError(f"{path} is a {type(model.network).__name__}, which has no refinement stages")
    if num_refinement_stages > (trained := model.network.options["num_refinement_stages"]):
        raise ValueError(f"{path} has {trained} refinement stages, {num_refinement_stages} of them cannot be used")
    options = {**model.network.options, "num_refinement_stages": num_refinement_stages}
    network = LightweightOpenPose(model.network.skeleton, **options)
    load_weights(network, path)
    return dataclasses.replace(model, network=network.eval())


def _columns(names, values) -> str:
    widths = [max(len(n), len(v)) + 2 for n, v in zip(names, values)]
    return "\n".join("".join(cell.rjust(w) for cell, w in zip(row, widths)) for row in (names, values))
