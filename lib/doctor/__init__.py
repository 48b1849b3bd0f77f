"""The dataset doctor: what is wrong with an annotation file and its pictures, drawn, explained and mended."""

from __future__ import annotations

from pathlib import Path

from lib.doctor.checks import find_all
from lib.doctor.diagnosis import Diagnosis
from lib.doctor.findings import Example, Finding
from lib.doctor.mending import check_target, mend, write_copy
from lib.doctor.pictures import look_at_all
from lib.doctor.reading import Labels, read
from lib.doctor.statistics import statistics

__all__ = ["Diagnosis", "Example", "Finding", "doctor", "examine", "repair"]


def examine(file: str | Path, images: str | Path | None = None, against: str | Path | None = None,
            against_images: str | Path | None = None) -> Diagnosis:  # fmt: skip
    """Look at everything at once, where the workbook's own reader stops at the first fault.

    Args:
        file: COCO annotation file; it is only read.
        images: folder of its pictures. Without it the pictures are not checked, and examples are drawn on grey.
        against: annotation file of another set that must share no picture with this one, as training and validation.
        against_images: folder of its pictures; default: where the known layouts have it.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: not a COCO file at all, in one sentence; or `against` without `images`.
    """
    labels = gather(file, images, against, against_images)
    return Diagnosis(labels, find_all(labels), statistics(labels), images and Path(images))


def gather(file: str | Path, images: str | Path | None = None, against: str | Path | None = None,
           against_images: str | Path | None = None) -> Labels:  # fmt: skip
    """Read the file, and look at the pictures of both sets."""
    if against and not images:
        raise ValueError(f"{against}: pictures are compared by their content, so give images, the folder of {file}'s")
    labels = read(file)
    if images:
        labels.pictures = look_at_all(images, labels)
    if against:
        other = read(against)
        seen = look_at_all(against_images or folder_of(against), other)
        labels.against = [picture for picture in seen.values() if not picture.fault]
    return labels


def folder_of(file: str | Path) -> Path:
    """The folder of a file's pictures in the layouts of data/README.md: ../train2017 for annotations/…_train2017.json."""
    file = Path(file)
    guesses = [file.parent.parent / file.stem.rpartition("_")[2], file.parent / "images"]
    for folder in guesses:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{file}: no folder of its pictures ({' or '.join(map(str, guesses))}); say which it is")


def doctor(file: Path, images: Path | None = None, against: Path | None = None, against_images: Path | None = None,
           fix: Path | None = None, report: Path | None = None) -> int:  # fmt: skip
    """Find what is wrong in a data set; exit status 1 for something severe, 0 otherwise.

    Args:
        file: COCO annotation file; it is never changed.
        images: folder of its pictures: checks them too, and draws the examples on them.
        against: annotation file of another set that must share no picture with this one (needs --images).
        against_images: folder of its pictures, if it is not where the known layouts have it.
        fix: write a mended copy here; the exit status is then the copy's.
        report: write a page with drawn examples and plots into this folder.
    """
    if fix:
        check_target(file, fix)
    diagnosis = examine(file, images, against, against_images)
    print(diagnosis)
    if report:
        print(f"\nreport: {diagnosis.write(report)}")
    if fix:
        mended, counts = mend(diagnosis.labels)
        write_copy(mended, fix)
        print(f"\n{fix}: " + (", ".join(f"{code} ({n})" for code, n in counts.items()) or "nothing to mend") + "\n")
        diagnosis = Diagnosis(mended, find_all(mended), statistics(mended), images)
        print(diagnosis)
    return int(diagnosis.severe)


def repair(file: str | Path, out: str | Path, images: str | Path | None = None, against: str | Path | None = None,
           against_images: str | Path | None = None) -> dict[str, int]:  # fmt: skip
    """Write a copy in which everything fixable is mended; keys that COCO does not know are carried along.

    Args:
        file, images, against, against_images: as for `examine`.
        out: the copy; never the file itself.

    Returns:
        What was mended: code of the finding → count.
    """
    check_target(file, out)
    labels, counts = mend(gather(file, images, against, against_images))
    write_copy(labels, out)
    return counts
