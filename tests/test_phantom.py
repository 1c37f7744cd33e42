import io
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anklealign import legs, params, phantom
from anklealign.phantom import CLASSES, CUTS, GROUPS, Shot

ROOT = Path(__file__).resolve().parents[1]


def planned(photos=323, collectors=16, difficulty=1.0, seed=1):
    return phantom.plan(params.Phantom(seed, photos, collectors, difficulty))


def table(shots):
    return pd.DataFrame({"label": [s.label for s in shots], "angle": [s.angle for s in shots]})


def pixels(photo):
    with Image.open(io.BytesIO(photo.jpeg)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


plans = st.builds(
    planned,
    photos=st.integers(30, 200),
    collectors=st.integers(1, 6),
    difficulty=st.floats(0, 5),
    seed=st.integers(0, 1000),
)


@given(plans)
@settings(max_examples=40, deadline=None)
def test_a_person_has_two_to_five_photos_one_label_and_one_collector(shots):
    for _, of_person in itertools.groupby(shots, lambda s: (s.collector, s.participant)):
        own = list(of_person)
        assert 2 <= len(own) <= 5
        assert len({(s.label, s.seeded) for s in own}) == 1
        assert [s.number for s in own] == list(range(1, len(own) + 1))
    assert len({(s.collector, s.name) for s in shots}) == len(shots)


@given(plans)
@settings(max_examples=40, deadline=None)
def test_the_legs_of_one_photo_lie_at_most_one_class_apart(shots):
    for shot in shots:
        ranks = [sum(angle > cut for cut in CUTS) for angle in (shot.left, shot.right)]
        assert abs(ranks[0] - ranks[1]) <= 1


@given(st.integers(30, 5000))
def test_the_classes_keep_their_shares_and_add_up(photos):
    counts = phantom._counts(photos)
    assert sum(counts.values()) == photos
    for label, share in phantom.SHARES.items():
        assert abs(counts[label] - photos * share / 323) < 1


def test_the_default_set_has_the_real_sets_counts():
    labels = [shot.label for shot in planned()]
    assert {name: labels.count(name) for name in CLASSES} == phantom.SHARES


def test_every_collector_takes_some_photos_but_not_all_the_same_number():
    shots = planned()
    per = pd.Series([shot.collector for shot in shots]).value_counts()
    assert len(per) == 16
    assert len({code.upper() for code in per.index}) == 16
    assert all(re.fullmatch("[0-9A-Z]{6}|[0-9a-z]{6}", code) for code in per.index)
    assert per.nunique() > 4


def test_neither_collector_nor_participant_number_tells_the_class():
    shots = [shot for shot in planned(photos=3230) if shot.number == 1]
    frame = pd.DataFrame([vars(shot) for shot in shots])
    early = frame.participant <= "reszvevo30"
    for label in CLASSES:
        share = (frame.label == label).mean()
        assert abs((frame.label[early] == label).mean() - share) < 0.08


def test_more_photos_add_persons_and_leave_the_first_ones_as_they_are():
    def stances(shots):
        return {(s.seeded, s.number): (s.left, s.right) for s in shots}

    few, many = stances(planned(photos=100)), stances(planned(photos=1000))
    shared = few.keys() & many.keys()
    assert len(shared) >= 95  # the last person of a group may be cut short
    assert all(few[key] == many[key] for key in shared)


def test_more_collectors_than_persons_are_refused_by_name():
    with pytest.raises(ValueError, match=r"phantom.collectors = 40: .* lower it"):
        planned(photos=30, collectors=40)


@pytest.mark.parametrize("seed", range(8))
def test_the_ceiling_is_high_at_the_default_difficulty_and_falls_with_it(seed):
    at = {d: phantom.ceiling(table(planned(difficulty=d, seed=seed))) for d in (0.0, 1.0, 2.0, 4.0)}
    assert at[0.0] == 1
    assert 0.95 <= at[1.0] < 1
    assert at[1.0] > at[2.0] > at[4.0] > 1 / 3


@given(
    st.lists(
        st.tuples(st.sampled_from(CLASSES), st.integers(-3, 3).map(float)), min_size=1, max_size=12
    )
)
@settings(deadline=None)
def test_the_ceiling_is_the_best_of_all_pairs_of_thresholds(rows):
    labels, angles = zip(*rows, strict=True)
    best = 0.0
    places = np.arange(-3.5, 4.5)
    for low, high in itertools.combinations_with_replacement(places, 2):
        guesses = [CLASSES[int(a > low) + int(a > high)] for a in angles]
        recalls = [
            np.mean([g == name for g, label in zip(guesses, labels, strict=True) if label == name])
            for name in set(labels)
        ]
        best = max(best, float(np.mean(recalls)))
    found = phantom.ceiling(pd.DataFrame({"label": labels, "angle": angles}))
    assert found == pytest.approx(best)


def test_the_clinical_class_of_a_groups_mean_is_the_group():
    assert {name: phantom.clinical_class(mean) for name, (mean, _) in GROUPS.items()} == {
        name: name for name in CLASSES
    }


def test_a_photo_is_the_same_whenever_it_is_drawn():
    first = legs.photograph(1, "neutral-0", 1, 4.0, 5.0)
    legs.photograph(1, "neutral-1", 1, 4.0, 5.0)
    assert legs.photograph(1, "neutral-0", 1, 4.0, 5.0) == first


@pytest.mark.parametrize("who", ["neutral-0", "neutral-1", "neutral-2", "neutral-5"])
def test_only_the_heels_follow_the_angle(who):
    out, inwards = (legs.photograph(1, who, 1, angle, angle) for angle in (14.0, -4.0))
    # Pronation moves the left heel's bottom to the left and the right one's to the right.
    assert out.heel_left[0] < inwards.heel_left[0]
    assert out.heel_right[2] > inwards.heel_right[2]
    # All above the ankles, where the class must not show, is the same up to JPEG's blocks.
    top = min(out.heel_left[1], out.heel_right[1])
    above = slice(0, max(8, top - (out.heel_left[3] - top)))
    changed = np.abs(pixels(out)[above] - pixels(inwards)[above])
    assert changed.mean() < 1
    assert (out.width, out.height) == (inwards.width, inwards.height)


def heels_are_large_and_inside(shots):
    for shot in shots:
        photo = phantom._draw(1, shot)
        with Image.open(io.BytesIO(photo.jpeg)) as image:
            assert image.format == "JPEG"
            assert image.size == (photo.width, photo.height)
        assert 500 <= max(image.size) <= 1100
        for left, top, right, bottom in (photo.heel_left, photo.heel_right):
            assert 0 < left < right < photo.width, shot
            assert 0 < top < bottom < photo.height, shot
            assert bottom - top >= photo.height / 6, shot
        assert photo.heel_left[2] < photo.heel_right[0], shot


def test_each_heel_lies_inside_the_photo_and_spans_a_sixth_of_its_height():
    heels_are_large_and_inside(planned()[::40])


@pytest.mark.slow
def test_each_heel_of_the_whole_set_spans_a_sixth_of_the_height():
    heels_are_large_and_inside(planned())


def test_an_export_names_the_photos_and_labels_that_params_yaml_knows():
    _, dataset = params.choice(
        params.read(ROOT / "params.yaml") | {"dataset": "phantom"},
        "dataset",
        "datasets",
        params.Dataset,
    )
    shots = [
        Shot("sajat_reszvevo03_02.jpg", "FO6K58", "reszvevo03", label, "x", 2, 1.0, 2.0)
        for label in CLASSES
    ]
    name, tasks = phantom.export("FO6K58", 4, shots)
    assert name.endswith(".json")
    assert json.loads(json.dumps(tasks)) == tasks
    for shot, task in zip(shots, tasks, strict=True):
        assert re.fullmatch(r"[0-9a-f]{8}-sajat_reszvevo03_02\.jpg", task["file_upload"])
        assert task["data"]["image"] == f"/data/upload/4/{task['file_upload']}"
        (annotation,) = task["annotations"]
        (result,) = annotation["result"]
        (choice,) = result["value"]["choices"]
        assert choice in dataset.classes[shot.label]
        assert not annotation["was_cancelled"]
    found = re.search(dataset.person or "", shots[0].name)
    assert found is not None
    assert found["participant"] == shots[0].participant
    assert phantom.export("FO6K58", 4, shots) == (name, tasks)


@pytest.mark.slow
def test_two_runs_write_the_same_bytes_and_nothing_else(tmp_path, monkeypatch, capsys):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^  photos: \d+", "  photos: 40", text)
    text = re.sub(r"(?m)^  collectors: \d+", "  collectors: 3", text)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def written():
        phantom.main()
        return {p: p.read_bytes() for p in sorted(Path("data").rglob("*")) if p.is_file()}

    first = written()
    (phantom.PHOTOS / "left over.txt").write_text("from an older run")
    monkeypatch.setattr(phantom, "_cores", lambda: 1)
    assert written() == first
    shutil.rmtree("data")
    assert written() == first

    truth = pd.read_csv(phantom.TRUTH)
    paths = {p.relative_to(phantom.PHOTOS).as_posix() for p in first if p.suffix == ".jpg"}
    assert set(truth.path) == paths
    assert len(truth) == 40
    assert ((truth.angle_left + truth.angle_right) / 2 - truth.angle).abs().max() < 0.002
    tasks = [
        task for p, content in first.items() if p.suffix == ".json" for task in json.loads(content)
    ]
    assert len(tasks) == 40
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("phantom: 40 photos of ")
    assert "ceiling 0.9" in last or "ceiling 1.000" in last
