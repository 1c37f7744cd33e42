"""Score a bundle on labeled photos that it never saw: another place, another year.

    anklealign evaluate model/ ~/photos/other-site --out evaluation

Nothing is trained and nothing is written but the folder `--out`: report.html (one page that needs
no network), evaluation.json (every score with its 95% CI over groups, calibration, prediction sets,
overlap with the training photos and drift against them), predictions.csv (one row per photo) and
skipped.csv (what was left out, with reason and remedy). The photos may be in any layout that
`anklealign add` reads; they are decoded as the bundle requires. The bundle alone is needed. In the
folder of its training run, the files of the photos are also compared with those of the run, and the
page shows the scores of its own test split beside.

Exit status: 0 done, 1 the bundle or the photos cannot be used.
"""

import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anklealign.cli import add, download, labeled_photos, summary
from anklealign.cli.labeled_photos import LabeledFolder
from anklealign.config import paths
from anklealign.evaluation import external, external_page, prediction_tables
from anklealign.inference.predictor import Predictor
from anklealign.ingest import archives
from anklealign.io import files, pixel_store, results
from anklealign.plotting import contact_sheets

WIDTH = 80  # columns of the terminal


def evaluate_bundle(
    bundle: Path,
    data: str,
    out: Path,
    settings: Sequence[str] = (),
    *,
    device: str = "auto",
    partial: bool = False,
) -> int:
    """Write the evaluation of a bundle on labeled photos; return the exit status.

    Args:
        bundle: Folder of the bundle.
        data: Folder or archive of the photos, or an address.
        out: Folder to write to.
        settings: Keys of the dataset config as KEY=VALUE, such as layout=folders.
        device: auto, cpu, cuda, cuda:1 or mps.
        partial: Whether photos of other labels are left out and classes may lack photos.
    """
    try:
        forced = add.read_settings(settings)
        predictor = Predictor.load(bundle, device)
        with (
            download.local_copy(data, "evaluate", dry=True) as source,
            archives.unpacked(checked(source, out), None, "evaluate") as (folder, remarks),
            tempfile.TemporaryDirectory(prefix="anklealign-evaluate-") as temporary,
        ):
            labeled = labeled_photos.read_folder(
                folder, predictor.bundle, Path(temporary), forced, partial=partial
            )
            print_lines("photos    ", f"{len(labeled.table)} in {data}; {labeled.layout}")
            for remark in remarks:
                print_lines("          ", remark)
            write(predictor, bundle, labeled, data, out)
    except (ValueError, OSError) as error:
        first, *evidence = f"evaluate: {error}".splitlines()
        lines = [textwrap.fill(first, WIDTH)]
        lines += [textwrap.fill(line.strip(), WIDTH, initial_indent="  - ") for line in evidence]
        print("\n".join(lines), file=sys.stderr)
        return 1
    return 0


def checked(source: Path, out: Path) -> Path:
    """Return the source after checking that it exists and that the output is outside of it.

    Raises:
        ValueError: There is no such folder or archive, or the output is in it.
    """
    if not source.is_dir() and not (source.is_file() and archives.has_archive_content(source)):
        if problem := archives.unreadable_archive(source):
            raise ValueError(f"DATA = {str(source)!r} {problem}")
        raise ValueError(
            f"DATA = {str(source)!r} is not a folder, a zip or tar file, or an address; give the "
            "folder of the labeled photos"
        )
    if source.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(
            f"--out {out} is inside DATA, which is never written to; choose another folder"
        )
    return source


def write(predictor: Predictor, bundle: Path, labeled: LabeledFolder, data: str, out: Path) -> None:
    """Evaluate the photos, write the folder and print the scores."""
    own = labeled_photos.bundle_dataset(predictor.bundle)
    metrics, rows, predictions = external.evaluate(
        predictor,
        labeled.table,
        labeled.store,
        labeled.votes,
        training_splits(predictor),
        ordered=own.ordered,
    )
    skipped = labeled.skipped
    metrics = {
        results.BUNDLE: results.bundle_hash(bundle),
        "data": data,
        "layout": labeled.layout,
        "skipped": {
            str(reason): int(n) for reason, n in skipped.reason.value_counts().sort_index().items()
        },
        **metrics,
    }
    page = external_page.html(
        metrics,
        external_page.Origin(predictor.bundle.record, predictor.classes, own_scores(bundle)),
        rows,
        prediction_tables.reliability_table(predictions),
        mistake_sheet(rows, labeled),
    )
    files.write_json(out / "evaluation.json", metrics)
    files.write_table(
        out / "predictions.csv",
        prediction_tables.rounded_probabilities(rows),
    )
    files.write_table(out / "skipped.csv", skipped)
    files.write_text(out / "report.html", page)
    print("\n".join(terminal_lines(metrics)))
    print_lines("\nwritten   ", f"{out}/report.html, evaluation.json, predictions.csv, skipped.csv")


def training_splits(predictor: Predictor) -> dict[str, str] | None:
    """Return the split of each photo by the SHA-256 of its file, if this is the run's folder."""
    split = paths.SPLIT / "photos.csv"
    if not split.is_file() or files.sha256(split) != predictor.bundle.record.get("split_sha256"):
        return None
    table = pixel_store.read_table(split)
    return dict(zip(table.sha256, table.split, strict=True))


def own_scores(bundle: Path) -> Mapping[str, Any]:
    """Return the metrics of the bundle's own test split, if they are in this folder, or {}."""
    try:
        own = results.read_details(paths.DETAILS / "evaluate.json")
    except (OSError, ValueError):
        return {}
    return own if own.get(results.BUNDLE) == results.bundle_hash(bundle) else {}


def mistake_sheet(rows: pd.DataFrame, labeled: LabeledFolder) -> external_page.Sheet | None:
    """Return the photos of the errors with the highest confidence as a contact sheet."""
    wrong = rows[rows.actual != rows.predicted]
    if wrong.empty:
        return None
    top = wrong.sort_values(["probability", "path"], ascending=[False, True])
    top = top.head(external.SETTINGS.mistakes)
    photos = labeled.table.set_index("id").loc[top.id]
    boxes = pixel_store.Boxes(photos, labeled.store)
    tiles = [
        contact_sheets.Tile(
            (picture,),
            (
                f"predicted {row['predicted']} {row['probability']:.0%}",
                f"labeled {row['actual']}",
                row["path"],
            ),
        )
        for row, picture in zip(top.to_dict("records"), boxes, strict=True)
    ]
    title = f"The {len(tiles)} of {len(wrong)} errors with the highest confidence"
    (page,) = contact_sheets.pages(tiles, title, "", columns=4, rows=len(tiles))
    return external_page.Sheet(np.asarray(page.convert("RGB")), title)


def terminal_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return the scores, what the prediction sets hold, and the warnings."""
    block = metrics["calibration"]
    coverage, abstention = block["coverage"], block["abstention"]["value"]
    sets = (
        f"prediction sets   contain the true class for {coverage['value']:.0%} of photos (nominal "
        f"{coverage['nominal']:.0%}); {abstention:.0%} abstained"
    )
    remarks = [sets, *(f"warning           {sentence}" for sentence in metrics["warnings"])]
    return ["", *summary.score_table(dict(metrics)), "", *summary.wrapped(remarks, 18)]


def print_lines(start: str, text: str) -> None:
    """Print a sentence in lines of the terminal's width."""
    print(
        textwrap.fill(
            text, WIDTH, initial_indent=start, subsequent_indent=" " * 10, break_on_hyphens=False
        )
    )
