"""No subject or picture spans two splits, for any layout and order of rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from anklealign.config.params import Dataset, Split
from anklealign.splitting.splits import EXCLUDED, SPLITS, audited_splits, split_photos
from stages.split import excluded_text, metrics_of, with_consensus

CLASSES = ["pronation", "neutral", "supination"]
DATASET = Dataset("folders", dict.fromkeys(CLASSES, ()))


def split_settings(**changes) -> Split:
    plain = {
        "val": 0.15,
        "test": 0.15,
        "group": "subject",
        "predefined": "keep",
        "folds": 5,
        "fold": None,
        "leakage_residual": 0.3,
        "leakage_correlation": 0.95,
        "allowed_leaks": (),
    }
    return Split(**(plain | changes))


def photos(seed: int = 1, count: int = 323, subjects: int = 100) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, subjects, count)
    usual = rng.choice(3, subjects, p=[0.41, 0.43, 0.16])
    label = np.where(rng.random(count) < 0.9, usual[subject], rng.integers(0, 3, count))
    return pd.DataFrame(
        {
            "id": [f"{i:012x}" for i in range(count)],
            "label": [CLASSES[k] for k in label],
            "collector": [f"C{p % 16:02}" for p in subject],
            "subject": [f"C{p % 16:02}/{p}" if p % 10 else "" for p in subject],
            "cluster": "",
            "predefined_split": "",
            "consensus": "",
            "multi_annotated": 0,
        }
    )


def split(table: pd.DataFrame, settings: Split, seed: int = 1, removed=None) -> pd.DataFrame:
    removed = table.iloc[:0] if removed is None else removed
    return split_photos(table, removed, settings, seed, name="toy", dataset=DATASET)


@given(st.integers(0, 1000), st.sampled_from(["subject", "collector"]))
@settings(max_examples=15, deadline=None)
def test_no_group_spans_two_splits_and_every_split_has_every_class(seed, kind):
    table = split(photos(seed), split_settings(group=kind), seed)
    assert set(table.split) == set(SPLITS)
    assert table.groupby("group").split.nunique().max() == 1
    known = table[table.subject != ""]
    assert known.groupby("subject").split.nunique().max() == 1
    if kind == "collector":
        assert table.groupby("collector").split.nunique().max() == 1
    assert (pd.crosstab(table.split, table.label) > 0).all(axis=None)
    metrics = metrics_of(table, Dataset("folders", dict.fromkeys(CLASSES, ())), split_settings())
    assert metrics["groups_crossing"] == 0
    assert metrics["deviation_points"] <= 5


@given(st.integers(0, 1000), st.sampled_from(["own", "folds", "predefined_split", "one folder"]))
@settings(max_examples=16, deadline=None)
def test_the_order_of_rows_changes_nothing(seed, path):
    table = photos(seed)
    if path == "predefined_split":
        table = given_table("train train train val test", table)
    if path == "one folder":
        table = given_table("train train train val", table)
    chosen = split_settings(folds=4, fold=1) if path == "folds" else split_settings()
    removed = table.iloc[:4].assign(id=["a", "b", "c", "d"], cluster=["x", "x", "y", "y"])
    shuffled = table.sample(frac=1, random_state=seed)

    def outcome(table: pd.DataFrame, removed: pd.DataFrame) -> object:
        try:
            dealt = split(table, chosen, removed=removed)
        except ValueError as error:  # a given folder may lack a class
            return str(error)
        return dealt.set_index("id")[["group", "split"]].sort_index().to_dict()

    assert outcome(table, removed) == outcome(shuffled, removed.iloc[::-1])


def test_another_seed_gives_another_split_of_collectors_too():
    table = photos(count=700, subjects=160)
    chosen = split_settings(group="collector")  # sixteen
    assert len({tuple(split(table, chosen, seed).split) for seed in range(6)}) >= 5


def test_a_photo_of_an_unknown_subject_is_a_group_of_its_own():
    table = split(photos(), split_settings())
    unknown = table[table.subject == ""]
    assert len(unknown) > 10
    assert unknown.group.is_unique
    metrics = metrics_of(table, Dataset("folders", dict.fromkeys(CLASSES, ())), split_settings())
    assert metrics["subject_unknown"] == len(unknown)
    assert metrics["groups_crossing"] == 0
    assert sum(metrics[part]["photos"] for part in SPLITS) == len(table)


def test_a_picture_that_two_subjects_share_joins_them_even_if_its_duplicates_are_removed():
    table = photos()
    first, second = sorted(set(table.subject) - {""})[:2]
    removed = table.iloc[:2].assign(
        id=["gone1", "gone2"], subject=[first, second], cluster="shared"
    )
    table = split(table, split_settings(), removed=removed)
    assert len(set(table[table.subject.isin([first, second])].group)) == 1


def test_folds_test_every_photo_once():
    tested = [
        split(photos(), split_settings(folds=5, fold=fold)).set_index("id").split
        for fold in range(5)
    ]
    table = pd.concat(tested, axis=1)
    assert ((table == "test").sum(axis=1) == 1).all()
    assert ((table == "val").sum(axis=1) == 1).all()
    assert ((table == "train").sum(axis=1) == 3).all()


def test_the_audit_of_folds_is_the_same_for_each_fold():
    parts = []
    for fold in range(4):
        settings = split_settings(folds=4, fold=fold)
        table = split(photos(), settings)
        names, held_out = audited_splits(table, settings, CLASSES, 1)
        assert held_out == ("fold 0", "fold 1", "fold 2")
        tested = np.array(names) == f"fold {fold}"
        assert (tested == (table.split == "test")).all()
        parts.append(names)
    assert parts == [parts[0]] * 4


@pytest.mark.parametrize("changes", [{}, {"folds": 4, "fold": 1}, {"group": "collector"}])
def test_joined_groups_leave_the_other_groups_where_they_are(changes):
    table, chosen = photos(count=700, subjects=160), split_settings(**changes)
    before = split(table, chosen)
    first = before.id[before.split == "train"].iloc[0]
    second = before.id[before.split == "test"].iloc[0]
    after = split_photos(
        table, table.iloc[:0], chosen, 1, name="toy", dataset=DATASET, joined=[(first, second)]
    )
    names = after.set_index("id").group
    assert names[first] == names[second]
    joined = after.group == names[first]
    groups = set(before.group[joined])
    assert len(groups) == 2
    moved = before.split != after.split
    # One of the two groups changes its split, or few others, to restore the shares.
    assert set(before.group[moved & joined]) < groups
    assert before.group[moved & ~joined].nunique() <= 2
    audited = [audited_splits(part, chosen, CLASSES, 1)[0] for part in (before, after)]
    assert set(before.group[np.array(audited[0]) != np.array(audited[1])]) <= (
        set(before.group[moved]) | groups
    )
    assert metrics_of(after, DATASET, chosen)["deviation_points"] <= 5


def given_table(parts: str, table: pd.DataFrame | None = None) -> pd.DataFrame:
    table = photos() if table is None else table
    names = parts.split()
    by_person = {p: names[i % len(names)] for i, p in enumerate(sorted(set(table.subject)))}
    return table.assign(predefined_split=table.subject.map(by_person))


def test_predefined_splits_are_kept():
    table = split(given_table("train train train val test"), split_settings())
    assert (table.split == table.predefined_split).all()


def test_without_a_test_folder_val_becomes_test_and_validation_is_taken_from_train_by_group():
    table = split(given_table("train train train val"), split_settings())
    assert ((table.split == "test") == (table.predefined_split == "val")).all()
    assert set(table.split) == set(SPLITS)
    assert table.groupby("group").split.nunique().max() == 1
    assert (table.split == "val").sum() / (
        table.predefined_split == "train"
    ).sum() == pytest.approx(0.15 / 0.85, abs=0.02)


def test_a_group_that_spans_predefined_splits_is_removed_from_train():
    table = given_table("train train train val test")
    tested = table[(table.predefined_split == "test") & (table.subject != "")].subject.iloc[0]
    strays = table[table.predefined_split == "train"].index[:3]
    table.loc[strays, "subject"] = tested
    table = split(table, split_settings())
    assert (table.split[strays] == EXCLUDED).all()
    assert (table[table.predefined_split == "test"].split == "test").all()


def test_predefined_splits_can_be_ignored():
    table = given_table("train train train val test")
    pd.testing.assert_series_equal(
        split(table, split_settings(predefined="ignore")).split,
        split(photos(), split_settings()).split,
    )


def test_impossible_settings_are_errors_with_a_reason_and_a_command():
    with pytest.raises(
        ValueError, match=r"fold = 0, but (.|\n)*dvc exp run -S split.predefined=ignore"
    ):
        split(given_table("train val"), split_settings(fold=0))
    with pytest.raises(ValueError, match=r"nothing to train on(.|\n)*-S split.predefined=ignore"):
        split(given_table("val test"), split_settings())
    table = photos()
    with pytest.raises(ValueError, match=r"class supination has no photo left after clean"):
        split(table[table.label != "supination"], split_settings())


def test_photos_that_are_all_in_one_folder_have_no_predefined_split():
    pd.testing.assert_frame_equal(
        split(photos().assign(predefined_split="train"), split_settings()).drop(
            columns="predefined_split"
        ),
        split(photos(), split_settings()).drop(columns="predefined_split"),
    )


def with_rare(subjects: int) -> pd.DataFrame:
    """Return photos in which only some subjects have the class supination."""
    table = photos()
    rare = table[(table.label == "supination") & (table.subject != "")]
    keep = sorted(set(rare.subject))[:subjects]
    return table[(table.label != "supination") | table.subject.isin(keep)]


def test_a_class_of_two_subjects_for_three_splits_is_an_error_with_a_remedy():
    message = (
        r"^class supination has photos in 2 groups, but each of the 3 splits \(train, val, test\) "
        r"needs one\. Add photos of other subjects, or merge the class with another in datasets"
        r"\.toy\.classes\. The nearest feasible split \(a subject may then be in several splits\):"
        r"\n  dvc exp run -S datasets\.toy\.subject_pattern=null$"
    )
    with pytest.raises(ValueError, match=message):
        split(with_rare(2), split_settings())
    with pytest.raises(ValueError, match=r"dvc exp run -S split\.group=subject$"):
        split(one_collector(), split_settings(group="collector"))


def one_collector() -> pd.DataFrame:
    """Return photos of which a class is from one collector."""
    table = photos()
    rare = table.label == "supination"
    return table.assign(collector=table.collector.mask(rare, "C00"))


def test_what_no_setting_makes_possible_is_said():
    table = photos()
    rare = table[table.label == "supination"].index[1:]
    with pytest.raises(
        ValueError, match=r"(?s)in 1 group.*; no setting of split makes it possible$"
    ):
        split(table.drop(rare), split_settings())


def test_a_class_of_four_subjects_for_five_folds_is_an_error_with_a_remedy():
    message = r"(?s)supination has photos in 4 groups, but each of the 5 splits .*"
    with pytest.raises(ValueError, match=message + r"\n  dvc exp run -S split\.folds=4$"):
        split(with_rare(4), split_settings(folds=5, fold=0))
    assert set(split(with_rare(4), split_settings(folds=4, fold=0)).split) == set(SPLITS)


def test_a_class_missing_in_a_predefined_split_is_an_error_with_its_groups_and_a_remedy():
    table = given_table("train train train val test")
    lacking = table[(table.label != "supination") | (table.predefined_split != "val")]
    count = lacking[(lacking.label == "supination") & (lacking.predefined_split == "train")].copy()
    groups = split(table, split_settings()).loc[count.index].group.nunique()
    message = (
        rf"(?s)class supination has .* splits put {groups} in train, 0 in val, \d+ in test, and .*"
    )
    with pytest.raises(ValueError, match=message + r"\n  dvc exp run -S split\.predefined=ignore$"):
        split(lacking, split_settings())
    # Validation is to be carved from a train folder with one subject of the class.
    table = given_table("train train train val")
    rare = (table.label == "supination") & (table.predefined_split == "train")
    one = table[rare & (table.subject != "")].subject.iloc[0]
    with pytest.raises(
        ValueError,
        match=r"in 1 group, but each of the 2 splits \(train, val\) (.|\n)*predefined=ignore$",
    ):
        split(table[~rare | (table.subject == one)], split_settings())


def voted(share: float = 0.12, seed: int = 2) -> pd.DataFrame:
    """Some photos have votes, a tenth of which contradict the collector's label."""
    rng = np.random.default_rng(seed)
    table = photos(seed)
    other = rng.choice(CLASSES, len(table))
    agreed = np.where(rng.random(len(table)) < 0.9, table.label, other)
    multi_annotated = rng.random(len(table)) < share
    return table.assign(
        consensus=np.where(multi_annotated, agreed, ""), multi_annotated=multi_annotated.astype(int)
    )


