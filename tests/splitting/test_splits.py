"""Persons and pictures on one side, whatever the layout and order of rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from anklealign.config.params import Dataset, Split
from anklealign.splitting.splits import LEFT_OUT, PARTS, groups_of, parts_of
from stages.split import left_out_line, metrics_of, with_consensus

CLASSES = ["pronation", "neutral", "supination"]


def wish(**changes) -> Split:
    plain = {
        "validation": 0.15,
        "test": 0.15,
        "group": "person",
        "given": "keep",
        "folds": 5,
        "fold": None,
        "leak_residual": 0.3,
        "leak_correlation": 0.95,
        "accept_leaks": (),
    }
    return Split(**(plain | changes))


def photos(seed: int = 1, count: int = 323, persons: int = 100) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    person = rng.integers(0, persons, count)
    usual = rng.choice(3, persons, p=[0.41, 0.43, 0.16])
    label = np.where(rng.random(count) < 0.9, usual[person], rng.integers(0, 3, count))
    return pd.DataFrame(
        {
            "id": [f"{i:012x}" for i in range(count)],
            "label": [CLASSES[k] for k in label],
            "collector": [f"C{p % 16:02}" for p in person],
            "person": [f"C{p % 16:02}/{p}" if p % 10 else "" for p in person],
            "cluster": "",
            "given": "",
            "consensus": "",
            "panel": 0,
        }
    )


def split(table: pd.DataFrame, settings: Split, seed: int = 1, removed=None) -> pd.DataFrame:
    removed = table.iloc[:0] if removed is None else removed
    groups = groups_of(table, removed, settings.group)
    table = table.assign(group=table.id.map(groups))
    gone = {groups[photo] for photo in removed.id[removed.panel == 1]}
    return table.assign(split=parts_of(table, settings, CLASSES, seed, gone))


@given(st.integers(0, 1000), st.sampled_from(["person", "collector"]))
@settings(max_examples=15, deadline=None)
def test_no_group_stands_on_two_sides_every_photo_on_one_and_every_class_in_each(seed, kind):
    table = split(photos(seed), wish(group=kind), seed)
    assert set(table.split) == set(PARTS)
    assert table.groupby("group").split.nunique().max() == 1
    known = table[table.person != ""]
    assert known.groupby("person").split.nunique().max() == 1
    if kind == "collector":
        assert table.groupby("collector").split.nunique().max() == 1
    assert (pd.crosstab(table.split, table.label) > 0).all(axis=None)
    metrics = metrics_of(table, Dataset("folders", dict.fromkeys(CLASSES, ())), wish())
    assert metrics["groups_crossing"] == 0
    assert metrics["deviation_points"] <= 5


@given(st.integers(0, 1000), st.sampled_from(["own", "folds", "given", "one folder"]))
@settings(max_examples=16, deadline=None)
def test_the_order_of_rows_changes_nothing(seed, path):
    table = photos(seed)
    if path == "given":
        table = given_table("train train train val test", table)
    if path == "one folder":
        table = given_table("train train train val", table)
    wished = wish(folds=4, fold=1) if path == "folds" else wish()
    removed = table.iloc[:4].assign(id=["a", "b", "c", "d"], cluster=["x", "x", "y", "y"])
    shuffled = table.sample(frac=1, random_state=seed)

    def outcome(table: pd.DataFrame, removed: pd.DataFrame) -> object:
        try:
            dealt = split(table, wished, removed=removed)
        except ValueError as error:  # a given folder may lack a class
            return str(error)
        return dealt.set_index("id")[["group", "split"]].sort_index().to_dict()

    assert outcome(table, removed) == outcome(shuffled, removed.iloc[::-1])


def test_another_seed_gives_another_split_of_collectors_too():
    table = photos(count=700, persons=160)
    wished = wish(group="collector")  # sixteen
    assert len({tuple(split(table, wished, seed).split) for seed in range(6)}) >= 5


def test_a_photo_of_an_unknown_person_is_a_group_of_its_own():
    table = split(photos(), wish())
    unknown = table[table.person == ""]
    assert len(unknown) > 10
    assert unknown.group.is_unique
    metrics = metrics_of(table, Dataset("folders", dict.fromkeys(CLASSES, ())), wish())
    assert metrics["person_unknown"] == len(unknown)
    assert metrics["groups_crossing"] == 0
    assert sum(metrics[part]["photos"] for part in PARTS) == len(table)


def test_a_picture_that_two_persons_share_joins_them_even_when_its_copies_are_gone():
    table = photos()
    first, second = sorted(set(table.person) - {""})[:2]
    removed = table.iloc[:2].assign(id=["gone1", "gone2"], person=[first, second], cluster="shared")
    table = split(table, wish(), removed=removed)
    assert len(set(table[table.person.isin([first, second])].group)) == 1


def test_folds_test_every_photo_once():
    tested = [split(photos(), wish(folds=5, fold=fold)).set_index("id").split for fold in range(5)]
    table = pd.concat(tested, axis=1)
    assert ((table == "test").sum(axis=1) == 1).all()
    assert ((table == "val").sum(axis=1) == 1).all()
    assert ((table == "train").sum(axis=1) == 3).all()


def given_table(parts: str, table: pd.DataFrame | None = None) -> pd.DataFrame:
    table = photos() if table is None else table
    names = parts.split()
    by_person = {p: names[i % len(names)] for i, p in enumerate(sorted(set(table.person)))}
    return table.assign(given=table.person.map(by_person))


def test_given_folders_are_kept():
    table = split(given_table("train train train val test"), wish())
    assert (table.split == table.given).all()


def test_with_train_and_val_alone_val_becomes_test_and_validation_is_carved_by_group():
    table = split(given_table("train train train val"), wish())
    assert ((table.split == "test") == (table.given == "val")).all()
    assert set(table.split) == set(PARTS)
    assert table.groupby("group").split.nunique().max() == 1
    assert (table.split == "val").sum() / (table.given == "train").sum() == pytest.approx(
        0.15 / 0.85, abs=0.02
    )


def test_a_group_that_crosses_given_folders_leaves_train():
    table = given_table("train train train val test")
    tested = table[(table.given == "test") & (table.person != "")].person.iloc[0]
    strays = table[table.given == "train"].index[:3]
    table.loc[strays, "person"] = tested
    table = split(table, wish())
    assert (table.split[strays] == LEFT_OUT).all()
    assert (table[table.given == "test"].split == "test").all()


def test_given_folders_can_be_ignored():
    table = given_table("train train train val test")
    pd.testing.assert_series_equal(
        split(table, wish(given="ignore")).split, split(photos(), wish()).split
    )


def test_wishes_that_cannot_be_met_say_why_and_what_to_do():
    with pytest.raises(ValueError, match=r"fold = 0, but .*given: ignore"):
        split(given_table("train val"), wish(fold=0))
    with pytest.raises(ValueError, match=r"train/ alone.*given: ignore"):
        split(photos().assign(given="train"), wish())
    table = photos()
    with pytest.raises(ValueError, match=r"class supination has no photo left after clean"):
        split(table[table.label != "supination"], wish())


def with_rare(persons: int) -> pd.DataFrame:
    """The class supination has photos of some persons alone."""
    table = photos()
    rare = table[(table.label == "supination") & (table.person != "")]
    keep = sorted(set(rare.person))[:persons]
    return table[(table.label != "supination") | table.person.isin(keep)]


def test_a_class_of_two_persons_for_three_parts_is_named_with_what_to_choose():
    said = (
        r"^class supination has photos in 2 groups, but each of the 3 parts \(train, val, test\) "
        r"needs one; add photos of other persons, or join the class with another in datasets"
    )
    with pytest.raises(ValueError, match=said):
        split(with_rare(2), wish())
    with pytest.raises(ValueError, match=r"in 1 group, but .*; set split.group: person.*, or add"):
        split(with_rare(1), wish(group="collector"))


def test_a_class_of_four_persons_for_five_folds_is_named_with_what_to_choose():
    said = r"supination has photos in 4 groups, but each of the 5 parts .*; set split.folds lower"
    with pytest.raises(ValueError, match=said):
        split(with_rare(4), wish(folds=5, fold=0))
    assert set(split(with_rare(4), wish(folds=4, fold=0)).split) == set(PARTS)


def test_a_class_that_a_given_folder_lacks_is_named_with_its_groups_and_what_to_choose():
    table = given_table("train train train val test")
    lacking = table[(table.label != "supination") | (table.given != "val")]
    count = lacking[(lacking.label == "supination") & (lacking.given == "train")].copy()
    groups = split(table, wish()).loc[count.index].group.nunique()
    said = rf"class supination has .* they stand {groups} in train, 0 in val, \d+ in test, and .*"
    with pytest.raises(ValueError, match=said + r"; set split.given: ignore .*, or add photos"):
        split(lacking, wish())
    # Validation is to be carved from a train folder with one person of the class.
    table = given_table("train train train val")
    rare = (table.label == "supination") & (table.given == "train")
    one = table[rare & (table.person != "")].person.iloc[0]
    with pytest.raises(
        ValueError, match=r"in 1 group, but each of the 2 parts \(train, val\) .*given: ignore"
    ):
        split(table[~rare | (table.person == one)], wish())


def voted(share: float = 0.12, seed: int = 2) -> pd.DataFrame:
    """Some photos have votes, a tenth of which contradict the collector's label."""
    rng = np.random.default_rng(seed)
    table = photos(seed)
    other = rng.choice(CLASSES, len(table))
    agreed = np.where(rng.random(len(table)) < 0.9, table.label, other)
    asked = rng.random(len(table)) < share
    return table.assign(consensus=np.where(asked, agreed, ""), panel=asked.astype(int))


