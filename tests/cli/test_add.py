"""anklealign add: the report agrees with prepare, and no state is half written."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anklealign.cli import add
from anklealign.cli.main import main
from anklealign.config import params
from anklealign.config.params import Dataset
from anklealign.ingest import inventory
from anklealign.io import results
from stages import prepare

ROOT = Path(__file__).resolve().parents[2]


def photo(colour="teal", kind="JPEG"):
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(stream, kind)
    return stream.getvalue()


def fill(folder, contents):
    for path, data in contents.items():
        target = folder / (os.fsdecode(path) if isinstance(path, bytes) else path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)


def tree(folder):
    """All paths below a folder, links not followed, with content, mode and time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[path] = (facts.st_mode, facts.st_mtime_ns, data)
    return found


def exported(*tasks):
    return json.dumps(
        [
            {"id": n, "file_upload": f"0000000{n}-{name}",
             "annotations": [{"result": [{"value": {"choices": [label]}}]}] if label else []}
            for n, (name, label) in enumerate(tasks)
        ]
    )  # fmt: skip


FOLDERS = {f"{label}/p{n // 2}_{n}.jpg": photo() for label in ("good", "bad") for n in range(6)}
TABLE = {f"{n}.jpg": photo() for n in range(8)} | {
    "labels.csv": "path;label\n" + "".join(f"{n}.jpg;{'uv'[n % 2]}\n" for n in range(8))
}
STUDIO = {f"FO6K58/reszvevo{n:02}_{m}.jpg": photo() for n in range(3) for m in range(3)} | {
    "FO6K58/project.json": exported(
        *((f"reszvevo{n:02}_{m}.jpg", ["1_Pronacio", "2_Neutralis"][m % 2])
          for n in range(3) for m in range(3))
    ),
}  # fmt: skip
KINDS = {"folders": FOLDERS, "table": TABLE, "label_studio": STUDIO}


@pytest.fixture
def project(tmp_path, dvc_calls):
    """Return an empty folder of photos beside an empty project, and the calls of DVC."""
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos", dvc_calls


def joined(output):
    """The output without the line breaks of wrapped sentences."""
    return " ".join(output.split())


def anklealign_add(words):
    return main(["add", *words])


def run_prepare(name):
    path = Path("params.yaml")
    text = path.read_text(encoding="utf-8").replace("dataset: synthetic ", f"dataset: {name} ", 1)
    path.write_text(text, encoding="utf-8")
    prepare.main()
    return pd.read_csv(prepare.SKIPPED, keep_default_na=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_writes_nothing_anywhere(project, tmp_path, kind, capsys):
    folder, called = project
    fill(folder, KINDS[kind])
    before = tree(tmp_path)
    assert anklealign_add([str(folder), "mine", "--dry-run"]) == 0
    assert tree(tmp_path) == before
    assert not called
    said = capsys.readouterr().out
    assert f"layout    {kind}" in said
    assert "nothing was written" in said
    assert "  mine:\n" in said


@pytest.mark.parametrize("kind", KINDS)
def test_photos_are_copied_described_and_versioned_and_the_folder_stays(project, kind, capsys):
    folder, called = project
    fill(folder, KINDS[kind])
    before, text = tree(folder), Path("params.yaml").read_text(encoding="utf-8")
    assert anklealign_add([str(folder), "mine"]) == 0
    assert tree(folder) == before
    copied = Path("data/raw/mine")
    assert {p.relative_to(copied).as_posix(): p.read_bytes() for p in copied.rglob("*.*")} == {
        path: data.encode() if isinstance(data, str) else data for path, data in KINDS[kind].items()
    }
    assert [path.name for path in Path("data/raw").iterdir()] == ["mine"]
    assert called[0][-2:] == ["add", "data/raw/mine"]
    raw = params.read()
    assert params.check(raw) == []
    dataset = params.section(raw, "datasets.mine", Dataset)
    assert dataset.layout == kind
    after = Path("params.yaml").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line not in after.splitlines()] == []
    printed = capsys.readouterr().out
    model = "grid_pool_cnn" if kind == "label_studio" else "lite0_probe"
    assert f"dvc exp run -S dataset=mine -S model={model}\n" in printed
    assert f"# model: {model} suits this set first" in after
    assert "if the network reaches timm's hub: dinov2_frozen" in printed
    assert max(map(len, printed.partition("\nnext ")[2].splitlines())) <= 80


