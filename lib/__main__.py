"""The command line: `python -m lib COMMAND --help`; `python -m lib --debug COMMAND …` shows the stack of an error."""

from __future__ import annotations

import difflib
import re
import sys
from importlib import import_module

import jsonargparse

from lib.arguments import Parser, WrongArguments

INTERRUPTED = 130  # exit status of a program that Ctrl-C ended

COMMANDS = {
    "synthetic": ("lib.data.synthetic", "write_dataset", "render a dataset of synthetic people"),
    "synthetic-classes": ("lib.data.classes", "write_classes", "pictures of body parts and things in ImageNet's layout"),
    "frames": ("lib.data.video", "frames", "pictures out of a video"),
    "convert": ("lib.exchange", "convert", "exports of annotation tools to COCO, and COCO to a CVAT zip"),
    "merge": ("lib.exchange", "merge", "join data sets, also of different keypoints"),
    "cvat-labels": ("lib.exchange", "cvat_labels_file", "a skeleton as CVAT's label constructor wants it"),
    "doctor": ("lib.doctor", "doctor", "find, draw and mend what is wrong in a data set"),
    "split": ("lib.data.split", "split", "your own data set in training and validation, video by video"),
    "prepare": ("lib.prepare", "COMMANDS", "download and lay out coco, imagenet or mpii"),
    "crops": ("lib.prepare.crops", "crops", "cut every person out for DeeperCut, all heads the same size"),
    "index": ("lib.data.index", "build_index", "labels as arrays that open at once"),
    "sigmas": ("lib.data.sigmas", "sigmas", "how precisely your keypoints can be annotated, from two annotations"),
    "val-subset": ("lib.data.openpose_lists", "write_val_subset", "the 250 pictures Lightweight OpenPose validates on"),
    "neck": ("lib.data.coco", "insert_neck_file", "copy a COCO file and insert a neck keypoint"),
    "preflight": ("lib.training", "check", "overfit eight images before a long training"),
    "train": ("lib.chain", "main", "train as a recipe says"),
    "pairwise-stats": ("lib.pairwise", "stats", "where the keypoints of a person lie from each other, for DeeperCut"),
    "pairwise-fit": ("lib.pairwise", "fit", "learn which detections are of one person, from a DeeperCut model's own maps"),
    "evaluate": ("lib.evaluate", "main", "COCO AP, or MPII's PCKh or AP: table, results, run card of a model"),
    "compare": ("lib.compare", "main", "several models on the same pictures: AP, errors, size, speed, a chart"),
    "predict": ("lib.predict", "main", "find, draw and list people in pictures, a video or a camera"),
    "preannotate": ("lib.preannotate", "main", "a model annotates first, people correct: for CVAT and our own annotator"),
    "classify": ("lib.classify.command", "main", "say what pictures show, with the five most probable classes as bars"),
    "export": ("lib.export", "export_model", "ONNX, .pt2, TorchScript or TensorRT, refused unless it finds the same people"),
    "benchmark": ("lib.benchmark", "benchmark", "how long a model takes here, by stage, batch size and number of people"),
    "student": ("lib.student", "student", "the notebooks without the solutions of their exercises, for a workshop"),
    "book": ("lib.book", "command", "run the notebooks headless and write the report"),
    "sweep": ("lib.sweep.command", "main", "a notebook with many parameters, here or on a Dask cluster: resumed, one table"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for an error it can name, 2 for a command or an option it does not know, 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            "usage: python -m lib [--debug] COMMAND [--help]\n\n"
            + "\n".join(f"  {c:18} {t[2]}" for c, t in COMMANDS.items())
        )
        return 0
    debug = arguments[0] == "--debug"
    command, *rest = arguments[debug:] or ["?"]
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        print(f"unknown command {command!r}" + (f", did you mean {near[0]!r}?" if near else f": {', '.join(COMMANDS)}"),
              file=sys.stderr)  # fmt: skip
        return 2
    module, function, _ = COMMANDS[command]
    try:
        function = getattr(import_module(module), function)
        # these read their own arguments, the others are plain functions, or several by name
        if command in ("train", "preflight", "predict", "preannotate", "classify", "book"):
            result = function(rest)
        else:
            options = {"prog": f"python -m lib {command}", "parser_class": Parser, "allow_abbrev": False}
            result = jsonargparse.auto_cli(function, args=rest, **options)
    except KeyboardInterrupt as stopped:
        print("stopped" + f": {stopped}" * bool(stopped.args), file=sys.stderr)
        return INTERRUPTED
    except (ValueError, KeyError, OSError, RuntimeError, ArithmeticError) as error:
        # the sentence is for the user; the stack is for whoever looks for a fault in the workbook
        if debug:
            raise
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 2 if isinstance(error, WrongArguments) else 1
    return result if isinstance(result, int) else 0


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    text = str(error.args[0] if isinstance(error, KeyError) else error)
    # an error in a process that reads samples brings its stack along; what it says stands at the end
    if re.match(r"Caught \w+ in DataLoader worker process", text):
        text = text.rpartition(f"\n{type(error).__name__}: ")[2].strip()
    return text


if __name__ == "__main__":
    sys.exit(main())
