"""anklealign/cli/layout_detection.py: a layout is detected, or the error lists the evidence."""

import json
from collections import Counter

import pytest

from anklealign.cli import table_commands
from anklealign.cli.layout_detection import choose, find_subject_pattern, name_classes, read_layouts
from anklealign.cli.table_readings import TableGroup
from anklealign.config.params import Dataset
from anklealign.ingest.inventory import Entry, compile_subject_pattern, subject_of

ANKLE = Dataset(
    layout="label_studio",
    classes={
        "pronation": ("1_Pronacio", "1_Pronáló"),
        "neutral": ("2_Neutralis",),
        "supination": ("3_Szupinacio",),
    },
    subject_pattern=r"(?P<subject>resz?t?vevo_?\d+)",
)
PETS = Dataset(layout="table", classes={"cat": ("0",), "dog": ("1",)})
KNOWN = {"ankle": ANKLE, "pets": PETS}


def export(*labels, question="choice", names="abcdefghij"):
    return json.dumps(
        [
            {
                "id": n,
                "file_upload": f"aaaaaaa{n}-{names[n]}.jpg",
                "annotations": [
                    {"result": [{"from_name": question, "value": {"choices": [label]}}]}
                ],
            }
            for n, label in enumerate(labels)
        ]
    )


def recognised(root, layout=None, known=None):
    return choose(read_layouts(root, known or {}), layout)


def test_class_folders(folder):
    seen = recognised(folder("ants/1.jpg", "ants/2.jpg", "bees/deep/3.jpg"))
    assert (seen.layout, seen.texts) == ("folders", {"ants": 2, "bees": 1})


def test_class_folders_below_train_and_test(folder):
    seen = recognised(folder("train/ants/1.jpg", "train/bees/2.jpg", "Test/bees/3.jpg"))
    assert seen.texts == {"ants": 1, "bees": 2}


def test_train_beside_other_classes_is_a_class(folder):
    assert recognised(folder("train/1.jpg", "bus/2.jpg", "car/3.jpg")).texts.keys() == {
        "train", "bus", "car",
    }  # fmt: skip


def test_collectors_with_exports_of_any_question_and_one_broken(folder):
    root = folder(
        "FO6K58/a.jpg", "FO6K58/b.jpg", "h51b9j/a.jpg", "ITWQ3V/a.jpg",
        **{
            "FO6K58/x.json": export("1_Pronacio", "2_Neutralis"),
            "h51b9j/y.json": export("pronation", "neutral", question="boka"),
            "ITWQ3V/z.json": "{broken",
            "consensus/p.json": export("9_other"),
        },
    )  # fmt: skip
    seen = recognised(root, known=KNOWN)
    assert seen.layout == "label_studio"
    assert seen.texts == {"1_Pronacio": 1, "2_Neutralis": 1, "pronation": 1, "neutral": 1}
    assert "2 Label Studio exports with 4 answers" in seen.summary
    assert any("ITWQ3V/z.json cannot be read" in remark for remark in seen.remarks)


def test_collectors_one_folder_too_deep_are_not_taken_for_one_collector(folder):
    root = folder(
        "all/FO6K58/a.jpg", "all/h51b9j/a.jpg",
        **{"all/FO6K58/x.json": export("a"), "all/h51b9j/y.json": export("b")},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"all photos are in all, which .*pass all as the folder"):
        recognised(root)
    assert recognised(root / "all").layout == "label_studio"
    assert recognised(root, "label_studio").layout == "label_studio"


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_one_project_for_all_as_records(folder, kind):
    rows = [("a.jpg", "bad"), ("b.jpg", "good"), ("c.jpg", "good"), ("d.jpg", "bad")]
    if kind == "json":
        text = json.dumps(
            [{"id": n, "image": f"/data/upload/1/{f}", "choice": label, "annotator": 1,
              "note": "seen"} for n, (f, label) in enumerate(rows)]
        )  # fmt: skip
    else:
        lines = [f"1,{label},{n},/data/upload/1/{f}" for n, (f, label) in enumerate(rows)]
        text = "\n".join(["annotator,choice,id,image", *lines])
    root = folder(*(f for f, _ in rows), **{f"project.{kind}": text})
    seen = recognised(root)
    assert (seen.layout, seen.texts) == ("label_studio", {"bad": 2, "good": 2})


