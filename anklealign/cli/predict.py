"""Predict the classes of new photos with a trained bundle.

    anklealign predict PHOTO_FOLDER_LIST_OR_ADDRESS … --out predictions.csv [--model model]

Folders are searched recursively; a list is a .txt file with a path or an address in each line
(`anklealign/cli/photo_sources.py`). The table has one row per photo: path, predicted, a column
p_<class> for each class, prediction_set (the classes that contain the true one for 90% of photos,
joined by |), abstain (True if the set has several classes), in_distribution (False if the
photo does not look like the photos the model was trained on), novelty (its score, 0 to 2),
at_operating_point (the class at the bundle's operating point, if it has one), and reason, which is
empty unless the photo could not be read. With --refuse-unlike, a photo that is unlike the training
photos has no predicted class.

Each shard of photos is a file in the folder OUT.parts until the table is put together from them. An
interrupted command that starts again predicts only what is missing: a file is named by the hash of
the model, the code and the photos' paths, sizes and times. Memory is that of the shards in work,
whatever their number. A shard's network runs in one thread, so that no number of cores, workers or
hosts changes a digit.
Exit status: 0 all photos read, 1 some unreadable, 2 none readable or wrong command.
"""

import contextlib
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from anklealign.cli import photo_sources
from anklealign.cli.download import is_address
from anklealign.config import environment
from anklealign.inference.predictor import Predictor
from anklealign.inference.predictor_source import PredictorSource
from anklealign.ingest.inventory import escape_unprintable
from anklealign.ingest.wording import counted
from anklealign.io import decode, execution, files, imports, results
from anklealign.io.execution import Backend
from anklealign.models import calibration, inputs, operating_point
from anklealign.models.input_config import CHUNK

# Photos of a shard: of the first `FEW` shards, so that a hundred photos keep all cores busy, and of
# the others, so that a million take 4,000 files. 256 take 50 MB at 256 px.
SMALL, FEW, LARGE = 32, 64, 256
PART = re.compile(r"\.?\d{7}-[0-9a-f]{16}\.csv.*")  # also what a killed process leaves
Numbered = tuple[int, list[str]]


@dataclass(frozen=True)
class Job:
    """What is done to all shards.

    Attributes:
        source: Of the predictor.
        refuse_unlike: Whether photos that are unlike the training photos get no class.
        folder: Of the parts.
        key: Hash of the bundle, the code and the options.
    """

    source: PredictorSource
    refuse_unlike: bool
    folder: Path
    key: str


@dataclass(frozen=True)
class Part:
    """The predictions of a shard: their file, counts, and (path, reason) of unreadable photos."""

    file: Path
    photos: int
    unlike: int
    unread: list[tuple[str, str]]
    known: bool  # from an interrupted run


