"""anklealign/cli/label_conversion.py: labels of other tools become a table that `add` reads."""

import json
from pathlib import Path

import pandas as pd
import pytest

from anklealign.cli import add, label_conversion
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
    with pytest.raises(ValueError, match=f"`anklealign convert {photos}`"):
        add.propose(photos, "mine", None, raw, {})
    assert main(["convert", str(photos)]) == 0
    assert "8 rows with the columns path" in capsys.readouterr().out
    proposal = add.propose(photos, "mine", None, raw, {})
    entries = layouts.read_inventory(photos, proposal.dataset).entries
    assert {entry.file: entry.label for entry in entries} == PETS
    assert not any("anklealign convert" in remark for remark in proposal.reading.remarks)


def test_a_photo_whose_regions_have_several_labels_gets_all_of_them(photos):
    write(photos, "COCO")
    content = coco()
    content["annotations"].append({"image_id": 0, "category_id": 2})
    (photos / "a.json").write_text(json.dumps(content))
    label_conversion.convert(photos)
    assert '"[cat, dog]",images/0.jpg' in (photos / "labels.csv").read_text() or (
        'images/0.jpg,"[cat, dog]"' in (photos / "labels.csv").read_text()
    )


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


def test_what_cannot_be_converted_is_said(photos, capsys):
    assert main(["convert", str(photos)]) == 1
    assert "has no label file of another tool" in capsys.readouterr().err
    (photos / "a.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    assert main(["convert", str(photos)]) == 1
    assert "COCO annotations of an unknown form" in capsys.readouterr().err
    (photos / "labels.csv").write_text("mine")
    assert main(["convert", str(photos)]) == 1
    assert "labels.csv exists; move it away" in capsys.readouterr().err
    assert (photos / "labels.csv").read_text() == "mine"
