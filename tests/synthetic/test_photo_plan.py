"""synthetic/photo_plan.py: who is on which photo, in whose folder, and what is wrong with it."""

import itertools
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anklealign.config import params
from anklealign.config.class_names import Labels
from synthetic import corruptions, generate, photo_plan
from synthetic.photo_plan import CLASSES, FATES, SPELLINGS, USUAL_SPELLING

ROOT = Path(__file__).resolve().parents[2]


def planned(photos=323, collectors=22, difficulty=1.0, seed=1, planted=3):
    return photo_plan.plan(params.Phantom(seed, photos, collectors, difficulty, planted))[1]


def counted(plan):
    """The photos that are no copy, not spoilt, and labelled."""
    return [s for s in plan if s.planted in {"", corruptions.WRONG_LABEL} and not s.fate]


plans = st.builds(
    planned,
    photos=st.integers(30, 200),
    collectors=st.integers(1, 6),
    difficulty=st.floats(0, 5),
    seed=st.integers(0, 1000),
    planted=st.integers(0, 4),
)


@given(plans)
@settings(max_examples=40, deadline=None)
def test_a_person_has_two_to_five_photos_and_a_web_picture_shows_somebody_once(plan):
    own = sorted(counted(plan), key=lambda s: s.person)
    for _, photos in itertools.groupby(own, lambda s: s.person):
        of_person = list(photos)
        assert len(of_person) == 1 if of_person[0].web else 1 <= len(of_person) <= 5
        assert len({(s.label, s.sitting.who, s.collector) for s in of_person}) == 1
        numbers = sorted(s.sitting.number for s in of_person)
        assert numbers == list(range(1, len(of_person) + 1))


@given(plans)
@settings(max_examples=40, deadline=None)
def test_no_two_files_differ_in_case_or_unicode_form_alone(plan):
    paths = [unicodedata.normalize("NFC", s.path).casefold() for s in plan]
    assert len(set(paths)) == len(paths)
    assert [s.path for s in plan] == sorted(s.path for s in plan)


@given(plans)
@settings(max_examples=40, deadline=None)
def test_the_legs_of_one_photo_lie_at_most_one_class_apart(plan):
    for shot in plan:
        angles = (shot.sitting.left, shot.sitting.right)
        ranks = [sum(angle > cut for cut in generate.CUTS) for angle in angles]
        assert abs(ranks[0] - ranks[1]) <= 1


@given(st.integers(30, 5000))
def test_the_classes_keep_their_shares_and_add_up(photos):
    counts = photo_plan._counts(photos)
    assert sum(counts.values()) == photos
    for label, share in photo_plan.SHARES.items():
        assert abs(counts[label] - photos * share / 323) < 1


def test_the_default_set_has_the_real_sets_counts():
    labels = Counter(shot.label for shot in counted(planned()))
    assert dict(labels) == photo_plan.SHARES


def test_of_twenty_two_collectors_two_never_labelled_and_the_others_differ_in_their_ways():
    collectors, plan = photo_plan.plan(params.Phantom(1, 323, 22, 1.0, 3))
    assert len({c.code.upper() for c in collectors}) == 22
    assert all(re.fullmatch("[0-9A-Z]{6}|[0-9a-z]{6}", c.code) for c in collectors)
    silent = [c.code for c in collectors if c.export is None]
    assert len(silent) == 2
    assert all(s.fate == "untasked" for s in plan if s.collector in silent)
    assert sorted(sum(s.collector == code for s in plan) for code in silent) == [37, 51]
    per = Counter(s.folder.partition("/")[0] for s in counted(plan))
    assert set(per) == {c.code for c in collectors if c.export} | {"sample"}
    assert per["sample"] == 2
    assert len(set(per.values())) > 4
    assert {c.export for c in collectors} == {None, "json", *photo_plan.EXPORTS}
    assert {c.naming for c in collectors} == {"sajat_reszvevo", *photo_plan.NAMINGS}
    assert Counter(c.broken for c in collectors) == {"": 20, "cut": 1, "empty": 1}
    assert sum(c.subfolders for c in collectors) == 1
    assert {c.spelling for c in collectors} == {-1, 0, 1, 2, 3}


def test_files_are_of_several_kinds_sizes_and_turns_and_some_extensions_lie():
    plan = counted(planned())
    extensions = {"JPEG": {"jpg", "jpeg", "JPG"}, "PNG": {"png"}, "WEBP": {"webp"}, "AVIF": {}}
    lying = sum(s.uploaded.rpartition(".")[2] not in extensions[s.form] for s in plan)
    assert {s.form for s in plan} == {"JPEG", "PNG", "WEBP", "AVIF"}
    assert [s.name[-4:] for s in plan if s.form == "AVIF"] == [".jpg", ".jpg"]
    assert 5 <= lying <= 40
    assert {s.orientation for s in plan} == {1, 3, 6, 8}
    sides = sorted(s.sitting.side for s in plan)
    assert 150 <= sides[0] < 400
    assert 2000 <= sides[-1] <= 3000
    assert sum(560 <= side <= 1280 for side in sides) > 0.85 * len(sides)