def predict_photos(
    sources: Sequence[str],
    out: Path,
    model: Path,
    device: str = "auto",
    *,
    refuse_unlike: bool = False,
    backend: Backend = "local",
    gpus: float = 1,
) -> int:
    """Predict photos and write the table; return the exit status.

    Args:
        sources: Photos, folders, lists and addresses.
        out: CSV file to write.
        model: Folder of the trained bundle.
        device: auto, cpu, cuda, cuda:1 or mps.
        refuse_unlike: Whether photos that are unlike the training photos get no class.
        backend: Where shards run (`anklealign/io/execution.py`).
        gpus: GPUs of each shard on a cluster, if the device is one.
    """
    try:
        execution.configure(backend, gpus)
        counts = _write_table(sources, out, model, device, refuse_unlike=refuse_unlike)
    except (ValueError, OSError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    if counts["known"]:
        known = counted(counts["known"], "photo is", "photos are")
        print(f"predict: {known} known from an interrupted run")
    read = counts["photos"] - counts["unread"]
    print(
        f"predict: {counted(read, 'photo', 'photos')} predicted, {counts['unlike']} of them unlike "
        f"the training photos, {counts['unread']} unreadable; see {out}"
    )
    return 2 if not read else int(counts["unread"] > 0)


def _write_table(
    sources: Sequence[str], out: Path, model: Path, device: str, *, refuse_unlike: bool
) -> dict[str, int]:
    """Write the table; return the counts of photos, unread, unlike and known ones."""
    if execution.on_cluster():
        device = execution.cluster_device() if device == "auto" else device
        kind, here = device.partition(":")[0], "cpu"  # this host may have no GPU
    else:
        device = here = str(inputs.pick_device(device))
        kind = device.partition(":")[0]
    predictor = Predictor.load(model, here)  # an error of the bundle comes before any work
    folder = out.absolute().with_name(f"{out.name}.parts")
    source = PredictorSource(model.absolute(), results.bundle_hash(model), device, 1)
    job = Job(source, refuse_unlike, folder, _key(source, kind, refuse_unlike))
    if not execution.on_cluster():
        source.keep(predictor)
    shards = _shards(photo_sources.photos_in(sources))
    counts = dict.fromkeys(("photos", "unread", "unlike", "known"), 0)
    parts: list[str] = []
    # TF32 is off for all threads until the last one ends.
    with inputs.full_precision(), tqdm(unit="photo", disable=None) as bar:
        for part in execution.map_shards(
            partial(predict_part, job), shards, execution.of_network(kind, 1)
        ):
            parts.append(part.file.name)
            for name, number in (
                ("photos", part.photos), ("unread", len(part.unread)), ("unlike", part.unlike),
                ("known", part.photos * part.known),
            ):  # fmt: skip
                counts[name] += number
            for path, reason in part.unread:
                tqdm.write(f"predict: {path} could not be read: {reason}", file=sys.stderr)
            bar.update(part.photos)
    _join(job.folder, parts, out)
    return counts


def _key(source: PredictorSource, device: str, refuse_unlike: bool) -> str:
    """Return the hash of all that a prediction depends on besides the photo."""
    described = {
        "bundle": source.sha256,
        "device": device,
        "refuse_unlike": refuse_unlike,
        "code": imports.code_sha256((__name__,)),
        "libraries": environment.installed_versions(
            ("numpy", "pi-heif", "pillow", "timm", "torch")
        ),
    }
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _shards(photos: Iterable[str]) -> Iterator[Numbered]:
    """Yield shards of photos with their numbers."""
    remaining = iter(photos)
    for number in count():
        shard = list(islice(remaining, SMALL if number < FEW else LARGE))
        if not shard:
            return
        yield number, shard


def predict_part(job: Job, shard: Numbered) -> Part:
    """Write the predictions of a shard, unless an interrupted run has written them."""
    number, photos = shard
    described = json.dumps([job.key, [(name, *_stamp(name)) for name in photos]])
    digest = hashlib.sha256(described.encode()).hexdigest()[:16]
    file = job.folder / f"{number:07}-{digest}.csv"
    known = file.exists()
    if known:
        table = files.read_table(file, ("path", "predicted", "in_distribution", "reason"))
    else:
        predictor = job.source.predictor()
        table = predictions(predictor, photos)
        if job.refuse_unlike:
            refused = table.in_distribution == False  # noqa: E712 - unreadable photos have ''
            table.loc[refused, ["predicted", "prediction_set"]] = "", "|".join(predictor.classes)
            table.loc[refused, "abstain"] = True
        files.write_table(file, table)
    unread = table[table.reason != ""]
    return Part(
        file,
        len(table),
        int((table.in_distribution.astype(str) == "False").sum()),
        list(zip(unread.path, unread.reason, strict=True)),
        known,
    )


def _stamp(name: str) -> tuple[int, ...]:
    """Return size and time of a file; nothing for an address and for a missing file."""
    if not is_address(name):
        with contextlib.suppress(OSError):
            facts = Path(name).stat()
            return facts.st_size, facts.st_mtime_ns
    return ()


def _join(folder: Path, parts: Sequence[str], out: Path) -> None:
    """Write the table of all parts, and remove them."""
    with files.replacing(out) as temporary, temporary.open("wb") as table:
        for number, name in enumerate(parts):
            with (folder / name).open("rb") as part:
                header = part.readline()
                if not number:
                    table.write(header)
                shutil.copyfileobj(part, table)
    for path in folder.iterdir():
        if PART.fullmatch(path.name):
            path.unlink()
    with contextlib.suppress(OSError):  # another file is in it
        folder.rmdir()


def predictions(predictor: Predictor, photos: Sequence[str]) -> pd.DataFrame:
    """Return one row per photo, with the columns of the table that `predict_photos` writes."""
    probability_columns = [f"p_{name}" for name in predictor.classes]
    columns = [
        "path", "predicted", *probability_columns, "prediction_set", "abstain", "in_distribution",
        "novelty", "reason",
    ]  # fmt: skip
    point = operating_point.from_record(predictor.bundle.record)
    if point:
        columns.insert(-1, "at_operating_point")
    rows: list[dict[str, object]] = []
    pixels = []
    for name in photos:
        # A name that is not UTF-8 cannot be written as it is.
        row: dict[str, object] = {"path": escape_unprintable(name), "predicted": "", "reason": ""}
        try:
            pixels.append(_opened(predictor, name))
        except decode.PhotoError as error:
            row["reason"] = escape_unprintable(f"{error.reason}: {error}")
        rows.append(row)
    read = [row for row in rows if not row["reason"]]
    for start in range(0, len(read), CHUNK):
        stacked = np.stack(pixels[start : start + CHUNK])
        probabilities = predictor.probabilities(stacked)
        scores = predictor.novelty_scores(stacked)
        similar = predictor.in_distribution(scores)
        sets = predictor.prediction_sets(probabilities)
        set_texts = calibration.format_sets(sets, predictor.classes)
        for row, own, set_text, abstain, score, known in zip(
            read[start : start + CHUNK], probabilities, set_texts,
            calibration.abstains(sets), scores, similar, strict=True,
        ):  # fmt: skip
            row["predicted"] = predictor.classes[int(own.argmax())]
            row.update(zip(probability_columns, map(float, own), strict=True))
            row["prediction_set"], row["abstain"] = set_text, bool(abstain)
            row["in_distribution"], row["novelty"] = bool(known), float(score)
            if point:
                (row["at_operating_point"],) = point.classes_of(own[None], predictor.classes)
    return pd.DataFrame(rows, columns=columns)


def _opened(predictor: Predictor, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    most = predictor.bundle.preprocessing.max_megapixels
    return predictor.preprocess(photo_sources.read_photo(name, most) if is_address(name) else name)