@given(st.integers(0, 200), st.sampled_from([0.12, 0.2]))
@settings(max_examples=10, deadline=None)
def test_the_photos_with_votes_are_the_test_part_and_their_persons_train_nothing(seed, share):
    table = voted(share, seed)
    assume(set(CLASSES) <= set(table.consensus))
    table = split(table, wish(test="consensus"), seed)
    assert ((table.split == "test") == (table.consensus != "")).all()
    tested = set(table.group[table.split == "test"])
    besides = table[table.group.isin(tested) & (table.consensus == "")]
    assert set(besides.split) <= {LEFT_OUT}
    assert set(table.split[~table.group.isin(tested)]) == {"train", "val"}
    used = table[table.split.isin(["train", "val"])]
    # grouping.assign promises 5 points; seed 122 has 2.2.
    assert (used.split == "val").mean() == pytest.approx(0.15, abs=0.05)


def test_a_voted_photos_copy_by_another_person_trains_nothing():
    table = voted()
    tested = table.index[table.consensus != ""][0]
    others = set(table.person[table.consensus != ""])
    stranger = table.index[~table.person.isin(others) & (table.person != "")][0]
    table.loc[[tested, stranger], "cluster"] = "copies"
    table = split(table, wish(test="consensus"))
    assert table.split[tested] == "test"
    assert set(table.split[table.person == table.person[stranger]]) == {LEFT_OUT}


