"""`python -m lib preannotate SOURCE --pose MODEL --out OUT`: a model annotates first, people correct."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lib import files
from lib.arguments import Parser
from lib.checkpoints import file_sha256
from lib.detect import THRESHOLD
from lib.preannotate.journal import Journal
from lib.preannotate.results import CROPS, CVAT_LABELS, IMAGES, LABELS, WHOLE, ZIP, write_results
from lib.preannotate.work import Work, read_frames, read_pictures
from lib.predict.command import told_of_mirrors
from lib.predict.detecting import detector_named
from lib.predict.predictor import Predictor
from lib.predict.sources import Pictures, Source, open_source
from lib.skeleton import Skeleton

JOURNAL = ".preannotate.jsonl"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0."""
    parser = Parser(prog="python -m lib preannotate", description=preannotate.__doc__.split("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help="folder of pictures (with its sub-folders), picture, or video")
    parser.add_argument("--crops", action="store_true", help="a picture for every person, instead of whole pictures")
    parser.add_function_arguments(preannotate, as_positional=False, skip={"source", "crops"})
    print(preannotate(**parser.parse_args(arguments).as_dict()))
    return 0


@dataclass
class Preannotated:
    """What there is to correct now, and what is missing.

    Attributes:
        folder: of the files.
        pictures: how many there are.
        people: on them.
        keypoints: how many of each visibility 0, 1, 2.
        unsure: people who were left out, because no keypoint was sure enough.
        faults: name of each picture that was left out → why.
    """

    folder: Path
    pictures: int
    people: int
    keypoints: Counter[int]
    unsure: int
    faults: dict[str, str]

    def __str__(self) -> str:
        counts = ", ".join(f"{self.keypoints[v]} {what}" for v, what in ((2, "visible"), (1, "hidden"), (0, "not labelled")))
        lines = [f"{self.folder} holds pictures: {self.pictures}, people: {self.people}, keypoints: {counts}"]
        lines += [f"people left out because none of their keypoints is sure enough: {self.unsure}"] * bool(self.unsure)
        lines += [f"left out: {fault}" for fault in self.faults.values()]
        lines += [f"in CVAT: a task of the pictures in {IMAGES}/, its label pasted from {CVAT_LABELS} into Raw,",
                  f"    then Upload annotations, COCO Keypoints 1.0: {ZIP}",
                  "here: Session({!r}, {!r}, {!r})".format(*(str(self.folder / name) for name in (IMAGES, LABELS, LABELS)))]  # fmt: skip
        if (self.folder / CROPS).exists():
            lines += [f"then from CVAT's export, or from {LABELS}, to the whole pictures:",
                      f"    python -m lib convert EXPORT {self.folder / WHOLE / LABELS} --crops {self.folder / CROPS}"]  # fmt: skip
        return "\n".join(lines)


def preannotate(source: str | Path, pose: str | Path, out: str | Path, *, detector: str | None = None,
                detector_threshold: float = THRESHOLD, crops: bool = False, low: float = 0.3, high: float = 0.6,
                skeleton: str | None = None, step: int = 1, flip_test: bool = False, device: str = "cpu",
                batch_size: int = 8) -> Preannotated:  # fmt: skip
    """Let a model annotate pictures, for people to correct in CVAT or in our own annotator.

    In the folder `out` are then `images/` (what annotators are shown: pictures upright, as EXIF says), `cvat.zip` (for "COCO
    Keypoints 1.0", with the pictures), `cvat_labels.json` (for CVAT's label constructor), `labels.json` (for
    `Session(images, labels, labels)`: the model's people are suggestions there), and with `crops` `whole/images/` (the pictures
    they were cut out of) and `crops.json` (where), with which `convert` brings the labels back to the whole pictures. A
    stopped run goes on where it was with the same command. Nothing that is finished is ever changed.

    Args:
        source: folder of pictures (with its sub-folders), picture, or video.
        pose: model that finds the keypoints.
        out: folder for the results, a new one or that of a stopped run.
        detector: of a top-down model: the .onnx of a YOLO, torchvision:NAME, a model of this workbook for several people,
            truth=FILE.json (annotated boxes) or whole (one person fills the picture). A bottom-up model takes none.
        detector_threshold: boxes with a lower score are left out.
        crops: a picture for every person, instead of whole pictures.
        low: from this score on a keypoint is labelled as hidden (v = 1); below it is not labelled (v = 0) but keeps its place.
        high: from this score on a keypoint is labelled as visible (v = 2).
        skeleton: keypoints to annotate, by name, where the model has others: a built-in name, YAML or COCO file.
        step: of a video, every so many frames one.
        flip_test: average with the mirror image.
        device: cpu, cuda or cuda:1.
        batch_size: pictures that are worked on together.

    Raises:
        ValueError, OSError: source, model or options cannot be used; `out` belongs to something else, or to other settings.
        RuntimeError: the device is missing.
        KeyboardInterrupt: after Ctrl-C, with a sentence about what was done.
    """
    out = Path(out)
    _check(source, low, high, step, batch_size)
    opened = open_source(source, without=out)
    if opened.kind == "pictures" and step > 1:
        raise ValueError(f"step {step} is for the frames of a video, and {source} holds pictures: leave it out")
    names = _names(opened, Path(source)) if opened.kind == "pictures" else {}
    finder = detector and detector_named(detector, device, threshold=detector_threshold)
    predictor = told_of_mirrors(Predictor(pose, device, detector=finder, flip_test=flip_test))
    wanted = Skeleton.named(skeleton) if skeleton else predictor.skeleton
    places = _places(predictor.skeleton, wanted)
    settings = _settings(
        source=source, pose=pose, detector=detector, detector_threshold=detector_threshold, crops=crops, low=low, high=high,
        keypoints=", ".join(wanted.keypoints), step=step, flip_test=flip_test,
    )  # fmt: skip
    _check_folder(out)
    with files.locked(out):
        journal = Journal(out / JOURNAL, settings)
        if not (out / ZIP).exists():
            work = Work(predictor, places, journal, out, crops, low, high)
            _run(work, opened, names, step, batch_size)
            write_results(out, list(journal.lines.values()), wanted)
        elif late := [name for name in names if name not in journal.lines]:
            raise ValueError(f"{out} is finished, and {len(late)} pictures came later, such as {late[0]}: give them another --out")
        return _summary(out, journal)


def _run(work: Work, source: Source, names: Mapping[str, Path], step: int, batch_size: int) -> None:
    """Work through all pictures, or every `step`-th frame."""
    if names:
        work.run(read_pictures(names, work.journal), len(names), batch_size)
    else:
        work.run(read_frames(source, step, work.journal), source.length and -(-source.length // step), batch_size)
    if source.damage:
        print(source.damage, file=sys.stderr)
    lines = work.journal.lines.values()
    if not any(line.pictures for line in lines):
        faults = [line.fault for line in lines if line.fault]
        raise ValueError(faults[0] if faults else f"{source.name}: nobody was found of whom a keypoint reaches {work.low}, so that "
                         "nothing can be cut out: lower --low, or look at the detector's boxes")  # fmt: skip


def _check(source: str | Path, low: float, high: float, step: int, batch_size: int) -> None:
    if not 0 < low <= high <= 1:
        raise ValueError(f"low is {low} and high {high}: scores from low on are hidden keypoints, from high on visible ones, and "
                         "0 < low ≤ high ≤ 1")  # fmt: skip
    for name, value in (("step", step), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if str(source).startswith("camera:"):
        raise ValueError(f"{source}: what a camera shows is gone when it is to be corrected; record a video first (notebook 21)")


def _settings(**options) -> dict[str, str | float | bool | None]:
    """What decides about the results; of files their names and what is in them."""
    for name in ("pose", "detector"):
        kind, mark, path = str(options[name]).rpartition("=")
        if options[name] is not None and Path(path).is_file():
            options[name] = f"{kind}{mark}{Path(path).name} ({file_sha256(path)[:12]})"
    source = Path(options["source"])
    options["source"] = f"{source.resolve()}" + f" ({source.stat().st_size} bytes)" * source.is_file()
    return options


def _check_folder(out: Path) -> None:
    """Make the folder, or see that what is in it is ours."""
    if not (out / JOURNAL).exists() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} holds something else: choose a new folder with --out")
    out.mkdir(parents=True, exist_ok=True)


def _names(pictures: Pictures, folder: Path) -> dict[str, Path]:
    """Each picture's file by its name, relative to the folder."""
    names = {path.relative_to(folder if folder.is_dir() else path.parent).as_posix(): path for path in pictures.paths}
    alike = Counter(str(PurePosixPath(name).with_suffix("")) for name in names)
    if twice := [name for name, count in alike.items() if count > 1]:
        raise ValueError(f"{folder}: {len(twice)} pictures differ from another one in their suffix alone, such as {twice[0]}, and "
                         "CVAT cannot tell them apart: rename them")  # fmt: skip
    return names


def _places(theirs: Skeleton, ours: Skeleton) -> list[int]:
    """Where each of our keypoints stands in the model's."""
    if missing := [name for name in ours.keypoints if name not in theirs.keypoints]:
        raise ValueError(f"the model does not know {', '.join(missing)} of the skeleton {ours.name!r}; it knows "
                         f"{', '.join(theirs.keypoints)}")  # fmt: skip
    return [theirs.keypoints.index(name) for name in ours.keypoints]


def _summary(out: Path, journal: Journal) -> Preannotated:
    lines = journal.lines.values()
    pictures = [picture for line in lines for picture in line.pictures]
    people = [person for picture in pictures for person in picture.people]
    keypoints = Counter(v for person in people for v in person.keypoints[2::3])
    faults = {line.source: line.fault for line in lines if line.fault}
    return Preannotated(out, len(pictures), len(people), keypoints, sum(line.unsure for line in lines), faults)
