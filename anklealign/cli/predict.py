"""Predict the classes of new photos with a trained bundle.

    anklealign predict PHOTO_OR_FOLDER … --out predictions.csv [--model model]

Folders are searched recursively. The table has one row per photo: path, predicted, a column
p_<class> for each class, prediction_set (the classes that contain the true one for 90% of photos,
joined by |), abstain (True if the set has several classes), in_distribution (False if the
photo does not look like the photos the model was trained on), novelty (its score, 0 to 2), and
reason, which is empty unless the photo could not be read. With --refuse-unlike, a photo that is
unlike the training photos has no predicted class.
Exit status: 0 all photos read, 1 some unreadable, 2 none readable or wrong command.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from anklealign.inference.predictor import Predictor
from anklealign.ingest.inventory import escape_unprintable
from anklealign.io import decode, files
from anklealign.models import calibration

# Photos decoded before each forward pass. Bounds the memory: 50 MB at 256 px.
CHUNK = 256


def predict_photos(
    paths: Sequence[Path],
    out: Path,
    model: Path,
    device: str = "auto",
    *,
    refuse_unlike: bool = False,
) -> int:
    """Predict photos and write the table; return the exit status.

    Args:
        paths: Photos, and folders to search.
        out: CSV file to write.
        model: Folder of the trained bundle.
        device: auto, cpu, cuda, cuda:1 or mps.
        refuse_unlike: Whether photos that are unlike the training photos get no class.
    """
    try:
        predictor = Predictor.load(model, device)
        table = predictions(predictor, list_photos(paths))
        if refuse_unlike:
            refused = table.in_distribution == False  # noqa: E712 - unreadable photos have ''
            table.loc[refused, ["predicted", "prediction_set"]] = "", "|".join(predictor.classes)
            table.loc[refused, "abstain"] = True
        files.write_table(out, table)
    except (ValueError, OSError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    unread = table[table.reason != ""]
    for path, reason in zip(unread.path, unread.reason, strict=True):
        print(f"predict: {path} could not be read: {reason}", file=sys.stderr)
    read = len(table) - len(unread)
    unlike = int((table.in_distribution == False).sum())  # noqa: E712
    print(
        f"predict: {read} photos predicted, {unlike} of them unlike the training photos, "
        f"{len(unread)} unreadable; see {out}"
    )
    return 2 if not read else int(len(unread) > 0)


def list_photos(paths: Iterable[Path]) -> list[Path]:
    """Return the photos among files and folders, sorted and without repeats.

    A file named explicitly is always included, as are missing paths and broken links, which are
    then listed as unreadable. In folders, hidden files are ignored, and so are files that are no
    photo by their first bytes or suffix, such as a CSV next to the photos.

    Raises:
        ValueError: There is no photo.
    """
    photos: set[Path] = set()
    for path in paths:
        photos.update(_photos_in(path) if path.is_dir() else [path])
    if not photos:
        raise ValueError(f"no photo in {', '.join(map(str, paths))}; name a photo or a folder")
    return sorted(photos)


def _photos_in(folder: Path) -> Iterator[Path]:
    for path in files.walk(folder):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and (path.is_file() or not path.exists()) and _looks_like_photo(path):
            yield path


def _looks_like_photo(path: Path) -> bool:
    if path.suffix.lower() in decode.PHOTO_SUFFIXES:
        return True
    if not path.exists():
        return False
    try:
        with path.open("rb") as stream:
            return decode.is_photo(stream.read(decode.HEAD))
    except OSError:
        return False


def predictions(predictor: Predictor, paths: Sequence[Path]) -> pd.DataFrame:
    """Return one row per photo, with the columns of the table that `predict_photos` writes."""
    probability_columns = [f"p_{name}" for name in predictor.classes]
    columns = [
        "path", "predicted", *probability_columns, "prediction_set", "abstain", "in_distribution",
        "novelty", "reason",
    ]  # fmt: skip
    rows: list[dict[str, object]] = []
    with tqdm(total=len(paths), unit="photo", disable=None) as bar:
        for start in range(0, len(paths), CHUNK):
            pixels = []
            for path in paths[start : start + CHUNK]:
                # A name that is not UTF-8 cannot be written as it is.
                shown = escape_unprintable(str(path))
                row: dict[str, object] = {"path": shown, "predicted": "", "reason": ""}
                try:
                    pixels.append(predictor.preprocess(path))
                except decode.PhotoError as error:
                    row["reason"] = escape_unprintable(f"{error.reason}: {error}")
                rows.append(row)
                bar.update()
            if pixels:
                read = (row for row in rows[start:] if not row["reason"])
                stacked = np.stack(pixels)
                probabilities = predictor.probabilities(stacked)
                novelty = predictor.novelty_scores(stacked)
                similar = predictor.in_distribution(novelty)
                sets = predictor.prediction_sets(probabilities)
                set_texts = calibration.format_sets(sets, predictor.classes)
                abstentions = calibration.abstains(sets)
                for row, scores, set_text, abstain, score, known in zip(
                    read, probabilities, set_texts, abstentions, novelty, similar, strict=True
                ):
                    row["predicted"] = predictor.classes[int(scores.argmax())]
                    row.update(zip(probability_columns, map(float, scores), strict=True))
                    row["prediction_set"], row["abstain"] = set_text, bool(abstain)
                    row["in_distribution"], row["novelty"] = bool(known), float(score)
    return pd.DataFrame(rows, columns=columns)
