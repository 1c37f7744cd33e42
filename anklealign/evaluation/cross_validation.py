"""Cross-validation of small scikit-learn models on photos, by group.

Shapes: N photos, F features, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from anklealign.metrics.scores import Floats, Integers
from anklealign.splitting.stratified_groups import InfeasibleError, folds

FOLDS = 5  # at most


def assign_folds(
    labels: Integers, groups: Sequence[str], classes: int, seed: int = 0
) -> Integers | None:
    """Return the fold of each photo from 0: (N,), (N,) -> (N,).

    No group is in two folds and each fold has every class. There are at most `FOLDS` folds, and at
    most as many as groups of the rarest class; None if there cannot be two.
    """
    names, of_group = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.zeros((len(names), classes), np.int64)
    np.add.at(counts, (of_group, labels), 1)
    by_name = dict(zip(names.tolist(), counts, strict=True))
    kinds = [str(k) for k in range(classes)]
    for count in range(min(FOLDS, int((counts > 0).sum(0).min())), 1, -1):
        try:
            fold_of = folds(by_name, count, kinds, seed)
        except InfeasibleError:
            continue
        return np.array([fold_of[str(name)] for name in groups], np.int64)
    return None


def probabilities_on(
    model: Any,  # noqa: ANN401 - any scikit-learn classifier
    features: npt.NDArray[np.floating[Any]],
    labels: Integers,
    train: npt.NDArray[Any],
    test: npt.NDArray[Any],
) -> Floats:
    """Return the probabilities of the test photos by a model fitted on the training photos.

    Args:
        model: A scikit-learn classifier, which is cloned.
        features: (N, F).
        labels: (N,) class indices, 0 to K - 1.
        train: Rows, or N booleans.
        test: Rows, or N booleans.

    Returns:
        One row per test photo, K columns; a class without training photos has 0.
    """
    fitted = clone(model).fit(features[train], labels[train])
    own = fitted.predict_proba(features[test])
    probabilities = np.zeros((len(own), int(labels.max()) + 1))
    probabilities[:, fitted.classes_] = own
    return probabilities
