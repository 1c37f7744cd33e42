"""The command for new photos.

    python -m anklealign.cli.predict PHOTO_OR_FOLDER … --out predictions.csv [--model model]

Folders are searched with all their subfolders. The table has a row a photo: path, predicted, a
column p_<class> for each class, set (the classes that hold the truth for 90 % of photos, joined
by |), abstain (True unless the set is one class), and reason, which is empty unless the photo could
not be read.
Exit status: 0 when every photo was read, 1 when some were not, 2 when none was or the command is
wrong.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from anklealign.inference.predictor import Predictor
from anklealign.io import decode, files
from anklealign.models import calibration

# Photos decoded before the network sees them: what bounds the memory, 50 MB at 256 pixels.
TOGETHER = 256
# Names that claim a photo: a text file named so is listed as unreadable, others are passed over.
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".heic",
    ".heif", ".jp2", ".ppm", ".pgm",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict photos and write the table; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m anklealign.cli.predict",
        description="Predict the class of photos by a trained model.",
        epilog="exit status: 0 every photo read, 1 some not, 2 none or a wrong command",
    )
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO_OR_FOLDER")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file to write")
    parser.add_argument("--model", type=Path, default=Path("model"), help="the bundle's folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    given = parser.parse_args(arguments)
    try:
        predictor = Predictor.load(given.model, given.device)
        table = predictions(predictor, find(given.photos))
        files.write_table(given.out, table)
    except (ValueError, OSError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    unread = table[table.reason != ""]
    for path, reason in zip(unread.path, unread.reason, strict=True):
        print(f"predict: {path} could not be read: {reason}", file=sys.stderr)
    read = len(table) - len(unread)
    print(f"predict: {read} photos predicted, {len(unread)} unreadable; see {given.out}")
    return 2 if not read else int(len(unread) > 0)


def find(given: Iterable[Path]) -> list[Path]:
    """Return the photos among files and folders, sorted, each once.

    A file that is named is taken whatever it is. In folders, hidden files and what is no photo by
    its first bytes nor by its name are passed over: a CSV beside the photos is not unreadable.
    A named path that is not there, and a broken link, are taken too, to be listed as unreadable.

    Raises:
        ValueError: Nothing was found.
    """
    found: set[Path] = set()
    for path in given:
        if path.is_dir():
            found.update(_photos_in(path))
        else:
            found.add(path)
    if not found:
        raise ValueError(f"no photo in {', '.join(map(str, given))}; name a photo or a folder")
    return sorted(found)


def _photos_in(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        broken = path.is_symlink() and not path.exists()
        if not hidden and (path.is_file() or broken) and _looks_like_photo(path):
            yield path


def _looks_like_photo(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return True
    if not path.exists():
        return False
    with path.open("rb") as stream:
        return decode.is_photo(stream.read(decode.HEAD))


def predictions(predictor: Predictor, paths: Sequence[Path]) -> pd.DataFrame:
    """Return a row a photo, in the order given: path, predicted, p_<class>…, set…, reason."""
    given = [f"p_{name}" for name in predictor.classes]
    columns = ["path", "predicted", *given, "set", "abstain", "reason"]
    rows: list[dict[str, object]] = []
    with tqdm(total=len(paths), unit="photo", disable=None) as bar:
        for start in range(0, len(paths), TOGETHER):
            seen = []
            for path in paths[start : start + TOGETHER]:
                row: dict[str, object] = {"path": str(path), "predicted": "", "reason": ""}
                try:
                    seen.append(predictor.prepare(path))
                except decode.PhotoError as error:
                    row["reason"] = f"{error.reason}: {error}"
                rows.append(row)
                bar.update()
            if seen:
                read = (row for row in rows[start:] if not row["reason"])
                answers = predictor.probabilities(np.stack(seen))
                sets = predictor.prediction_sets(answers)
                spelled = calibration.spelled(sets, predictor.classes)
                abstained = calibration.abstains(sets)
                for row, answer, members, abstain in zip(
                    read, answers, spelled, abstained, strict=True
                ):
                    row["predicted"] = predictor.classes[int(answer.argmax())]
                    row.update(zip(given, map(float, answer), strict=True))
                    row["set"], row["abstain"] = members, bool(abstain)
    return pd.DataFrame(rows, columns=columns)


if __name__ == "__main__":
    sys.exit(main())