@pytest.mark.parametrize("link", ["person", "cluster"])
def test_who_is_on_a_panels_photo_trains_nothing_though_clean_removed_it_or_the_votes_are_tied(
    link,
):
    before = voted()
    free = split(before, wish(test="consensus"))
    strangers = free[free.split.isin(["train", "val"]) & (free.person != "")]
    one, other = sorted(set(strangers.person))[:2]
    tied = strangers.index[strangers.person == one][0]
    blurred = before.iloc[:1].assign(id="gone", panel=1, consensus="neutral", person="", cluster="")
    if link == "person":
        blurred = blurred.assign(person=other)
    else:
        blurred = blurred.assign(cluster="copies")
        before.loc[before.index[before.person == other][0], "cluster"] = "copies"
    before.loc[tied, "panel"] = 1
    table = split(before, wish(test="consensus"), removed=blurred)
    assert set(table.split[table.person.isin([one, other])]) == {LEFT_OUT}
    same = split(before, wish(test="consensus"), removed=blurred.assign(panel=0))
    assert LEFT_OUT not in set(same.split[same.person == other])
    _, metrics = with_consensus(table, blurred, wish(test="consensus"))
    assert metrics["consensus"]["without_label"] == metrics["consensus"]["removed_by_clean"] == 1


def test_a_consensus_test_part_has_the_votes_labels_and_tells_what_it_cost():
    before = voted()
    table = split(before, wish(test="consensus"))
    removed = before.iloc[:3].assign(panel=[1, 0, 1])
    table.loc[table.index[table.split == LEFT_OUT][0], "panel"] = 1
    table, metrics = with_consensus(table, removed, wish(test="consensus"))
    tested = table.split == "test"
    assert (table.label == table.consensus)[tested].all()
    assert (table.label == before.label)[~tested].all()
    assert metrics["consensus"] == {
        "photos": int(tested.sum()),
        "without_label": 1,
        "removed_by_clean": 2,
        "relabelled": int((before.label != table.label).sum()),
        "left_out": int((table.split == LEFT_OUT).sum()),
    }
    assert min(metrics["consensus"].values()) > 0
    said = left_out_line({"left_out": 7} | metrics)
    assert said == (
        "7 photos left out for showing persons of the photos to be voted on, of which 1 have no "
        "consensus and 2 were removed by clean"
    )
    assert with_consensus(table, removed, wish()) == (table, {})


def test_a_consensus_that_cannot_be_the_test_part_says_why_and_what_to_do():
    with pytest.raises(ValueError, match=r"none of the 0 photos .* is pronation; .* as 0\.15, or"):
        split(photos().assign(consensus=""), wish(test="consensus"))
    no_supination = voted().replace({"consensus": {"supination": ""}})
    with pytest.raises(ValueError, match=r"none of the \d\d .* supination; .*let people vote on"):
        split(no_supination, wish(test="consensus"))
    everything = photos().assign(consensus=photos().label, panel=1)
    with pytest.raises(ValueError, match=r"to be voted on, 0 show pronation, and train and val"):
        split(everything, wish(test="consensus"))
