"""The model beside people: each scored against the majority of the other people's votes.

Shapes: N photos, K classes. An annotator is never scored against a majority that holds their own
vote, and the model stands beside each annotator on the same photos, against the same labels. Photos
on which the others are tied, or on which nobody else voted, do not count.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from anklealign.metrics.scores import Integers, confusion, scores_of

SCORES = ("accuracy", "balanced_accuracy")


def others_majority(votes: pd.DataFrame, annotator: str, classes: Sequence[str]) -> pd.Series:
    """Return photo to class index: what most of the others say of the photos that they voted on.

    Args:
        votes: A row a vote: photo, annotator, label.
        annotator: Who does not count.
        classes: K names.
    """
    others = votes[votes.annotator != annotator]
    counts = pd.crosstab(others.photo, others.label).reindex(columns=list(classes), fill_value=0)
    ranked = np.sort(counts.to_numpy(), axis=1)
    most = pd.Series(counts.to_numpy().argmax(1), index=counts.index, dtype=np.int64)
    return most[ranked[:, -1] > ranked[:, -2]]


def beside_people(
    votes: pd.DataFrame, photos: Sequence[str], predicted: Integers, classes: Sequence[str]
) -> pd.DataFrame:
    """Return a row a vote that others judge: photo, annotator, truth, said, predicted.

    Args:
        votes: A row a vote: photo (its id), annotator, label; of any photos.
        photos: N ids that the model predicted.
        predicted: (N,) class indices.
        classes: K names.

    Returns:
        Class indices: what most others say, the annotator and the model.
    """
    answers = pd.Series(predicted, index=list(photos))
    votes = votes[votes.photo.isin(answers.index) & votes.label.isin(classes)]
    found = [pd.DataFrame(columns=["photo", "annotator", "truth", "said", "predicted"], dtype=int)]
    for annotator, own in votes.groupby("annotator", sort=True):
        truth = others_majority(votes, str(annotator), classes)
        judged = own[own.photo.isin(truth.index)].sort_values("photo")
        found.append(
            pd.DataFrame(
                {
                    "photo": judged.photo.to_numpy(),
                    "annotator": annotator,
                    "truth": truth[judged.photo].to_numpy(),
                    "said": judged.label.map(list(classes).index).to_numpy(),
                    "predicted": answers[judged.photo].to_numpy(),
                }
            )
        )
    return pd.concat([some for some in found if len(some)] or found, ignore_index=True)


def by_annotator(rows: pd.DataFrame, classes: int) -> pd.DataFrame:
    """Return a row an annotator: photos, their own scores and the model's on the same photos."""
    table = []
    for annotator, judged in rows.groupby("annotator", sort=True):
        truth, said, predicted = (
            judged[name].to_numpy(np.int64) for name in ("truth", "said", "predicted")
        )
        row: dict[str, object] = {"annotator": annotator, "photos": len(judged)}
        for prefix, answers in (("", said), ("model_", predicted)):
            scores = scores_of(confusion(truth, answers, classes))
            row |= {f"{prefix}{name}": round(float(scores[name]), 6) for name in SCORES}
        table.append(row)
    return pd.DataFrame(
        table, columns=["annotator", "photos", *SCORES, *(f"model_{name}" for name in SCORES)]
    )
