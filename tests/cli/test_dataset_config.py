"""A dataset config is read back unchanged, and the rest of the file is kept."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from anklealign.cli import dataset_config
from anklealign.config import params
from anklealign.config.class_names import Labels
from anklealign.config.params import Dataset

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def load(text):
    return YAML(typ="safe", pure=True).load(text)


def distinct(classes):
    """Return whether all class names differ after normalization, as params.yaml requires."""
    try:
        Labels(classes)
    except ValueError:
        return False
    return True


@given(
    st.dictionaries(TEXT, st.lists(TEXT, max_size=3).map(tuple), min_size=2, max_size=4).filter(
        distinct
    ),
    st.sampled_from([None, r"it's (?P<subject>\d+)", "a: b # (?P<subject>x)"]),
    TEXT,
)
def test_any_class_names_are_read_back(classes, pattern, column):
    dataset = Dataset("table", classes, subject_pattern=pattern, label_column=column, ordered=True)
    block = dataset_config.text("mine", dataset, dict.fromkeys(classes, 3), ["a remark"])
    whole = dataset_config.insert("# top\ndatasets:\n  a: {x: 1}\n\n# next\nprepare: 1\n", block)
    raw = load(whole)
    assert params.section(raw, "datasets.mine", Dataset) == dataset
    assert raw["datasets"]["a"] == {"x": 1}
    assert raw["prepare"] == 1


def test_every_line_of_params_yaml_is_kept_in_place():
    before = PARAMS.read_text(encoding="utf-8")
    dataset = Dataset("folders", {"a": (), "b": ("B2",)})
    block = dataset_config.text("mine", dataset, {"a": 1, "b": 2})
    after = dataset_config.insert(before, block)
    assert after.replace(block, "") == before
    assert list(load(after)["datasets"])[-1] == "mine"
    start = after.index(block)
    assert after[:start].endswith("\n")
    assert after[start + len(block) :].startswith("\nprepare:")


def test_the_block_explains_each_of_its_lines():
    dataset = Dataset("table", {"a": (), "b": ()}, group_column="who", encoding="cp1250")
    lines = dataset_config.text("mine", dataset, {"a": 1, "b": 2}, ["'c', 2 times, is no class"])
    head, *rest = lines.splitlines()
    assert head == "  mine:"
    assert all(" # " in line for line in rest)
    assert "# 'c', 2 times, is no class" in lines
    for key in ("layout", "classes", "group_column", "encoding", "ordered", "mirror_safe", "fit"):
        assert f"    {key}:" in lines
    assert "subject_pattern" not in lines


@pytest.mark.parametrize(
    ("text", "block_starts"),
    [
        ("datasets:\n  a: {x: 1}", "\n  mine:"),
        ("datasets:\n    a:\n        x: 1\n# the end\n", "\n    mine:"),
        ("a: 1\ndatasets:\n  a:\n    x: 1 # one\n  # about a\n\n# about b\nb: 2\n", "\n  mine:"),
    ],
)
def test_a_block_follows_the_files_indentation_and_leaves_comments_with_their_keys(
    text, block_starts
):
    dataset = Dataset("folders", {"a": (), "b": ()})
    after = dataset_config.insert(text, dataset_config.text("mine", dataset, {"a": 1, "b": 2}))
    assert block_starts in after
    assert params.section(load(after), "datasets.mine", Dataset) == dataset
    assert all(line in after.splitlines() for line in text.splitlines())
    if "# about b" in text:
        assert after.endswith("\n# about b\nb: 2\n")


@pytest.mark.parametrize("text", ["datasets: {a: {}}\n", "datasets:\n", "other: 1\n", ""])
def test_a_file_that_cannot_take_a_dataset_config_is_an_error_with_a_remedy(text):
    with pytest.raises(
        ValueError, match=r"params\.yaml: datasets is (missing; add|not an indented)"
    ):
        dataset_config.insert(text, "  mine:\n")


def test_long_lists_and_remarks_are_broken_and_read_back():
    names = tuple(f'rater, number {n}: "it\'s" #{n}' for n in range(20))
    dataset = Dataset(
        "table", {"a" * 60: names, "b": ()}, csv=("labels.csv",), path_column="x" * 30,
        vote_columns=names, imagenet={"a" * 60: tuple(range(30)), "b": (31,)},
    )  # fmt: skip
    counts = dict.fromkeys(dataset.classes, 3)
    block = dataset_config.text("mine", dataset, counts, ["remark " * 30, "x" * 200])
    assert max(map(len, block.splitlines())) <= 80
    assert params.section(load("datasets:\n" + block), "datasets.mine", Dataset) == dataset
