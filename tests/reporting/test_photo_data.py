"""Which photos the report holds as pictures, and what it knows of each."""

from dataclasses import replace

import pytest

from anklealign.reporting import photo_data
from tests.reporting.run_fixture import new_run


@pytest.fixture
def run():
    return new_run()


def test_every_photo_has_its_attributes_and_counts_add_up(run):
    data = photo_data.photo_data(run)
    names = data["names"]
    assert data["count"] == len(run.photos)
    states = [names["state"][k] for k in data["state"]]
    assert {name: states.count(name) for name in names["state"]} == {
        "train": 60, "val": 20, "test": len(run.predictions), "removed": 8,
    }  # fmt: skip
    assert sum(k >= 0 for k in data["predicted"]) == len(run.predictions)
    by_path = run.photos.set_index("path").label
    labels = [names["label"][k] for k in data["label"]]
    for path, label in zip(data["path"], labels, strict=False):
        assert by_path[path] == label


def test_errors_come_first_then_other_test_photos_and_removed_ones(run):
    data = photo_data.photo_data(run)
    wrong = int((run.predictions.actual != run.predictions.predicted).sum())
    different = [p >= 0 and p != a for p, a in zip(data["predicted"], data["label"], strict=True)]
    assert different == [True] * wrong + [False] * (len(run.photos) - wrong)
    states = [data["names"]["state"][k] for k in data["state"]]
    tested = len(run.predictions)
    assert states[: tested + 8] == ["test"] * tested + ["removed"] * 8


def test_the_bytes_of_pictures_are_bounded_and_the_first_ones_are_kept(run, monkeypatch):
    complete = photo_data.photo_data(run)
    budget = sum(map(len, complete["pictures"][:20]))
    monkeypatch.setattr(photo_data, "PICTURE_BYTES", budget)
    bounded = photo_data.photo_data(run)
    assert bounded["pictures"] == complete["pictures"][:20]
    assert bounded["count"] == len(run.photos)
    assert len(bounded["path"]) == 20
    for key in ("why", "beside", "votes", "near", "test", "heat"):
        assert all(place < 20 for place in bounded[key]), key
    assert all(other < 20 for pairs in bounded["near"].values() for other, _ in pairs)


def test_pictures_are_chosen_from_every_reason_and_every_source_in_turn(run, monkeypatch):
    tested = len(run.predictions)
    monkeypatch.setattr(photo_data, "MAX_REMOVED", 2)
    monkeypatch.setattr(photo_data, "MAX_PICTURES", tested + 2 + 12)
    data = photo_data.photo_data(run)
    reasons = [data["names"]["reason"][k] for k in data["reason"][tested : tested + 2]]
    assert sorted(reasons) == ["blurred", "near_duplicate"]
    assert len(data["pictures"]) == tested + 2 + 12


def test_a_removed_photo_names_its_reason_and_the_photo_kept_instead(run):
    data = photo_data.photo_data(run)
    row = run.removed[run.removed.reason == "near_duplicate"].iloc[0]
    place = data["path"].index(row.path)
    kept = run.photos.set_index("id").path[row.beside]
    assert data["why"][place] == row.why
    assert data["path"][data["beside"][place]] == kept


def test_a_test_split_by_consensus_shows_the_consensus_label(run):
    photo = run.predictions.id[0]
    classes = run.classes
    before = run.photos.set_index("id").label[photo]
    other = next(name for name in classes if name != before)
    split = run.split.assign(label=run.split.label.where(run.split.id != photo, other))
    data = photo_data.photo_data(replace(run, split=split))
    assert data["names"]["label"][data["label"][data["place"][photo]]] == other


def test_a_model_without_a_map_has_neither_neighbors_nor_odd_ones_out(run):
    arrays = {k: v for k, v in run.arrays.items() if k in {"ids", "heat_ids", "heat"}}
    data = photo_data.photo_data(replace(run, arrays=arrays))
    assert data["near"] == {}
    assert data["map"] == {}
