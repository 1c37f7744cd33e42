"""Clean: remove duplicates and unusable photos, with the reason and the photo kept instead.

Reads data/prepared/photos.csv and pixels/. Writes data/clean/photos.csv (the kept rows, with the
duplicate cluster of each or ''), data/clean/removed.csv (one row per removed photo: reason, score,
threshold, the photo kept instead, why, and the id of the photo that the report shows next to it),
data/clean/flagged.csv (the kept photos with a reason whose action is `flag`, in the same columns),
data/clean/scores.csv and residuals.csv (the scores of all photos and compared pairs), and
metrics/details/clean.json.

    python -m stages.clean

Reasons: exact_duplicate (same file or same pixels), near_duplicate (the same picture re-encoded,
resized, cropped, rotated, mirrored, framed, or brightened; kept with clean.near_duplicates: group),
contradicting_labels (duplicates with different labels; all are removed, except for those whose
label agrees with a consensus label), and the quality reasons, which are keys of `clean` in
params.yaml. A quality reason applies to a photo whose score is beyond the threshold and unusual in
its set (anklealign/cleaning/image_quality.py). A photo with several quality reasons gets the first
in their order there; so does an unusable duplicate of a kept photo. Of several duplicates, the one
with a consensus label is kept, else the larger, then the one without a frame, then the sharper,
then the one whose path without suffix sorts first. Nothing in a photo shows whether it or its
rotated duplicate is upright. Where mirroring may change the label (mirror_safe: false), a mirrored
duplicate contradicts nothing and is kept; it shares the original's cluster, so that split does not
separate them. So do photos of one scene that differ in a detail, and shots of a fixed camera.
"""

from collections import Counter
from typing import Any

import pandas as pd

from anklealign.cleaning import image_quality, losses, removal
from anklealign.cleaning.image_quality import QUALITY_REASONS
from anklealign.cleaning.removal import Cleaning
from anklealign.config import params, paths, stage
from anklealign.config.params import Clean
from anklealign.ingest.wording import counted
from anklealign.io import execution, files, memory, pixel_store, results
from anklealign.io.pixel_store import Pictures
from anklealign.similarity import registration

METRICS = paths.DETAILS / "clean.json"
SCORES = paths.CLEAN / "scores.csv"
RESIDUALS = paths.CLEAN / "residuals.csv"
DIGITS = 6  # of a score in scores.csv and residuals.csv


def main() -> None:
    """Write the tables and the metrics."""
    memory.keep_freed_memory()
    raw = params.read()
    settings = params.section(raw, "clean", Clean)
    execution.configure(**vars(params.execution(raw)))
    _, dataset = params.dataset(raw)
    pixel_store.keep_shards()
    prepared, clean = paths.PREPARED / "photos.csv", paths.CLEAN / "photos.csv"
    table = pixel_store.read_table(prepared)
    pictures = Pictures(table, pixel_store.open_store(), dataset.fit)

    qualities = image_quality.cache_for(square=dataset.fit == "crop")
    with qualities, registration.cache_for() as hashes:
        result = removal.clean_photos(table, pictures, dataset, settings, (qualities, hashes))
    removed, flagged = result.removed, result.flagged
    kept = result.table[~result.table.id.isin(removed.id)]

    files.write_table(clean, kept)
    hashes_of_tables = {
        "prepared_sha256": files.sha256(prepared),
        "photos_sha256": files.sha256(clean),
    }
    metrics = count(result) | hashes_of_tables
    files.write_table(paths.CLEAN / "removed.csv", removed)
    files.write_table(paths.CLEAN / "flagged.csv", flagged)
    files.write_table(SCORES, score_table(result))
    files.write_table(RESIDUALS, residual_table(result))
    results.write_details(METRICS, metrics)
    losses.check(table, removed, settings.allowed_losses)
    for sentence in metrics["warnings"].values():
        stage.print_wrapped(f"clean: warning: {sentence}; see {paths.CLEAN}/")
    for photos in result.residuals.large_scenes:
        stage.print_wrapped(
            f"clean: {photos} photos show one scene, as of a fixed camera or a form, and differ in "
            "details; they are kept, and split assigns them one by one. If several photos show one "
            "subject, name the subjects in the dataset config"
        )
    listed = ", ".join(f"{n} {name}" for name, n in metrics["reasons"].items() if n)
    also = f"; flagged: {len(flagged)}" if len(flagged) else ""
    stage.print_wrapped(
        f"clean: kept {len(kept)} of {counted(len(table), 'photo')}; "
        f"removed: {listed or 'none'}{also}"
    )


def count(result: Cleaning) -> dict[str, Any]:
    """Return the metrics: nested, without lists, with every reason and class even if 0."""
    table, removed = result.table, result.removed
    is_removed = table.id.isin(removed.id)
    contradicting = removed[removed.reason == "contradicting_labels"]
    reasons, flagged = Counter(removed.reason), Counter(result.flagged.reason)
    return {
        "photos": len(table),
        "kept": int((~is_removed).sum()),
        "removed": int(is_removed.sum()),
        "clusters": int(table.cluster[table.cluster != ""].nunique()),
        "clusters_contradicting": int(contradicting.cluster.nunique()),
        "reasons": {reason: reasons[reason] for reason in removal.REASONS},
        "flagged": {reason: flagged[reason] for reason in QUALITY_REASONS},
        "warnings": losses.warnings(table, pd.concat([removed, result.flagged])),
        "classes": {
            name: {
                "kept": int((~is_removed & rows).sum()),
                "removed": int((is_removed & rows).sum()),
            }
            for name in sorted(table.label.unique())
            for rows in [table.label == name]
        },
    }


def score_table(result: Cleaning) -> pd.DataFrame:
    """Return each photo's id, path and quality scores, one column for each quality reason."""
    scores = pd.DataFrame(
        {name: [getattr(q, name) for q in result.qualities] for name in QUALITY_REASONS}
    )
    return pd.concat([result.table[["id", "path"]], scores.round(DIGITS)], axis=1)


def residual_table(result: Cleaning) -> pd.DataFrame:
    """Return the residual of each pair that was compared: (id_a, id_b, residual)."""
    ids = result.table.id
    pairs = sorted(result.residuals.pairs.items())
    rows = [(ids[a], ids[b], round(residual, DIGITS)) for (a, b), residual in pairs]
    return pd.DataFrame(rows, columns=["id_a", "id_b", "residual"])


if __name__ == "__main__":
    stage.run("clean", main)
