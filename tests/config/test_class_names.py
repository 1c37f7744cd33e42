"""Test label matching: every spelling of a class is recognized, and no label is guessed."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anklealign.config.class_names import Labels

ANKLE = {
    "pronation": ["1_Pronacio", "1_Pronáló", "Pronáció"],
    "neutral": ["2_Neutralis", "2_Neutral", "Neutrális"],
    "supination": ["3_Szupinacio", "3_Szupináló", "Szupináció"],
}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("1_Pronacio", "pronation"), ("pronation", "pronation"), ("PRONÁLÓ", "pronation"),
        ("1. pronáció", "pronation"), ("1) Pronacio", "pronation"), (" Pronáció\n", "pronation"),
        (unicodedata.normalize("NFD", "1_Pronáló"), "pronation"), ("2 - Neutrális", "neutral"),
        ("01_neutral", "neutral"), ("3_Szupináló", "supination"), ("SUPINATION", "supination"),
    ],
)  # fmt: skip
def test_case_accents_numbering_and_unicode_form_do_not_count(text, label):
    assert Labels(ANKLE).class_of(text) == label


@given(st.sampled_from(list(ANKLE)), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]), st.booleans())
def test_every_class_and_alias_is_recognized_in_every_form(name, form, upper):
    labels = Labels(ANKLE)
    for alias in (name, *ANKLE[name]):
        text = unicodedata.normalize(form, alias)
        assert labels.class_of(text.upper() if upper else text) == name


@pytest.mark.parametrize("text", ["pronatoin", "", "1", "Pronációs láb", "neutral supination"])
def test_a_label_that_fits_no_class_is_not_guessed(text):
    assert Labels(ANKLE).class_of(text) is None


def test_suggest_names_the_closest_class():
    labels = Labels(ANKLE)
    hint = labels.suggest("1_Pronatoin")
    assert hint == "'1_Pronatoin' is not a class; the closest class is 'pronation'"
    assert "no class name is similar" in labels.suggest("xyzzy")


def test_numbers_are_valid_labels():
    labels = Labels({"cat": ["0"], "dog": ["1"]})
    assert [labels.class_of(t) for t in ("0", "1", "1.0", "0.00", " 1 ", "2", "1.5", "01")] == [
        "cat", "dog", "dog", "cat", "dog", None, None, None,
    ]  # fmt: skip


def test_numbering_distinguishes_classes_that_differ_in_nothing_else():
    labels = Labels({"a": ["1_left"], "b": ["2_left"], "c": ["3D"], "d": ["4D"]})
    assert [labels.class_of(t) for t in ("1_Left", "2 left", "left", "3d", "4D", "d")] == [
        "a", "b", None, "c", "d", "d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [("Dóg", "DOG"), ("1_dog", "1. Dog"), ("dog", "2 dog"), ("2) dog", "dog"), ("7", "7.0")],
)
def test_alias_of_two_classes_is_an_error(one, other):
    with pytest.raises(ValueError, match=r"means 'b', but .* alias of 'a'.*remove it from one"):
        Labels({"a": ["x", one], "b": [other]})


def test_missing_value_markers_are_empty_unless_a_class_has_that_name():
    labels = Labels({"none": [], "some": []})
    assert [labels.is_empty(t) for t in ("", " ", "NaN", "N/A", "None", "some", "x")] == [
        True, True, True, True, False, False, False,
    ]  # fmt: skip
