import numpy as np
import pandas as pd
import pytest
from scipy import stats

from anklealign.cleaning import losses


def photos(
    labels: list[str], reasons: list[str], collectors: list[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table of all photos and that of the removed ones, those with a reason."""
    table = pd.DataFrame({"label": labels, "reason": reasons, "id": range(len(labels))})
    table["collector"] = collectors or ""
    return table.drop(columns="reason"), table[table.reason != ""]


def test_a_reason_that_takes_over_two_percent_is_warned_of() -> None:
    labels = ["a", "b"] * 150
    assert losses.warnings(*photos(labels, ["dark"] * 6 + [""] * 294)) == {}
    assert losses.warnings(*photos(labels, ["dark"] * 8 + [""] * 292)) == {
        "dark": "dark: 8 of 300 photos (2.7%)"
    }
    assert losses.warnings(*photos(labels, ["exact_duplicate"] * 60 + [""] * 240)) == {}


def test_a_reason_that_hits_one_class_is_warned_of_however_rare_it_is() -> None:
    labels = ["a"] * 100 + ["b"] * 900
    one_class = ["blurred"] * 12 + [""] * 988
    assert losses.warnings(*photos(labels, one_class)) == {
        "blurred": "blurred: 12 of the 100 photos of a, but 0 of the 900 others"
    }
    # As many photos, in proportion to the classes:
    even = ["blurred"] * 2 + [""] * 98 + ["blurred"] * 10 + [""] * 890
    assert losses.warnings(*photos(labels, even)) == {}


def test_the_p_value_is_that_of_fishers_exact_test() -> None:
    expected = stats.fisher_exact([[7, 93], [5, 895]], alternative="greater").pvalue
    assert losses._p_value(7, 12, 100, 1000) == pytest.approx(expected)


def test_random_removals_seldom_look_unequal() -> None:
    rng = np.random.default_rng(0)
    labels = ["a"] * 300 + ["b"] * 300 + ["c"] * 400
    alarms = 0
    for _ in range(300):
        reasons = np.array([""] * 1000, dtype=object)
        reasons[rng.choice(1000, 15, replace=False)] = "dark"
        alarms += bool(losses.warnings(*photos(labels, list(reasons))))
    assert alarms <= 3  # level 0.01 over all classes


def test_a_lost_class_stops_with_what_to_set() -> None:
    tables = photos(["a", "a", "b", "b"], ["", "", "dark", "contradicting_labels"])
    with pytest.raises(ValueError, match="class b lost all of its 2 photos") as error:
        losses.check(*tables, allowed=())
    assert "set clean.actions.dark to flag" in str(error.value)
    assert "correct the labels" in str(error.value)


def test_a_lost_collector_stops_unless_it_is_allowed_or_its_photos_are_duplicates() -> None:
    labels, collectors = ["a", "b", "a", "b"], ["x", "x", "y", "y"]
    tables = photos(labels, ["", "", "dark", "near_duplicate"], collectors)
    with pytest.raises(ValueError, match="collector y lost all of its 2 photos") as error:
        losses.check(*tables, allowed=("z",))
    assert "clean.allowed_losses" in str(error.value)
    losses.check(*tables, allowed=("y",))
    duplicates = photos(labels, ["", "", "exact_duplicate", "near_duplicate"], collectors)
    losses.check(*duplicates, allowed=())