def test_of_two_questions_the_one_called_as_labels_are_is_taken_and_the_other_is_named(folder):
    both = json.loads(export("a", "b", "a", "b"))
    for n, task in enumerate(both):
        extra = {"from_name": "side", "value": {"choices": [["left", "right"][n // 2]]}}
        task["annotations"][0]["result"].append(extra)
    root = folder("a.jpg", "b.jpg", "c.jpg", "d.jpg", **{"p.json": json.dumps(both)})
    seen = recognised(root)
    assert seen.texts == {"a": 2, "b": 2}
    assert any("ignored: 'side' (left, right)" in remark for remark in seen.remarks)
    undecided = json.dumps(both).replace('"choice"', '"kind"')
    folder(**{"p.json": undecided})
    with pytest.raises(ValueError, match=r"answer 2 questions: .*params\.yaml"):
        recognised(root)


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("path,label", ["{},{}"]),
        ("nr;kép;diagnózis", ["1;{};{}"]),
        ("file\tsex\tspecies", ["{}\tm\t{}", "{}\tf\t{}"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1250"])
def test_a_table_of_any_separator_encoding_and_columns(folder, header, rows, encoding):
    names = [f"{'őz' if encoding != 'utf-16' else 'oz'}{n}.jpg" for n in range(6)]
    root = folder(*names, "other.jpg")
    lines = [rows[n % len(rows)].format(f, "öt hét"[:2] * (1 + n % 2)) for n, f in enumerate(names)]
    (root / "list.csv").write_bytes("\n".join([header, *lines]).encode(encoding))
    seen = recognised(root)
    assert seen.layout == "table"
    assert seen.keys["csv"] == "list.csv"
    assert seen.keys["path_column"] in {"path", "kép", "file"}
    assert seen.keys["label_column"] in {"label", "diagnózis", "species"}
    assert seen.texts == {"öt": 3, "ötöt": 3}
    assert seen.keys.get("encoding", "utf-8") == encoding.removesuffix("-sig")


def test_a_kaggle_like_table_names_photos_without_folder_and_suffix(folder):
    rows = [f"{n % 4},{n},{'xy'[n % 2]}" for n in range(8)]
    root = folder(*(f"train/{n}.jpg" for n in range(8)))
    (root / "t.csv").write_text("\n".join(["age,id,breed", *rows]))
    assert recognised(root).keys == {"csv": "t.csv", "path_column": "id", "label_column": "breed"}


def test_photos_without_suffix_are_known_by_their_content(folder):
    assert recognised(folder("a/1", "b/2")).texts == {"a": 1, "b": 1}


def test_a_table_with_a_column_of_persons_says_so(folder):
    rows = [f"{n},{'xy'[n % 2]},{n // 2}" for n in range(8)]
    root = folder(*(f"{n}.jpg" for n in range(8)))
    (root / "t.csv").write_text("\n".join(["id,target,Patient_ID", *rows]))
    seen = recognised(root)
    assert seen.keys == {
        "csv": "t.csv", "path_column": "id", "label_column": "target",
        "group_column": "Patient_ID",
    }  # fmt: skip


def test_a_table_whose_label_column_nothing_tells_is_asked_about(folder):
    rows = [f"{n}.jpg,{'xy'[n % 2]},{'uv'[n // 4]}" for n in range(8)]
    root = folder(*(f"{n}.jpg" for n in range(8)))
    (root / "t.csv").write_text("\n".join(["file,one,two", *rows]))
    with pytest.raises(
        ValueError,
        match=r"'one' \(x, y\), 'two' \(u, v\); choose with --set label_column=one",
    ):
        recognised(root)
    # The labels of another dataset decide nothing; the classes of this one do.
    (root / "t.csv").write_text("\n".join(["file,one,two", *rows]).replace("u", "cat"))
    (root / "t.csv").write_text((root / "t.csv").read_text().replace("v", "dog"))
    with pytest.raises(ValueError, match="several columns may contain the labels"):
        recognised(root, known=KNOWN)
    own = read_layouts(root, KNOWN, {"classes": {"cat": [], "dog": []}})
    assert choose(own, None).keys["label_column"] == "two"


def test_columns_of_a_table_without_header_are_named_by_their_position(folder):
    text = "".join(f"{n}.jpg,{'ab'[n % 2]}\n" for n in range(4))
    seen = recognised(folder(*(f"{n}.jpg" for n in range(4)), **{"t.csv": text}))
    assert seen.keys == {"csv": "t.csv", "path_column": "#1", "label_column": "#2"}
    assert seen.texts == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("paths", "top"),
    [(["all/a/1.jpg", "all/b/2.jpg"], "all"), (["x/y/a/1.jpg", "x/y/b/c/2.jpg"], "x/y")],
)
def test_class_folders_in_a_folder_are_read_there(folder, paths, top):
    seen = recognised(folder(*paths))
    assert seen.texts == {"a": 1, "b": 1}
    assert seen.keys == {"class_roots": {top: ""}}
    assert f"below {top}" in seen.summary


def test_written_labels_count_for_more_than_folders_of_other_names(folder):
    rows = ["path,label", "rome/1.jpg,a", "rome/2.jpg,b", "oslo/3.jpg,a", "oslo/4.jpg,b"]
    root = folder("rome/1.jpg", "rome/2.jpg", "oslo/3.jpg", "oslo/4.jpg")
    (root / "t.csv").write_text("\n".join(rows))
    assert recognised(root).layout == "table"
    assert recognised(root, "folders").layout == "folders"


def test_two_readings_with_the_same_words_are_asked_about(folder):
    root = folder("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg")
    (root / "t.csv").write_text("path,label\na/1.jpg,a\na/2.jpg,b\nb/3.jpg,a\nb/4.jpg,b\n")
    with pytest.raises(ValueError, match=r"pass --layout table or --layout folders") as error:
        recognised(root)
    assert "t.csv with 4 rows" in str(error.value)
    assert "4 photos in 2 folders: a, b" in str(error.value)
    assert recognised(root, "table").layout == "table"


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["1.jpg", "2.jpg"], r"no label was found.*\n.*2 files that look like photos"),
        (["FO6K58/1.jpg", "h51b9j/2.jpg"], "look like collectors' codes.*--layout folders"),
        (["x/bad/1.jpg", "x/good/2.jpg", "y/bad/1.jpg", "y/good/2.jpg"], "bad, good recur below 2"),
        (["bad/1.jpg", "good/2.jpg", "more/Bad/3.jpg", "more/good/4.jpg"],
         r"more holds folders with the names of other classes: bad, good.*--layout folders"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_said(folder, paths, said):
    root = folder(*paths)
    with pytest.raises(ValueError, match=f"(?s){said}"):
        recognised(root)


def test_a_table_that_names_no_photo_is_shown(folder):
    root = folder("pics/1.jpg", "pics/2.jpg")
    (root / "labels.csv").write_text("path,label\nC:\\me\\8.jpg,a\nC:\\me\\9.jpg,b\n")
    said = r"labels\.csv: no row names a photo, such as the first, C:\\me\\8\.jpg, a; write each"
    with pytest.raises(ValueError, match=said):
        recognised(root)


def test_a_layout_that_the_folder_lacks_is_refused_with_what_was_seen(folder):
    root = folder("a/1.jpg", "b/2.jpg")
    with pytest.raises(ValueError, match=r"(?s)not look like layout table.*2 photos in 2 folders"):
        recognised(root, "table")


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(ValueError, match="contains no file"):
        recognised(tmp_path)


# --- Classes -----------------------------------------------------------------------------------


def test_labels_that_another_dataset_knows_get_its_classes_and_what_fits_none_is_unknown():
    found = name_classes({"1_Pronáló": 5, "neutral": 4, "1_Pronatio": 2}, KNOWN)
    assert found.like == "ankle"
    assert found.classes == {
        "pronation": ("1_Pronacio", "1_Pronáló"), "neutral": ("2_Neutralis",),
    }  # fmt: skip


def test_bare_numbers_are_no_knowledge():
    found = name_classes({"0": 50, "1": 40}, KNOWN)
    assert (found.like, found.classes) == ("", {"0": (), "1": ()})


def test_another_datasets_classes_need_half_of_the_labels():
    found = name_classes({"cat": 5, "dog": 5, "horse": 30}, KNOWN)
    assert (found.like, list(found.classes)) == ("", ["cat", "dog", "horse"])


def test_spellings_of_one_class_are_one_class_under_the_most_frequent():
    found = name_classes({"1_Jó": 4, "jo": 9, "JÓ ": 1, "2. rossz": 3}, {})
    assert found.classes == {"2. rossz": (), "jo": ("1_Jó", "JÓ ")}
    assert found.alike == ()


def test_numbering_that_alone_tells_classes_apart_is_kept():
    found = name_classes({"1_left": 4, "2_left": 4, "3_right": 4}, {})
    assert list(found.classes) == ["1_left", "2_left", "3_right"]


def test_classes_written_alike_stay_apart_and_are_hinted_at():
    found = name_classes({"1_Pronacio": 90, "1_Pronáló": 8, "2_Neutral": 70, "Prnacio": 2}, {})
    assert list(found.classes) == ["1_Pronacio", "1_Pronáló", "2_Neutral"]
    assert found.alike == (("1_Pronacio", "1_Pronáló"),)


def test_grades_differ_by_their_number_on_purpose():
    assert name_classes({"grade 1": 9, "grade 2": 9, "grade 10": 9}, {}).alike == ()


# --- Persons -----------------------------------------------------------------------------------


def entries(*paths):
    return [Entry(path, "x", collector=path.split("/")[0]) for path in paths]


@pytest.mark.parametrize(
    "form", ["participant{}", "sajat_reszvevo{:02}", "subject_{:02}", "p{:02}", "person-{}",
             "sub-{:03}", "Patient {}", "id{}", "S{:03}"],
)  # fmt: skip
def test_participants_are_found_however_they_are_numbered(form):
    paths = [f"a/{form.format(n)}_{shot}.jpg" for n in range(1, 6) for shot in "xyz"]
    pattern = compile_subject_pattern(find_subject_pattern(entries(*paths), {}))
    assert [subject_of(path, pattern, "a", ()) for path in paths[::3]] == [
        f"a/{n:02}" for n in range(1, 6)
    ]


def test_a_number_that_no_two_photos_share_numbers_no_persons():
    assert find_subject_pattern(entries(*(f"a/person{n}.jpg" for n in range(20))), {}) is None
    assert find_subject_pattern(entries(*(f"a/img_{n}.jpg" for n in range(20))), {}) is None


def test_the_pattern_that_fits_the_most_photos_is_chosen_and_a_datasets_own_is_tried():
    paths = [f"a/p{n}_{shot}_subject{n}{shot}.jpg" for n in range(4) for shot in range(3)]
    assert find_subject_pattern(entries(*paths), {}).startswith("(?<![a-z0-9])(?P<subject>[ps]")
    own = Dataset("folders", {"x": (), "y": ()}, subject_pattern=r"dog(?P<subject>\d+)")
    found = find_subject_pattern(
        entries("a/dog1_1.jpg", "a/dog1_2.jpg", "a/dog2_1.jpg"), {"own": own}
    )
    assert found == own.subject_pattern


def test_a_pattern_that_fits_hardly_any_photo_is_not_taken():
    paths = [f"a/img{n}.jpg" for n in range(96)] + [f"a/p{n % 2}_{n}.jpg" for n in range(4)]
    assert find_subject_pattern(entries(*paths), {}) is None


def test_what_is_found_does_not_depend_on_the_order():
    texts = {"b": 3, "B": 2, "a": 5, "c": 1}
    again = dict(reversed(texts.items()))
    assert name_classes(texts, KNOWN) == name_classes(again, KNOWN)
    assert Counter(name_classes(texts, {}).classes) == Counter({"a": (), "b": ("B",)})


@pytest.mark.parametrize(
    ("file", "column", "plain"),
    [
        ("my labels (2).csv", "Image #", True),
        ("$(touch x).csv", "image", False),
        ("labels.csv", "`touch x`", False),
        ("labels.csv", 'a"; touch x; "', False),
        ("labels.csv", "it's", False),
    ],
)
def test_names_that_a_shell_would_run_are_in_no_command(file, column, plain):
    group = TableGroup((file,), "utf-8", (column, "label"), ())
    assert table_commands.is_delimited(group) is plain
