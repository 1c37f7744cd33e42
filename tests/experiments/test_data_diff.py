import pandas as pd

from anklealign.experiments.data_diff import difference, report


def data(**photos: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(photos, orient="index", columns=["label", "sha256", "status"])


BEFORE = data(
    one=("a", "11", "train"), two=("a", "22", "train"), three=("b", "33", "val"),
    four=("b", "44", "test"), five=("b", "55", "test"), six=("a", "66", "train"),
)  # fmt: skip


def rows(after: pd.DataFrame) -> set[tuple]:
    return set(difference(BEFORE, after).itertuples(index=False, name=None))


def test_identical_data_have_no_changes():
    assert difference(BEFORE, BEFORE.sample(frac=1, random_state=0)).empty
    assert report(difference(BEFORE, BEFORE), "main", "mine") == [
        "The data of mine and main are identical."
    ]


def test_each_kind_of_change_is_listed():
    after = data(
        one=("b", "11", "train"), two=("a", "22", "val"), three=("b", "3x", "val"),
        uno=("b", "44", "test"), six=("a", "66", "blurred"), seven=("a", "77", "train"),
    )  # fmt: skip
    assert rows(after) == {
        ("relabeled", "one", "b", "a", "b"),
        ("moved", "two", "a", "train", "val"),
        ("changed", "three", "b", "33", "3x"),
        ("renamed", "uno", "b", "four", "uno"),
        ("removed", "five", "b", "test", ""),
        ("moved", "six", "a", "train", "blurred"),
        ("added", "seven", "a", "", "train"),
    }


def test_renamed_duplicates_are_matched_once_each():
    before = data(x=("a", "1", "train"), y=("a", "1", "train"))
    after = data(p=("a", "1", "train"), q=("a", "1", "train"), r=("a", "1", "train"))
    found = difference(before, after)
    assert list(found.kind) == ["added", "renamed", "renamed"]
    assert list(found.path) == ["r", "p", "q"]


def test_report_counts_by_class_and_lists_twenty():
    after = BEFORE.drop(index=["four"])
    more = data(**{f"n{k:02}": ("a", f"x{k}", "train") for k in range(25)})
    lines = report(difference(BEFORE, pd.concat([after, more])), "main", "mine")
    assert "| added: new photos | 25 | 0 | 25 |" in lines
    assert "| removed: photos that no longer exist | 0 | 1 | 1 |" in lines
    assert "- and 5 more" in lines
    assert "- `four` (b, test)" in lines