def test_the_block_has_what_was_recognised(project):
    folder, _ = project
    fill(folder, STUDIO)
    assert anklealign_add([str(folder), "mine"]) == 0
    dataset = params.section(params.read(), "datasets.mine", Dataset)
    ankle = params.section(params.read(), "datasets.ankle", Dataset)
    assert dataset.classes == {name: ankle.classes[name] for name in ("pronation", "neutral")}
    assert (dataset.subject_pattern, dataset.ordered) == (ankle.subject_pattern, True)


FAULTS = {
    "label_studio": STUDIO | {
        "FO6K58/empty.jpg": b"",
        "FO6K58/text.jpg": "hello",
        "FO6K58/spare.jpg": photo(),
        "FO6K58/more.json": exported(
            ("empty.jpg", "1_Pronacio"), ("gone.jpg", "2_Neutralis"), ("text.jpg", "Pronatio"),
            ("reszvevo00_0.jpg", "2_Neutralis"),
        ),
        "h51b9j/x.json": "[{",
        "h51b9j/a.jpg": photo(),
    },
    "table": TABLE | {"9.jpg": photo(), "3.jpg": photo()[:300], "notes.txt": "n"},
    "folders": FOLDERS | {
        "top.jpg": photo(), "baad/1.jpg": photo(), "good/cut.png": photo(kind="PNG")[:80],
        b"good/\xe9\n.jpg": photo(), "good/l\u00e1b.jpg": photo(), "good/la\u0301b.jpg": photo(),
        "good/.DS_Store": "x", "bad/x.jpg/inside.jpg": photo(),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_the_report_is_what_prepare_says_later(project, kind, capsys):
    folder, _ = project
    fill(folder, FAULTS[kind])
    report = add.examine(folder, "mine", None, params.read())
    assert anklealign_add([str(folder), "mine"]) == 0
    said = capsys.readouterr().out
    skipped = run_prepare("mine")
    expected = [row for row in inventory.skip_rows(report.skips) if row[2] != "system_file"]
    assert list(skipped.itertuples(index=False, name=None)) == expected
    assert len(expected) >= 3
    metrics = results.read_details(prepare.METRICS)
    assert metrics["photos"] == len(report.used)
    assert metrics["classes"] == report.counts
    assert metrics["subjects"] == len({e.subject for e in report.used} - {""})
    for path, _, reason, detail, remedy in expected:
        assert joined(f"{path} {detail}") in joined(said)
        assert f"  {reason}: " in said
        assert f"remedy: {remedy} " in joined(said)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("train", "val"), "val becomes the test split; validation photos are taken from train"),
        (("train", "test"), "6 test validation photos are taken from train"),
        (("train", "val", "test"), "6 train, 6 val, 6 test subjects"),
    ],
)
def test_the_use_of_predefined_splits_is_stated(project, names, sentence, capsys):
    folder, _ = project
    fill(folder, {f"{s}/{c}/{n}.jpg": photo() for s in names for c in "ab" for n in range(3)})
    assert anklealign_add([str(folder), "mine", "--dry-run"]) == 0
    assert sentence in joined(capsys.readouterr().out)


def test_a_label_that_fits_no_class_is_listed_with_the_nearest(project, capsys):
    folder, _ = project
    fill(folder, FAULTS["label_studio"])
    assert anklealign_add([str(folder), "mine", "--dry-run"]) == 0
    said = capsys.readouterr().out
    hint = "'Pronatio' is not a class; the closest class is 'pronation'"
    assert f"no class: {hint}; found once and" in joined(said)
    assert "# 'Pronatio', once, matches no class" in said