@given(st.integers(0, 200), st.sampled_from([0.12, 0.2]))
@settings(max_examples=10, deadline=None)
def test_the_photos_with_votes_are_the_test_split_and_their_groups_are_excluded(seed, share):
    table = voted(share, seed)
    assume(set(CLASSES) <= set(table.consensus))
    table = split(table, split_settings(test="consensus"), seed)
    assert ((table.split == "test") == (table.consensus != "")).all()
    tested = set(table.group[table.split == "test"])
    besides = table[table.group.isin(tested) & (table.consensus == "")]
    assert set(besides.split) <= {EXCLUDED}
    assert set(table.split[~table.group.isin(tested)]) == {"train", "val"}
    used = table[table.split.isin(["train", "val"])]
    # stratified_groups.assign guarantees 5 points; seed 122 has 2.2.
    assert (used.split == "val").mean() == pytest.approx(0.15, abs=0.05)


@pytest.mark.parametrize("kind", ["predefined", "consensus"])
def test_joined_groups_leave_the_others_where_they_are_beside_a_given_test_split(kind):
    if kind == "predefined":
        table = given_table("train train train val", photos(count=700, subjects=160))
        chosen = split_settings()
    else:
        table, chosen = voted(0.05), split_settings(test="consensus")
    before = split(table, chosen)
    # Dealt anew, five other groups would move.
    pair = [before.id[before.split == name].iloc[n] for name, n in (("train", 14), ("val", 4))]
    after = split_photos(
        table, table.iloc[:0], chosen, 1, name="toy", dataset=DATASET, joined=[tuple(pair)]
    )
    joined = after.group.isin(after.group[after.id.isin(pair)])
    assert len(set(after.group[joined])) == 1
    assert len(set(before.group[joined])) == 2
    moved = before.split != after.split
    assert moved.any()
    assert before.group[moved & ~joined].nunique() <= 2


