"""`python -m lib classify SOURCE --model MODEL --out OUT`: what pictures show, drawn, listed, and scored where it is known."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from lib import files
from lib.arguments import Parser
from lib.classify.drawing import draw_top, top
from lib.classify.predictor import PictureClassifier
from lib.data.augment import image_files, read_image
from lib.data.dataset import worker_init
from lib.data.imagenet import name_of
from lib.draw import save_picture
from lib.predict.outputs import GrowingFile

LIST, RESULTS = "classes.csv", "results.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0."""
    parser = Parser(prog="python -m lib classify", description=classify.__doc__.split("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help="picture, or folder of pictures")
    parser.add_function_arguments(classify, as_positional=False, skip={"source"})
    classify(**parser.parse_args(arguments).as_dict())
    return 0


def classify(source: str | Path, model: str | Path, out: str | Path, *, classes: str | Path | None = None,
             device: str = "cpu", batch_size: int = 16, num_workers: int = 0, draw: int = 200,
             overwrite: bool = False) -> dict[str, float]:  # fmt: skip
    """Say what pictures show: the five most probable classes of each, drawn as bars and listed.

    In the folder `out` are then the drawn pictures; `classes.csv`, a row for each picture; and `results.json`. Pictures in a
    folder that is called like a class (its WNID or its name), as those of ImageNet's layout are, count for top-1 and top-5.

    Args:
        source: picture, or folder of pictures (with its sub-folders).
        model: `.safetensors`, or a public file.
        out: folder for the results.
        classes: class index that names the classes of a public file.
        device: cpu, cuda or cuda:1.
        batch_size: pictures per network call.
        num_workers: processes that read pictures.
        draw: draw only the first so many pictures.
        overwrite: replace what an earlier run left in `out`, its drawn pictures, too.

    Returns:
        pictures, labelled (how many of them have a known class), and of these top1 and top5.

    Raises:
        ValueError, OSError: source or model cannot be used; there are results already.
        RuntimeError: some pictures could not be read; the others have been written.
    """
    source, out = Path(source), Path(out)
    paths = _paths(source, out)
    _check_out(out, overwrite)
    network = PictureClassifier(model, device, classes)
    truths = [network.label_of(path.parent.name) if source.is_dir() else None for path in paths]
    faults, right, rows, drawn = [], [], None, 0
    try:
        for index, answer in _answers(network, paths, batch_size, num_workers):
            if isinstance(answer, str):
                faults.append(answer)
                continue
            if rows is None:
                _remove_earlier(out)
                rows = GrowingFile(out / LIST, _row("file", "truth", *_columns(network.classes)))
            truth, best = truths[index], top(answer, network.classes)
            named = None if truth is None else name_of(network.classes[truth])
            ranked = [cell for label, p in zip(best.labels, best.probabilities)
                      for cell in (network.classes[label], f"{p:.4f}")]  # fmt: skip
            name = paths[index].relative_to(source).as_posix() if source.is_dir() else source.name
            rows.append(_row(name, "" if truth is None else network.classes[truth], *ranked))
            if truth is not None:
                right.append((truth == best.labels[0], truth in best.labels))
            if index < draw:
                picture = draw_top(read_image(paths[index]), best, named)
                save_picture(out / f"{index:06d}_{paths[index].stem}.jpg", picture)
                drawn += 1
    finally:
        if rows:
            rows.close()
    return _report(out, source, model, len(paths), faults, right, drawn)


def _paths(source: Path, out: Path) -> list[Path]:
    if not source.is_dir():
        if not source.is_file():
            raise FileNotFoundError(f"{source}: there is no such picture or folder")
        return [source]
    # what was drawn before is not a picture to look at
    paths = [path for path in image_files(source) if not path.resolve().is_relative_to(out.resolve())]
    if not paths:
        raise FileNotFoundError(f"{source} holds no image but those in {out}")
    return paths


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; --out names a folder")
    if not overwrite and (there := [name for name in (LIST, RESULTS) if (out / name).exists()]):
        raise FileExistsError(f"{out} holds {' and '.join(there)} already: choose another --out, or replace them with "
                              "--overwrite true")  # fmt: skip


def _remove_earlier(out: Path) -> None:
    """Remove the results of an earlier run, and of the pictures that are drawn here those which stand in its list."""
    (out / RESULTS).unlink(missing_ok=True)
    if (out / LIST).is_file():
        with (out / LIST).open(newline="", encoding="utf-8") as file:
            stems = {PurePath(row["file"]).stem for row in csv.DictReader(file)}
        for drawn in out.glob("[0-9]" * 6 + "_*.jpg"):
            if drawn.stem[7:] in stems:
                drawn.unlink()


class _Fitted(Dataset):
    """Fitted pictures; one that cannot be read is the sentence that says why."""

    def __init__(self, network: PictureClassifier, paths: Sequence[Path]):
        self.fit, self.paths = network.fit, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray | str:
        try:
            return self.fit(self.paths[index])
        except (ValueError, OSError) as error:
            return str(error)


def _answers(network: PictureClassifier, paths: Sequence[Path], batch_size: int,
             num_workers: int) -> Iterator[tuple[int, np.ndarray | str]]:  # fmt: skip
    """Probabilities (C,) of every picture, or what is wrong with it, in their order."""
    loader = DataLoader(_Fitted(network, paths), batch_size, num_workers=num_workers, collate_fn=list,
                        worker_init_fn=worker_init)  # fmt: skip
    first = 0
    with tqdm(total=len(paths), desc="classify", unit="img") as bar:
        for batch in loader:
            images = [image for image in batch if not isinstance(image, str)]
            answers = iter(network(np.stack(images)) if images else ())
            for index, image in enumerate(batch, start=first):
                yield index, image if isinstance(image, str) else next(answers)
            first += len(batch)
            bar.update(len(batch))


def _columns(classes: Sequence[str]) -> list[str]:
    return [f"{what}_{rank}" for rank in range(1, min(5, len(classes)) + 1) for what in ("class", "probability")]


def _row(*cells: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _report(out: Path, source: Path, model: str | Path, count: int, faults: list[str], right: list[tuple[bool, bool]],
            drawn: int) -> dict[str, float]:  # fmt: skip
    if len(faults) == count:
        raise ValueError(faults[0])
    results = {"pictures": count - len(faults), "labelled": len(right)}
    if right:
        results |= dict(zip(("top1", "top5"), np.mean(right, axis=0).tolist()))
    facts = {"source": str(source), "model": str(model)}
    files.write(out / RESULTS, json.dumps(facts | results, indent=2))
    print(f"{results['pictures']} pictures, {drawn} of them drawn: {LIST} and {RESULTS} in {out}")
    if right:
        print(f"of {len(right)} in folders named after a class: top-1 {results['top1']:.1%} right (error "
              f"{1 - results['top1']:.1%}), top-5 {results['top5']:.1%} right (error {1 - results['top5']:.1%})")  # fmt: skip
    if faults:
        raise RuntimeError(f"{len(faults)} of {count} pictures could not be read; the first: {faults[0]}")
    return results