def test_votes_are_counted_and_give_their_photo_a_label(project, capsys):
    folder, _ = project
    voted = exported(("reszvevo00_0.jpg", "2_Neutralis"), ("extra.jpg", "1_Pronacio"))
    names = "FO6K58\\reszvevo00_0.jpg\nFO6K58\\extra.jpg\nFO6K58\\gone.jpg\n"
    fill(folder, STUDIO | {"FO6K58/extra.jpg": photo()})
    fill(folder, {"consensus/photos.txt": names, "consensus/anna.json": voted})
    assert anklealign_add([str(folder), "mine", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "votes     2 by 1 annotator on 2 photos" in said
    assert "photos    10 can be read" in said
    assert "skipped   1 name" in said


def test_no_more_than_some_items_of_a_reason_are_named_unless_all_are_wanted(project, capsys):
    folder, _ = project
    fill(folder, FOLDERS | {f"x{n:02}.jpg": photo() for n in range(13)})
    anklealign_add([str(folder), "mine", "--dry-run"])
    said = capsys.readouterr().out
    assert "x09.jpg\n" in said
    assert "x10.jpg" not in said
    assert "… and 3 more" in said
    anklealign_add([str(folder), "mine", "--dry-run", "--verbose"])
    assert "x12.jpg\n" in capsys.readouterr().out


def test_the_same_again_changes_nothing_and_another_folder_is_refused(project, capsys):
    folder, called = project
    fill(folder, FOLDERS)
    assert anklealign_add([str(folder), "mine"]) == 0
    before = tree(Path())
    assert anklealign_add([str(folder), "mine"]) == 0
    assert tree(Path()) == before
    assert len(called) == 2
    fill(folder, {"good/new.jpg": photo(), "bad/p0_1.jpg": photo("red")})
    assert anklealign_add([str(folder), "mine"]) == 1
    assert tree(Path()) == before
    said = joined(capsys.readouterr().err)
    assert "differs from the folder in 2 files: good/new.jpg, bad/p0_1.jpg; choose another" in said


def test_photos_that_lie_in_place_are_described_where_they_are(project):
    _, called = project
    fill(Path("data/raw/mine"), FOLDERS)
    before = tree(Path("data"))
    assert anklealign_add(["data/raw/mine", "mine"]) == 0
    assert tree(Path("data")) == before
    assert "mine" in params.read()["datasets"]
    assert called


@pytest.mark.usefixtures("project")
def test_in_place_what_dvc_cannot_take_is_named(capsys):
    fill(Path("data/raw/mine"), FOLDERS | {b"good/\xff.jpg": photo()})
    Path("data/raw/mine/good/gone.jpg").symlink_to("nowhere")
    before = tree(Path())
    assert anklealign_add(["data/raw/mine", "mine"]) == 1
    said = joined(capsys.readouterr().err)
    assert r"cannot version: good/gone.jpg, good/\xff.jpg; remove" in said
    assert tree(Path()) == before


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("where", ["data/raw", ".", "data/raw/mine/good"])
def test_a_folder_that_the_copy_would_lie_in_or_above_is_refused(where, capsys):
    fill(Path("data/raw/mine"), FOLDERS)
    assert anklealign_add([where, "mine"]) == 1
    assert "overlap; give" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_a_folder_of_the_repository_with_spaces_quotes_and_links_is_copied(tmp_path):
    folder = Path("my photos; '$x'")
    fill(folder, FOLDERS)
    (tmp_path / "elsewhere.jpg").write_bytes(photo("red"))
    (folder / "good" / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (folder / "good" / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(folder / "good" / "pipe.jpg")
    assert anklealign_add([str(folder), "mine"]) == 0
    copied = Path("data/raw/mine/good/link.jpg")
    assert copied.read_bytes() == photo("red")
    assert not copied.is_symlink()
    assert not os.path.lexists("data/raw/mine/good/gone.jpg")
    assert not os.path.lexists("data/raw/mine/good/pipe.jpg")


@pytest.mark.parametrize("name", ["", "a b", "a.b", "../x", "ő", "-x", "1a", "no", "a/b", "x" * 80])
def test_a_name_that_yaml_or_dvc_would_misread_is_refused(project, tmp_path, name, capsys):
    folder, _ = project
    fill(folder, FOLDERS)
    before = tree(tmp_path)
    assert anklealign_add([str(folder), "--", name] if name == "-x" else [str(folder), name]) == 1
    assert "choose another" in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_the_phantoms_name_and_a_missing_folder_are_refused(project, capsys):
    folder, _ = project
    assert anklealign_add([str(folder), "synthetic"]) == 1
    assert "is reserved for the synthetic set; choose another" in capsys.readouterr().err
    assert anklealign_add(["nowhere", "mine"]) == 1
    assert "DATA = 'nowhere' is not a folder, a zip or tar file" in capsys.readouterr().err


def test_a_block_that_is_there_is_used_as_it_is(project, capsys):
    folder, _ = project
    fill(folder, STUDIO | {"FO6K58/s.jpg": photo(), "FO6K58/s.json": exported(
        ("s.jpg", "3_Szupinacio"))})  # fmt: skip
    before = Path("params.yaml").read_bytes()
    assert anklealign_add([str(folder), "ankle", "--layout", "folders"]) == 1
    assert "datasets.ankle in params.yaml has layout label_studio" in capsys.readouterr().err
    assert anklealign_add([str(folder), "ankle"]) == 0
    said = capsys.readouterr().out
    assert "params.yaml already has this dataset" in said
    assert "pronation: 6 photos   labels: '1_Pronacio' (6)" in said
    assert Path("params.yaml").read_bytes() == before
    assert Path("data/raw/ankle/FO6K58/s.jpg").is_file()


def test_a_class_of_which_no_photo_is_left_stops_it_before_anything_is_written(project, capsys):
    folder, _ = project
    fill(folder, STUDIO)  # no supination, which datasets.ankle names
    before = tree(Path())
    assert anklealign_add([str(folder), "ankle"]) == 1
    assert "no photos of supination are left" in capsys.readouterr().err
    assert tree(Path()) == before


def test_a_copy_that_fails_leaves_nothing(project, monkeypatch, capsys):
    folder, called = project
    fill(folder, FOLDERS)
    before = tree(Path())
    real, copies = shutil.copyfile, []

    def full(source, target):
        copies.append(target)
        if len(copies) > 3:
            raise OSError(28, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(add.shutil, "copyfile", full)
    assert anklealign_add([str(folder), "mine"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    Path("data/raw").rmdir()
    Path("data").rmdir()
    assert {p: v[2] for p, v in tree(Path()).items()} == {p: v[2] for p, v in before.items()}
    assert not called


def test_when_dvc_fails_it_says_what_is_done_and_what_is_left_to_do(project, monkeypatch, capsys):
    folder, _ = project
    fill(folder, FOLDERS)
    monkeypatch.setattr(
        add.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 255)
    )
    assert anklealign_add([str(folder), "mine"]) == 1
    assert "then run: dvc add data/raw/mine" in capsys.readouterr().err


def test_what_may_not_be_opened_ends_alike_in_the_report_and_in_prepare(
    project, nobody, monkeypatch, capsys
):
    folder = nobody.folder / "photos"
    shutil.copytree(project[0].parent / "project", nobody.folder / "project")
    (nobody.folder / "project").chmod(0o777)
    (nobody.folder / "project/params.yaml").chmod(0o666)
    monkeypatch.chdir(nobody.folder / "project")
    fill(folder, STUDIO | {"h51b9j/shut/1.jpg": photo(), "h51b9j/listed/2.jpg": photo()})
    (folder / "FO6K58/reszvevo02_2.jpg").chmod(0)
    (folder / "h51b9j/shut").chmod(0o311)  # what is in it cannot be listed
    (folder / "h51b9j/listed").chmod(0o644)  # nor entered
    with nobody:
        report = add.examine(folder, "mine", None, params.read())
        assert anklealign_add([str(folder), "mine"]) == 0
        said = capsys.readouterr().out
        skipped = run_prepare("mine")
    found = inventory.skip_rows(report.skips)
    assert {path: (item, reason) for path, item, reason, *_ in found} == {
        "FO6K58/reszvevo02_2.jpg": ("file", "cannot_open"),
        "h51b9j/shut": ("file", "cannot_open"),
        "h51b9j/listed/2.jpg": ("file", "cannot_open"),
        "FO6K58/project.json#8": ("task", "missing_file"),
    }
    left = [row for row in found if row[0] not in report.not_copied]
    assert list(skipped.itertuples(index=False, name=None)) == left
    assert "  cannot_open: 3 files. " in said
    assert f"not copied {len(report.not_copied)} of these" in said
    assert "          FO6K58/reszvevo02_2.jpg, h51b9j/listed/2.jpg, h51b9j/shut\n" in said
    assert not Path("data/raw/mine/FO6K58/reszvevo02_2.jpg").exists()


def test_a_table_in_an_old_encoding_is_read_as_what_it_is(project):
    folder, _ = project
    rows = "kép;címke\n" + "".join(f"őz{n}.jpg;{['rőt', 'kék'][n % 2]}\n" for n in range(8))
    fill(folder, {f"őz{n}.jpg": photo() for n in range(8)} | {"l.csv": rows.encode("cp1250")})
    assert anklealign_add([str(folder), "mine"]) == 0
    dataset = params.section(params.read(), "datasets.mine", Dataset)
    assert (dataset.encoding, list(dataset.classes)) == ("cp1250", ["kék", "rőt"])


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_make_passes_a_folder_of_any_name_on(tmp_path, given):
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("requirements.txt", "requirements.lock", ".venv/constraints.txt", ".venv/repro"):
        (tmp_path / name).touch()
    (tools / "python").write_text("#!/bin/sh\nprintf '%s|' \"$@\"\n")
    (tools / "python").chmod(0o755)
    folder = "-an odd 'one' for \"$name\" & $(others) é # 1"
    words = ["make", "-s", "add", "NAME=mine", "DRY=1"]
    said = subprocess.check_output(
        [*words, f"DATA={folder}"] if given == "argument" else words,
        cwd=tmp_path, text=True, env=os.environ | {"DATA": folder},
    )  # fmt: skip
    assert said == f"-m|anklealign|add|--dry-run|--|{folder}|mine|"


def test_every_line_fits_the_terminal_whatever_the_names(project, capsys):
    folder, _ = project
    long = "Kérdéses felvétel, ismételt " + "x" * 90
    fill(
        folder, {f"{label}/{long} {n}.jpg": photo() for label in ("good", "b" * 99) for n in "123"}
    )
    fill(folder, {f"{long}.jpg": photo(), f"good/{long}.jpg": photo()[:200], f"{long}.txt": "x"})
    config = [f"--set=subject_pattern={'(?P<subject>' + 'y' * 90 + ')'}"]
    assert anklealign_add([str(folder), "mine", "--verbose", "--dry-run", *config]) == 0
    printed = capsys.readouterr().out
    assert "no_class_folder" in printed
    # A command cannot be copied from two lines.
    lines = [line for line in printed.splitlines() if not line.strip().startswith("`anklealign")]
    assert max(map(len, lines)) <= 80
    assert len(printed.splitlines()) - len(lines) <= 1
    assert "x" * 90 in printed.replace("\n", "").replace(" ", "")  # no name is cut short


def test_the_copy_of_a_killed_run_is_removed_and_one_in_progress_is_not(tmp_path):
    raw = tmp_path / "raw"
    code = (
        "import sys, time; from pathlib import Path; from anklealign.cli import add;"
        "print('copying', flush=True);"
        "add.tqdm.update = lambda *_: time.sleep(60);"
        "add.copy({'a.txt': Path(__file__)}, Path(sys.argv[1]))"
    )
    script = tmp_path / "copying.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, script, raw / "own"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"copying\n"
    end = time.monotonic() + 20
    while not list(raw.glob(".own.*/a.txt")) and time.monotonic() < end:
        time.sleep(0.05)
    (raw / ".gitkeep.d").mkdir()
    assert add.remove_leftovers(raw) == []
    process.kill()
    process.wait()
    (half,) = raw.glob(".own.*")
    assert add.remove_leftovers(raw) == [half.name]
    assert [path.name for path in raw.iterdir()] == [".gitkeep.d"]


@pytest.mark.usefixtures("project")
def test_metadata_are_counted_and_removed_from_the_copy_alone(tmp_path, capsys):
    exif = Image.Exif()
    exif.get_ifd(0x8825)[2] = (47.0, 29.0, 33.0)
    exif[0x013B] = "Anna"
    for number in range(12):
        path = tmp_path / "mine" / ("ant", "bee")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (80, 80, 3), np.uint8)
        Image.fromarray(noise).save(path, exif=exif if number < 3 else b"")
    before = tree(tmp_path / "mine")
    add_mine = ["add", str(tmp_path / "mine"), "mine"]
    assert main([*add_mine, "--dry-run"]) == 0
    output = joined(capsys.readouterr().out)
    assert "3 photos have a position (GPS), 3 the name of a person" in output
    assert "--strip-metadata" in output
    assert main([*add_mine, "--strip-metadata"]) == 0
    assert main([*add_mine, "--strip-metadata"]) == 0  # the same again
    assert tree(tmp_path / "mine") == before
    copies = sorted(Path("data/raw/mine").rglob("*.jpg"))
    assert len(copies) == 12
    assert not any(b"Anna" in path.read_bytes() for path in copies)
    assert main(["add", "data/raw/mine", "mine", "--strip-metadata"]) == 1
    assert "changes copies only" in joined(capsys.readouterr().err)


def test_a_command_stays_on_one_line_that_can_be_copied():
    command = f'python -c "import pandas; {"pandas.read_csv(1); " * 9}"'
    text = f"join the tables, in the folder of the dataset: {command}; then pass --set csv=j.csv"
    lines = add._wrapped("        - ", text)
    assert f"          {command};" in lines
    assert max(len(line) for line in lines if command not in line) <= 80
    assert " ".join(line.strip() for line in lines) == f"- {text}"