def test_a_duplicate_of_a_test_photo_by_another_subject_is_excluded():
    table = voted()
    tested = table.index[table.consensus != ""][0]
    others = set(table.subject[table.consensus != ""])
    stranger = table.index[~table.subject.isin(others) & (table.subject != "")][0]
    table.loc[[tested, stranger], "cluster"] = "copies"
    table = split(table, split_settings(test="consensus"))
    assert table.split[tested] == "test"
    assert set(table.split[table.subject == table.subject[stranger]]) == {EXCLUDED}


@pytest.mark.parametrize("link", ["subject", "cluster"])
def test_groups_of_multi_annotated_photos_are_excluded_even_if_removed_or_tied(
    link,
):
    before = voted()
    free = split(before, split_settings(test="consensus"))
    strangers = free[free.split.isin(["train", "val"]) & (free.subject != "")]
    one, other = sorted(set(strangers.subject))[:2]
    tied = strangers.index[strangers.subject == one][0]
    blurred = before.iloc[:1].assign(
        id="gone", multi_annotated=1, consensus="neutral", subject="", cluster=""
    )
    if link == "subject":
        blurred = blurred.assign(subject=other)
    else:
        blurred = blurred.assign(cluster="copies")
        before.loc[before.index[before.subject == other][0], "cluster"] = "copies"
    before.loc[tied, "multi_annotated"] = 1
    table = split(before, split_settings(test="consensus"), removed=blurred)
    assert set(table.split[table.subject.isin([one, other])]) == {EXCLUDED}
    same = split(
        before, split_settings(test="consensus"), removed=blurred.assign(multi_annotated=0)
    )
    assert EXCLUDED not in set(same.split[same.subject == other])
    _, metrics = with_consensus(table, blurred, split_settings(test="consensus"))
    assert metrics["consensus"]["without_label"] == metrics["consensus"]["removed_by_clean"] == 1