def test_neither_collector_nor_participant_number_tells_the_class():
    first = [s for s in counted(planned(photos=3230)) if s.sitting.number == 1 and not s.web]
    frame = pd.DataFrame({"label": s.label, "number": s.person[-2:]} for s in first)
    early = frame.number.astype(int) <= 4
    for label in CLASSES:
        share = (frame.label == label).mean()
        assert abs((frame.label[early] == label).mean() - share) < 0.08


def test_more_photos_add_persons_and_leave_the_first_ones_as_they_are():
    def stances(plan):
        return {
            (s.sitting.who, s.sitting.number): (s.sitting.left, s.sitting.right)
            for s in counted(plan)
        }

    few, many = stances(planned(photos=100)), stances(planned(photos=1000))
    shared = few.keys() & many.keys()
    assert len(shared) >= 95  # the last person of a group may be cut short
    assert all(few[key] == many[key] for key in shared)


def test_more_collectors_than_persons_are_refused_by_name():
    with pytest.raises(ValueError, match=r"phantom.collectors = 40: .* lower it"):
        planned(photos=30, collectors=40)


def test_each_fault_is_planted_so_often_and_changes_no_other_photo():
    none, some = planned(planted=0), planned(planted=5)
    often = dict.fromkeys([*corruptions.KINDS, corruptions.SHARED], 5)
    assert Counter(s.planted for s in some if s.planted) == often
    assert not any(s.planted for s in none)
    before = {s.path: s for s in none}
    after = {s.path: s for s in some if s.planted in {"", corruptions.WRONG_LABEL}}
    assert before.keys() == after.keys()
    for path, shot in after.items():
        same = before[path]
        assert shot == same or (
            shot.planted == corruptions.WRONG_LABEL and shot.given != same.given
        )


@given(plans)
@settings(max_examples=40, deadline=None)
def test_a_copy_has_its_originals_label_unless_it_contradicts_it(plan):
    by_path = {s.path: s for s in plan}
    for shot in plan:
        if shot.original:
            original = by_path[shot.original]
            assert original.sitting == shot.sitting
            assert original.planted in {"", corruptions.SHARED}
            if shot.planted != corruptions.SHARED:
                assert (shot.given != original.given) == (shot.planted == "contradicting")
            assert original.given == original.label
        elif shot.planted != corruptions.WRONG_LABEL:
            assert shot.given == shot.label


@pytest.mark.parametrize("seed", range(8))
def test_one_file_lies_in_five_folders_and_one_of_the_five_labels_it_otherwise(seed):
    collectors, plan = photo_plan.plan(params.Phantom(seed, 323, 22, 1.0, 3))
    same = [s for s in plan if s.planted == corruptions.SHARED]
    assert len({s.folder for s in same}) == len(same) == 5
    assert {s.folder for s in same} <= {c.code for c in collectors if c.export}
    assert sorted(s.given for s in same) == ["neutral"] * 4 + ["pronation"]
    assert {s.label for s in same} == {"neutral"}
    assert len({(s.name, s.form, s.orientation, s.quality, s.sitting) for s in same}) == 1
    (first,) = [s for s in same if not s.original]
    assert {s.original for s in same if s != first} == {first.path}
    drawn = generate._draw(seed, [first, *(s for s in same if s != first)])
    assert len({photo.data for photo in drawn}) == 1


@pytest.mark.parametrize(("photos", "collectors"), [(60, 11), (100, 22), (900, 60)])
def test_the_silent_have_their_share_of_photos_in_sets_of_any_size(photos, collectors):
    people, plan = photo_plan.plan(params.Phantom(1, photos, collectors, 1.0, 3))
    silent = {c.code for c in people if c.export is None}
    assert len(silent) == collectors // 11
    own = Counter(s.collector for s in plan if s.collector in silent)
    assert own.keys() == silent
    # One alone, or a third one, has 37's share: a little less than the mean.
    assert sum(own.values()) == pytest.approx(photos / 323 * (37 + 51), rel=0.2)


def test_copies_of_web_pictures_lie_with_other_collectors():
    plan = planned(planted=5)
    by_path = {s.path: s for s in plan}
    copies = [s for s in plan if s.original and s.web]
    elsewhere = [s for s in copies if by_path[s.original].folder != s.folder]
    assert len(elsewhere) >= 10


def test_fifty_three_photos_of_all_classes_are_listed_none_of_them_planted():
    listed = [s for s in planned() if s.listed]
    assert len(listed) == 53
    assert {s.label for s in listed} == set(CLASSES)
    assert not any(s.planted or s.fate or s.web for s in listed)


def test_each_fate_befalls_a_photo():
    assert {s.fate for s in planned()} == {"", *FATES}


def test_every_spelling_is_known_to_params_yaml():
    raw = params.read(ROOT / "params.yaml")
    labels = Labels(params.section(raw, "datasets.phantom", params.Dataset).classes)
    for spelling in (USUAL_SPELLING, *SPELLINGS):
        assert {labels.find(text) for text in spelling.values()} == set(CLASSES)
        assert all(labels.find(text) == name for name, text in spelling.items())
    assert labels.find(generate.UNKNOWN) is None
