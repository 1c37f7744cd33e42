"""synthetic/photo_plan.py: subject, folder, name, label and corruption of each photo."""

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
from synthetic.photo_plan import CLASSES, DROP_REASONS, SPELLINGS, USUAL_SPELLING

ROOT = Path(__file__).resolve().parents[2]


def planned(photos=323, collectors=22, difficulty=1.0, seed=1, corruptions=3):
    return photo_plan.plan(params.Synthetic(seed, photos, collectors, difficulty, corruptions))[1]


def counted(plan):
    """Return the labeled photos that are neither copies nor of poor quality."""
    return [s for s in plan if s.corruption in {"", corruptions.WRONG_LABEL} and not s.defect]


plans = st.builds(
    planned,
    photos=st.integers(30, 200),
    collectors=st.integers(1, 6),
    difficulty=st.floats(0, 5),
    seed=st.integers(0, 1000),
    corruptions=st.integers(0, 4),
)


@given(plans)
@settings(max_examples=40, deadline=None)
def test_a_subject_has_two_to_five_photos_and_a_web_picture_one(plan):
    own = sorted(counted(plan), key=lambda s: s.subject)
    for _, photos in itertools.groupby(own, lambda s: s.subject):
        of_subject = list(photos)
        assert len(of_subject) == 1 if of_subject[0].web else 1 <= len(of_subject) <= 5
        assert len({(s.label, s.capture.seed_name, s.collector) for s in of_subject}) == 1
        numbers = sorted(s.capture.number for s in of_subject)
        assert numbers == list(range(1, len(of_subject) + 1))


@given(plans)
@settings(max_examples=40, deadline=None)
def test_paths_are_unique_ignoring_case_and_unicode_normalization(plan):
    paths = [unicodedata.normalize("NFC", s.path).casefold() for s in plan]
    assert len(set(paths)) == len(paths)
    assert [s.path for s in plan] == sorted(s.path for s in plan)


@given(plans)
@settings(max_examples=40, deadline=None)
def test_the_legs_of_one_photo_are_at_most_one_class_apart(plan):
    for shot in plan:
        angles = (shot.capture.left, shot.capture.right)
        ranks = [sum(angle > cut for cut in generate.CLASS_LIMITS) for angle in angles]
        assert abs(ranks[0] - ranks[1]) <= 1


@given(st.integers(30, 5000))
def test_class_counts_keep_their_shares_and_add_up(photos):
    counts = photo_plan._class_counts(photos)
    assert sum(counts.values()) == photos
    for label, share in photo_plan.CLASS_PHOTOS.items():
        assert abs(counts[label] - photos * share / 323) < 1


def test_the_default_set_has_the_real_sets_counts():
    labels = Counter(shot.label for shot in counted(planned()))
    assert dict(labels) == photo_plan.CLASS_PHOTOS


def test_two_of_twenty_two_collectors_never_labeled_and_the_others_have_different_habits():
    collectors, plan = photo_plan.plan(params.Synthetic(1, 323, 22, 1.0, 3))
    assert len({c.code.upper() for c in collectors}) == 22
    assert all(re.fullmatch("[0-9A-Z]{6}|[0-9a-z]{6}", c.code) for c in collectors)
    unlabeled = [c.code for c in collectors if c.export is None]
    assert len(unlabeled) == 2
    assert all(s.defect == "untasked" for s in plan if s.collector in unlabeled)
    assert sorted(sum(s.collector == code for s in plan) for code in unlabeled) == [37, 51]
    per = Counter(s.folder.partition("/")[0] for s in counted(plan))
    assert set(per) == {c.code for c in collectors if c.export} | {"sample"}
    assert per["sample"] == 2
    assert len(set(per.values())) > 4
    assert {c.export for c in collectors} == {None, "json", *photo_plan.EXPORTS}
    assert {c.naming for c in collectors} == {"sajat_reszvevo", *photo_plan.NAMINGS}
    assert Counter(c.broken for c in collectors) == {"": 20, "cut": 1, "empty": 1}
    assert sum(c.subfolders for c in collectors) == 1
    assert {c.spelling for c in collectors} == {-1, 0, 1, 2, 3}


def test_files_vary_in_format_size_and_orientation_and_some_extensions_are_wrong():
    plan = counted(planned())
    extensions = {"JPEG": {"jpg", "jpeg", "JPG"}, "PNG": {"png"}, "WEBP": {"webp"}, "AVIF": {}}
    wrong_extensions = sum(
        s.upload_name.rpartition(".")[2] not in extensions[s.file_format] for s in plan
    )
    assert {s.file_format for s in plan} == {"JPEG", "PNG", "WEBP", "AVIF"}
    assert [s.name[-4:] for s in plan if s.file_format == "AVIF"] == [".jpg", ".jpg"]
    assert 5 <= wrong_extensions <= 40
    assert {s.orientation for s in plan} == {1, 3, 6, 8}
    sides = sorted(s.capture.side for s in plan)
    assert 150 <= sides[0] < 400
    assert 2000 <= sides[-1] <= 3000
    assert sum(560 <= side <= 1280 for side in sides) > 0.85 * len(sides)


