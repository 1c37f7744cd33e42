"""anklealign/cli/label_conversion.py: labels of other tools become a table that `add` reads."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from anklealign.cli import add, foreign_formats, label_conversion
from anklealign.cli.main import main
from anklealign.config import params
from anklealign.ingest import layouts

ROOT = Path(__file__).resolve().parents[2]
PETS = {f"images/{n}.jpg": ("cat", "dog")[n % 2] for n in range(8)}
NAMES = {photo.rpartition("/")[2]: pet for photo, pet in PETS.items()}
REGION = {"shape_attributes": {"name": "rect"}}


def coco():
    return {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(NAMES)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"image_id": n, "category_id": 1 + (pet == "dog"), "bbox": [1, 1, 2, 2]}
            for n, pet in enumerate([*NAMES.values()] * 2)
            for n in [n % 8]
        ],
    }


def via_of(pets):
    return {f"{name}12": {"filename": name, "size": 12, **pets(pet)} for name, pet in NAMES.items()}


def cvat(mark):
    images = "".join(f'<image id="1" name="{n}">{mark(pet)}</image>' for n, pet in NAMES.items())
    return f"<annotations><version>1.1</version>{images}</annotations>"


def labelbox(pet):
    answers = [{"name": "kind", "radio_answer": {"name": pet}}]
    return {"p": {"labels": [{"annotations": {"classifications": answers}}]}}


VIA3 = {
    "project": {"pid": "x"}, "view": {str(n): {"fid_list": [str(n)]} for n in range(8)},
    "attribute": {"1": {"aname": "kind", "options": {"0": "cat", "1": "dog"}}},
    "file": {str(n): {"fname": name} for n, name in enumerate(NAMES)},
    "metadata": {f"m{n}": {"vid": str(n), "av": {"1": str(n % 2)}} for n in range(8)},
}  # fmt: skip
# Files by path, or one text for each photo: a folder, a suffix and the text of a name and a label.
ONE_FILE = {
    "COCO": ("a.json", json.dumps(coco())),
    "VIA project": ("v.json", json.dumps({"_via_settings": {}, "_via_img_metadata": via_of(
        lambda pet: {"regions": [], "file_attributes": {"kind": pet}})})),
    "VIA regions": ("v.json", json.dumps(via_of(
        lambda pet: {"regions": [REGION | {"region_attributes": {"kind": pet}}] * 2,
                     "file_attributes": {}}))),
    "VIA 1": ("v.json", json.dumps(via_of(
        lambda pet: {"regions": {"0": REGION | {"region_attributes": {"kind": pet}}}}))),
    "VIA 3": ("v.json", json.dumps(VIA3)),
    "CVAT tags": ("a.xml", cvat(lambda pet: f'<tag label="{pet}"></tag><box label="nose"/>')),
    "CVAT boxes": ("a.xml", cvat(lambda pet: f'<box label="{pet}"/>' * 2)),
    "Labelbox": ("e.ndjson", "".join(
        json.dumps({"data_row": {"external_id": name}, "projects": labelbox(pet)}) + "\n"
        for name, pet in NAMES.items())),
    "old Labelbox": ("e.json", json.dumps([
        {"Labeled Data": f"https://x/{name}", "External ID": name, "Label": {
            "objects": [], "classifications": [{"title": "kind", "answer": {"title": pet}}]}}
        for name, pet in NAMES.items()])),
    "CreateML": ("c.json", json.dumps([
        {"image": name, "annotations": [{"label": pet, "coordinates": {}}]}
        for name, pet in NAMES.items()])),
    "SageMaker": ("output.manifest", "".join(
        json.dumps({"source-ref": f"s3://b/{name}", "kind": 0,
                    "kind-metadata": {"class-name": pet}}) + "\n"
        for name, pet in NAMES.items())),
}  # fmt: skip
EACH = {
    "LabelMe flags": ("images/", ".json", lambda name, pet: json.dumps(
        {"imagePath": name, "flags": {pet: True, "x": False}, "shapes": [{"label": "nose"}]})),
    "LabelMe shapes": ("images/", ".json", lambda name, pet: json.dumps(
        {"imagePath": f"..\\images\\{name}", "shapes": [{"label": pet}, {"label": pet}]})),
    "Pascal VOC": ("Annotations/", ".xml", lambda name, pet:
        f"<annotation><filename>{name}</filename><object><name>{pet}</name></object></annotation>"),
    "YOLO": ("labels/", ".txt", lambda _, pet: f"{int(pet == 'dog')} 0.5 0.5 0.1 0.2\n" * 2),
    "Supervisely": ("ann/", ".json", lambda _, pet: json.dumps(
        {"tags": [{"name": pet}], "objects": [], "size": {"width": 9}})),
    "JSON sidecars": ("images/", ".json", lambda _, pet: json.dumps({"kind": pet, "likes": 3})),
    "text sidecars": ("images/", ".txt", lambda _, pet: f"{pet}\n"),
}  # fmt: skip


@pytest.fixture(scope="module")
def raw():
    return params.read(ROOT / "params.yaml")


@pytest.fixture
def photos(folder):
    return folder(*PETS)


def write(root, kind):
    """Write the label files of a kind."""
    if kind in ONE_FILE:
        name, text = ONE_FILE[kind]
        (root / name).write_text(text)
        return
    where, suffix, text = EACH[kind]
    (root / where).mkdir(exist_ok=True)
    for name, pet in NAMES.items():
        (root / where / name).with_suffix(suffix).write_text(text(name, pet))
    if kind == "YOLO":
        (root / "data.yaml").write_text("nc: 2\nnames: [cat, dog]\n")


@pytest.mark.parametrize("kind", [*ONE_FILE, *EACH])
def test_labels_of_other_tools_are_named_by_add_which_reads_them_when_converted(
    photos, raw, kind, capsys
):
    write(photos, kind)
    with pytest.raises(ValueError, match=rf"\A.*`anklealign convert {photos}`"):
        add.propose(photos, "mine", None, raw, {})
    assert main(["convert", str(photos)]) == 0
    assert "8 rows with the columns path" in capsys.readouterr().out
    proposal = add.propose(photos, "mine", None, raw, {})
    entries = layouts.read_inventory(photos, proposal.dataset).entries
    assert {entry.file: entry.label for entry in entries} == PETS
    remarks = "\n".join(proposal.reading.remarks)
    assert "anklealign convert" not in remarks
    assert "not read, because labels.csv exists; to convert again, move it away" in remarks


def moved(root, places):
    """Move photos, and the files beside them, to other folders and names."""
    for photo, place in places.items():
        for file in sorted((root / photo).parent.glob(f"{Path(photo).stem}.*")):
            target = (root / place).with_suffix(file.suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)


@pytest.mark.parametrize("kind", [kind for kind in [*ONE_FILE, *EACH] if "sidecars" not in kind])
@pytest.mark.parametrize(
    ("place", "start"),
    [
        ("images/batch_{batch}/{n}.jpg", "label 8 photos otherwise than their folders; to write"),
        ("2024-05-0{batch}/{n}.jpg", "label 8 photos otherwise than their folders; to write"),
        ("images/{pet}_{n}.jpg", "may hold the labels; to write"),
        ("{pet}s/{n}.jpg", ""),
    ],
)
def test_other_tools_labels_come_before_folders_that_differ_and_words_in_file_names(
    photos, raw, kind, place, start
):
    write(photos, kind)
    places = {
        photo: place.format(n=n, batch=1 + n // 4, pet=PETS[photo]) for n, photo in enumerate(PETS)
    }
    moved(photos, places)
    if not start:
        assert add.propose(photos, "mine", None, raw, {}).dataset.layout == "folders"
        return
    first = rf"\A.*{start} a labels\.csv, run `anklealign convert {photos}`.* pass --layout "
    with pytest.raises(ValueError, match=first):
        add.propose(photos, "mine", None, raw, {})


@pytest.mark.parametrize("changed", [0, 2])
def test_labels_of_other_tools_that_differ_from_a_table_are_counted(photos, raw, changed):
    write(photos, "COCO")
    rows = [(photo, pet) for photo, pet in sorted(PETS.items())]
    for n in range(changed):
        rows[n] = (rows[n][0], next(pet for _, pet in rows if pet != rows[n][1]))
    (photos / "meta.csv").write_text("file,label\n" + "".join(f"{p},{pet}\n" for p, pet in rows))
    proposal = add.propose(photos, "mine", None, raw, {})
    assert proposal.dataset.layout == "table"
    differ = [
        line for line in proposal.reading.remarks if "photos otherwise than the table" in line
    ]
    assert len(differ) == (changed > 0)
    assert all(f"label {changed} of {len(rows)} photos" in line for line in differ)


def test_a_photo_whose_regions_have_several_labels_gets_all_of_them(photos):
    write(photos, "COCO")
    content = coco()
    content["annotations"].append({"image_id": 0, "category_id": 2})
    (photos / "a.json").write_text(json.dumps(content))
    label_conversion.convert(photos)
    assert '"[cat, dog]",images/0.jpg' in (photos / "labels.csv").read_text() or (
        'images/0.jpg,"[cat, dog]"' in (photos / "labels.csv").read_text()
    )


def test_converted_labels_that_are_not_read_do_not_leave_the_folders_as_classes(photos, raw):
    write(photos, "COCO")
    places = {photo: f"2024-05-0{1 + n // 4}/{n}.jpg" for n, photo in enumerate(PETS)}
    moved(photos, places)
    content = coco()
    content["annotations"] += [
        {"image_id": n, "category_id": pet} for n in range(6) for pet in (1, 2)
    ]
    (photos / "a.json").write_text(json.dumps(content))
    label_conversion.convert(photos)
    with pytest.raises(ValueError, match=r"(?s)labels\.csv exists, but is not.*several labels"):
        add.propose(photos, "mine", None, raw, {})


def test_a_parquet_table_is_written_by_pandas(photos, monkeypatch, capsys):
    (photos / "t.parquet").write_bytes(b"PAR1")
    frame = pd.DataFrame({"path": list(NAMES), "label": list(NAMES.values())})
    monkeypatch.setattr(pd, "read_parquet", lambda _: frame)
    assert main(["convert", str(photos)]) == 0
    assert "images/0.jpg,cat" in (photos / "labels.csv").read_text()
    (photos / "labels.csv").unlink()
    monkeypatch.setattr(pd, "read_parquet", lambda _: pd.DataFrame({"image": [{"bytes": b""}]}))
    assert main(["convert", str(photos)]) == 1
    assert "holds photos, not their names" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_is_unpacked_beside_itself(photos, raw, tmp_path_factory, capsys, kind):
    (photos / "a.json").write_text(json.dumps(coco()))
    place = tmp_path_factory.mktemp("place")
    folder = place / "set"
    archive = Path(shutil.make_archive(str(folder), kind, photos))
    assert main(["convert", str(archive)]) == 0
    assert f"next: anklealign add {folder} NAME" in capsys.readouterr().out
    assert folder.stat().st_mode == (photos / "images").stat().st_mode
    dataset = add.propose(folder, "mine", None, raw, {}).dataset
    labels = {e.file: e.label for e in layouts.read_inventory(folder, dataset).entries}
    assert labels == {f"images/{name}": pet for name, pet in NAMES.items()}
    assert main(["convert", str(archive)]) == 1
    assert f"{folder} exists; pass it" in capsys.readouterr().err
    assert not list(place.glob(".*"))


def test_what_cannot_be_converted_is_said(photos, capsys):
    assert main(["convert", str(photos / "nowhere")]) == 1
    assert "nowhere is not a folder or an archive; pass the folder" in capsys.readouterr().err
    (photos / "a.zip").write_bytes(b"<html>login")
    assert main(["convert", str(photos / "a.zip")]) == 1
    assert "a.zip is a web page" in capsys.readouterr().err
    assert main(["convert", str(photos)]) == 1
    assert "has no label file of another tool" in capsys.readouterr().err
    (photos / "a.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    assert main(["convert", str(photos)]) == 1
    assert "COCO annotations of an unknown form" in capsys.readouterr().err
    (photos / "labels.csv").write_text("mine")
    assert main(["convert", str(photos)]) == 1
    assert "labels.csv exists; move it away" in capsys.readouterr().err
    assert (photos / "labels.csv").read_text() == "mine"


def paths_and_labels(root):
    with (root / "labels.csv").open(newline="") as stream:
        return {(row["path"], row["label"]) for row in csv.DictReader(stream)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat, dog\nnc: 2\n  x: :\n", r"data\.yaml, line \d is not valid YAML; fix it"),
        ("names: [cat]\n", r"data\.yaml has no name of class 1, which .*labels/1\.txt has"),
        ("names: {1: dog}\n", r"data\.yaml has no name of class 0, which .*labels/0\.txt has"),
    ],
)
def test_names_of_yolo_classes_that_are_missing_are_an_error(photos, text, message):
    write(photos, "YOLO")
    (photos / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        label_conversion.convert(photos)
    (photos / "data.yaml").write_text("[x]")  # another tool's file: the labels are the numbers
    label_conversion.convert(photos)
    assert {label for _, label in paths_and_labels(photos)} == {"0", "1"}


CAPTION = {"image_id": 0, "id": 1, "caption": "a cat"}
PERSON = {"image_id": 0, "category_id": 1}
SEGMENT = {"image_id": 0, "segments_info": [{"category_id": 1}]}


@pytest.mark.parametrize(
    ("name", "annotation", "alone"),
    [
        ("captions_val.json", CAPTION, 0),
        ("x.json", CAPTION, 0),
        ("person_keypoints_val.json", PERSON, 1),
        ("stuff_val.json", PERSON, 1),
        ("x.json", PERSON | {"keypoints": [1, 2, 2]}, 1),
        ("x.json", SEGMENT, 1),
    ],
)
def test_coco_files_of_the_same_photos_without_their_classes_are_left_out(
    photos, name, annotation, alone
):
    content = coco() | {"annotations": [annotation], "categories": [{"id": 1, "name": "person"}]}
    (photos / name).write_text(json.dumps(content))
    if alone:
        label_conversion.convert(photos)
        assert ("images/0.jpg", "person") in paths_and_labels(photos)
        (photos / "labels.csv").unlink()
    else:
        assert "convert" not in " ".join(foreign_formats.remarks(photos, [name], PETS)[0])
        with pytest.raises(ValueError, match="has no label file"):
            label_conversion.convert(photos)
    (photos / "instances_val.json").write_text(json.dumps(coco()))
    lines = label_conversion.convert(photos)
    assert paths_and_labels(photos) == set(PETS.items())
    assert any(line.startswith("  1 file: COCO") and "left out" in line for line in lines)


def voc(name, pet):
    return (
        f"<annotation><filename>{name}</filename><object><name>{pet}</name></object></annotation>"
    )


@pytest.mark.parametrize("folder_of_labels", ["annotations", "Annotations", "labels", ""])
def test_a_file_of_one_photo_means_the_photo_with_its_own_path(folder, folder_of_labels):
    pets = {f"images/{pet}/{n}.jpg": pet for pet in ("cat", "dog") for n in range(3)}
    root = folder(*pets)
    for photo, pet in pets.items():
        path = photo.replace("images", folder_of_labels or "images").replace(".jpg", ".xml")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(voc("images/cat/0.jpg", pet))  # a copied file
    lines = label_conversion.convert(root)
    assert paths_and_labels(root) == set(pets.items())
    assert not any("name no photo" in line for line in lines)


def test_rows_that_name_no_photo_are_counted_and_named(photos):
    write(photos, "CreateML")
    for n in range(4):
        (photos / f"images/{n}.jpg").unlink()
    lines = label_conversion.convert(photos)
    assert "  4 of 8 rows name no photo: 0.jpg, 1.jpg, 2.jpg and 1 more" in lines


def test_two_formats_that_disagree_are_an_error_and_two_that_agree_are_read(photos):
    write(photos, "Pascal VOC")
    write(photos, "YOLO")
    (photos / "labels" / "7.txt").write_text("1 0.5 0.5 0.1 0.2\n")
    lines = label_conversion.convert(photos)
    assert paths_and_labels(photos) == set(PETS.items())
    assert "8 rows" in lines[0]
    (photos / "labels.csv").unlink()
    (photos / "data.yaml").unlink()
    with pytest.raises(
        ValueError, match=r"VOC annotations and YOLO boxes disagree on images/0\.jpg \(cat; 0\)"
    ):
        label_conversion.convert(photos)
    assert not (photos / "labels.csv").exists()


def coco_of(numbers):
    content = coco()
    images = [image for image in content["images"] if image["id"] in numbers]
    notes = [note for note in content["annotations"] if note["image_id"] in numbers]
    return content | {"images": images, "annotations": notes}


def labelers(*pets):
    """Return a Labelbox export of the first photo, with one label of each labeler."""
    answers = [labelbox(pet)["p"]["labels"][0] for pet in pets]
    row = {"data_row": {"external_id": "0.jpg"}, "projects": {"p": {"labels": answers}}}
    return json.dumps([row])


def second(content, pet):
    """Return COCO annotations with another label of the second photo."""
    for note in content["annotations"]:
        note["category_id"] = {"cat": 1, "dog": 2}.get(pet, note["category_id"])
    return content


@pytest.mark.parametrize(
    ("files", "said", "labels"),
    [
        # The second photo is a dog.
        ([coco_of({0, 1}), second(coco_of({1}), "cat")], "images/1.jpg (cat, dog)", {"0": "cat"}),
        ([coco_of({0, 1}), coco_of({1})], "", {"0": "cat", "1": "dog"}),
        ([coco_of({0, 1}), coco_of({1}) | {"annotations": []}], "", {"0": "cat", "1": "dog"}),
        ([labelers("cat", "dog")], "images/0.jpg (cat, dog)", {}),
        ([labelers("cat", "cat")], "", {"0": "cat"}),
    ],
)
def test_a_photo_that_two_files_of_a_format_label_differently_gets_no_label(
    photos, files, said, labels
):
    for n, content in enumerate(files):
        text = content if isinstance(content, str) else json.dumps(content)
        (photos / f"instances_{n}.json").write_text(text)
    lines = label_conversion.convert(photos)
    with (photos / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["path"] for row in rows}) == len(rows)
    column = next(name for name in rows[0] if name != "path")
    found = {row["path"]: row[column] for row in rows if row[column]}
    assert found == {f"images/{n}.jpg": pet for n, pet in labels.items()}
    note = f"1 photo has different labels in several files or rows, and gets none: {said}"
    assert any(note in line for line in lines) == bool(said)


def test_regions_of_vgg_image_annotator_3_are_labels_of_one_photo(photos):
    content = json.loads(json.dumps(VIA3))
    content["attribute"]["1"]["options"] = {"0": "cat", "1": "dog"}
    content["metadata"] |= {
        "x": {"vid": "0", "av": {"1": "0"}},
        "y": {"vid": "1", "av": {"1": "0,1"}},
    }
    (photos / "v.json").write_text(json.dumps(content))
    label_conversion.convert(photos)
    rows = (photos / "labels.csv").read_text().splitlines()
    assert rows[1:3] == ["images/0.jpg,cat", 'images/1.jpg,"[dog, cat]"']


def test_lists_of_pascal_voc_are_no_labels(photos, raw):
    write(photos, "Pascal VOC")
    lists = photos / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, numbers in {"train": range(5), "test": range(5, 8)}.items():
        (lists / f"{split}.txt").write_text("".join(f"{n}\n" for n in numbers))
        text = "".join(f"{n} {-1 if n % 2 else 1:>2}\n" for n in numbers)
        (lists / f"cat_{split}.txt").write_text(text)
    with pytest.raises(ValueError, match=r"(?s)no label was found.*`anklealign convert ") as error:
        add.propose(photos, "mine", None, raw, {})
    assert "cat_test.txt, ImageSets/Main/cat_train.txt: Pascal VOC's lists" in str(error.value)
    label_conversion.convert(photos)
    dataset = add.propose(photos, "mine", None, raw, {}).dataset
    assert dataset.split_lists == ("ImageSets/Main/test.txt", "ImageSets/Main/train.txt")
    entries = layouts.read_inventory(photos, dataset).entries
    assert {entry.file: entry.label for entry in entries} == PETS
