"""Human baseline: annotators and the model scored against the same reference votes.

Shapes: N photos, K classes. The reference label of a vote is the majority of the other annotators,
so no annotator is scored against a majority that includes their own vote. The model is scored on
the same photos against the same reference labels. Photos without other votes, and photos on which
the other annotators are tied, are not scored.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from anklealign.metrics.scores import Integers, confusion, confusion_scores

SCORES = ("accuracy", "balanced_accuracy")
COLUMNS = ("photo", "annotator", "reference", "vote", "predicted")


def leave_one_out_majority(
    votes: pd.DataFrame, annotator: str, classes: Sequence[str]
) -> pd.Series:
    """Return the majority class index of the other annotators, indexed by photo.

    Args:
        votes: One row per vote: photo, annotator, label.
        annotator: The annotator whose votes are ignored.
        classes: K names.
    """
    others = votes[votes.annotator != annotator]
    counts = pd.crosstab(others.photo, others.label).reindex(columns=list(classes), fill_value=0)
    ranked = np.sort(counts.to_numpy(), axis=1)
    majority = pd.Series(counts.to_numpy().argmax(1), index=counts.index, dtype=np.int64)
    return majority[ranked[:, -1] > ranked[:, -2]]


def scored_votes(
    votes: pd.DataFrame, photos: Sequence[str], predicted: Integers, classes: Sequence[str]
) -> pd.DataFrame:
    """Return one row per scored vote: photo, annotator, reference, vote, predicted.

    Args:
        votes: One row per vote: photo (its id), annotator, label; of any photos.
        photos: N ids of the predicted photos.
        predicted: (N,) class indices.
        classes: K names.

    Returns:
        Class indices: the majority of the other annotators, the annotator's vote and the model's
        prediction.
    """
    predictions = pd.Series(predicted, index=list(photos))
    votes = votes[votes.photo.isin(predictions.index) & votes.label.isin(classes)]
    empty = pd.DataFrame(columns=list(COLUMNS), dtype=int)
    tables = []
    for annotator, own in votes.groupby("annotator", sort=True):
        reference = leave_one_out_majority(votes, str(annotator), classes)
        scored = own[own.photo.isin(reference.index)].sort_values("photo")
        if scored.empty:
            continue
        tables.append(
            pd.DataFrame(
                {
                    "photo": scored.photo.to_numpy(),
                    "annotator": annotator,
                    "reference": reference[scored.photo].to_numpy(),
                    "vote": scored.label.map(list(classes).index).to_numpy(),
                    "predicted": predictions[scored.photo].to_numpy(),
                }
            )
        )
    return pd.concat(tables or [empty], ignore_index=True)


def scores_by_annotator(rows: pd.DataFrame, classes: int) -> pd.DataFrame:
    """Return one row per annotator: photos, the annotator's scores, the model's scores on them."""
    table = []
    for annotator, scored in rows.groupby("annotator", sort=True):
        reference, vote, predicted = (
            scored[name].to_numpy(np.int64) for name in ("reference", "vote", "predicted")
        )
        row: dict[str, object] = {"annotator": annotator, "photos": len(scored)}
        for prefix, labels in (("", vote), ("model_", predicted)):
            scores = confusion_scores(confusion(reference, labels, classes))
            row |= {f"{prefix}{name}": round(float(scores[name]), 6) for name in SCORES}
        table.append(row)
    return pd.DataFrame(
        table, columns=["annotator", "photos", *SCORES, *(f"model_{name}" for name in SCORES)]
    )