def test_the_subject_number_does_not_predict_the_class():
    first = [s for s in counted(planned(photos=3230)) if s.capture.number == 1 and not s.web]
    frame = pd.DataFrame({"label": s.label, "number": s.subject[-2:]} for s in first)
    early = frame.number.astype(int) <= 4
    for label in CLASSES:
        share = (frame.label == label).mean()
        assert abs((frame.label[early] == label).mean() - share) < 0.08


def test_more_photos_add_subjects_and_keep_the_first_ones():
    def stances(plan):
        return {
            (s.capture.seed_name, s.capture.number): (s.capture.left, s.capture.right)
            for s in counted(plan)
        }

    few, many = stances(planned(photos=100)), stances(planned(photos=1000))
    shared = few.keys() & many.keys()
    assert len(shared) >= 95  # the last subject of a class may have fewer photos
    assert all(few[key] == many[key] for key in shared)


def test_more_collectors_than_subjects_are_rejected():
    with pytest.raises(ValueError, match=r"synthetic.collectors = 40: .* lower it"):
        planned(photos=30, collectors=40)


def test_each_corruption_is_injected_and_changes_no_other_photo():
    without, corrupted = planned(corruptions=0), planned(corruptions=5)
    counts = dict.fromkeys([*corruptions.KINDS, corruptions.SHARED], 5)
    assert Counter(s.corruption for s in corrupted if s.corruption) == counts
    assert not any(s.corruption for s in without)
    before = {s.path: s for s in without}
    after = {s.path: s for s in corrupted if s.corruption in {"", corruptions.WRONG_LABEL}}
    assert before.keys() == after.keys()
    for path, shot in after.items():
        same = before[path]
        assert shot == same or (
            shot.corruption == corruptions.WRONG_LABEL
            and shot.assigned_label != same.assigned_label
        )


@given(plans)
@settings(max_examples=40, deadline=None)
def test_a_copy_has_the_label_of_its_original_unless_it_contradicts_it(plan):
    by_path = {s.path: s for s in plan}
    for shot in plan:
        if shot.original:
            original = by_path[shot.original]
            assert original.capture == shot.capture
            assert original.corruption in {"", corruptions.SHARED}
            if shot.corruption != corruptions.SHARED:
                assert (shot.assigned_label != original.assigned_label) == (
                    shot.corruption == "contradicting"
                )
            assert original.assigned_label == original.label
        elif shot.corruption != corruptions.WRONG_LABEL:
            assert shot.assigned_label == shot.label


@pytest.mark.parametrize("seed", range(8))
def test_one_file_is_in_five_folders_and_one_of_its_labels_differs(seed):
    collectors, plan = photo_plan.plan(params.Synthetic(seed, 323, 22, 1.0, 3))
    same = [s for s in plan if s.corruption == corruptions.SHARED]
    assert len({s.folder for s in same}) == len(same) == 5
    assert {s.folder for s in same} <= {c.code for c in collectors if c.export}
    assert sorted(s.assigned_label for s in same) == ["neutral"] * 4 + ["pronation"]
    assert {s.label for s in same} == {"neutral"}
    assert len({(s.name, s.file_format, s.orientation, s.quality, s.capture) for s in same}) == 1
    (first,) = [s for s in same if not s.original]
    assert {s.original for s in same if s != first} == {first.path}
    drawn = generate._render(seed, [first, *(s for s in same if s != first)])
    assert len({photo.data for photo in drawn}) == 1


@pytest.mark.parametrize(("photos", "collectors"), [(60, 11), (100, 22), (900, 60)])
def test_collectors_who_never_labeled_have_their_share_of_photos(photos, collectors):
    collector_list, plan = photo_plan.plan(params.Synthetic(1, photos, collectors, 1.0, 3))
    unlabeled = {c.code for c in collector_list if c.export is None}
    assert len(unlabeled) == collectors // 11
    own = Counter(s.collector for s in plan if s.collector in unlabeled)
    assert own.keys() == unlabeled
    # An odd collector has the share of 37 photos, slightly below the mean.
    assert sum(own.values()) == pytest.approx(photos / 323 * (37 + 51), rel=0.2)


def test_copies_of_web_pictures_are_in_other_folders():
    plan = planned(corruptions=5)
    by_path = {s.path: s for s in plan}
    copies = [s for s in plan if s.original and s.web]
    elsewhere = [s for s in copies if by_path[s.original].folder != s.folder]
    assert len(elsewhere) >= 10


def test_the_consensus_list_has_53_good_photos_of_all_classes():
    listed = [s for s in planned() if s.in_consensus]
    assert len(listed) == 53
    assert {s.label for s in listed} == set(CLASSES)
    assert not any(s.corruption or s.defect or s.web for s in listed)


def test_each_defect_occurs():
    assert {s.defect for s in planned()} == {"", *DROP_REASONS}


def test_every_spelling_is_known_to_params_yaml():
    raw = params.read(ROOT / "params.yaml")
    labels = Labels(params.section(raw, "datasets.synthetic", params.Dataset).classes)
    for spelling in (USUAL_SPELLING, *SPELLINGS):
        assert {labels.class_of(text) for text in spelling.values()} == set(CLASSES)
        assert all(labels.class_of(text) == name for name, text in spelling.items())
    assert labels.class_of(generate.UNKNOWN_LABEL) is None