def test_a_consensus_test_split_has_consensus_labels_and_metrics():
    before = voted()
    table = split(before, split_settings(test="consensus"))
    removed = before.iloc[:3].assign(multi_annotated=[1, 0, 1])
    table.loc[table.index[table.split == EXCLUDED][0], "multi_annotated"] = 1
    table, metrics = with_consensus(table, removed, split_settings(test="consensus"))
    tested = table.split == "test"
    assert (table.label == table.consensus)[tested].all()
    assert (table.label == before.label)[~tested].all()
    assert metrics["consensus"] == {
        "photos": int(tested.sum()),
        "without_label": 1,
        "removed_by_clean": 2,
        "relabeled": int((before.label != table.label).sum()),
        "excluded": int((table.split == EXCLUDED).sum()),
    }
    assert min(metrics["consensus"].values()) > 0
    text = excluded_text({"excluded": 7} | metrics)
    assert text == (
        "7 photos excluded because their groups include multi-annotated photos, of which 1 have no "
        "consensus label and 2 were removed by clean"
    )
    assert with_consensus(table, removed, split_settings()) == (table, {})


def test_an_impossible_consensus_test_split_is_an_error_with_a_remedy():
    with pytest.raises(
        ValueError, match=r"(?s)none of the 0 photos .* is pronation.*-S split\.test=0\.15$"
    ):
        split(photos().assign(consensus=""), split_settings(test="consensus"))
    no_supination = voted().replace({"consensus": {"supination": ""}})
    with pytest.raises(
        ValueError, match=r"(?s)none of the \d\d .* supination.*-S split\.test=0\.15$"
    ):
        split(no_supination, split_settings(test="consensus"))
    everything = photos().assign(consensus=photos().label, multi_annotated=1)
    with pytest.raises(
        ValueError,
        match=r"multi-annotated photos, 0 groups have photos of pronation, but train and val",
    ):
        split(everything, split_settings(test="consensus"))
