"""A folder with every kind of defect is added, and each defect is reported with its remedy.

The folder belongs to a collector. Its Label Studio exports also have tasks for damaged photos.
"""

import codecs
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zlib
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anklealign.cli import add
from anklealign.ingest.inventory import REASONS, escape_unprintable, remedy
from anklealign.io import decoder_pool, results

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("1_Pronacio", "2_Neutralis", "3_Szupinacio")
OWN, UNLABELED = "FO6K58", "h51b9j"  # a collector with exports, and one without
EMOJI, LONG, LINES = "👣.jpg", "n" * 251 + ".jpg", "new\nline.jpg"


def encoded(seed, kind="JPEG", **options):
    """Return a sharp photo that is no duplicate of another."""
    cells = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    image = Image.fromarray(cells).resize((192, 192), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind, data):
    check = zlib.crc32(kind + data)
    return len(data).to_bytes(4, "big") + kind + data + check.to_bytes(4, "big")


def bomb():
    """Return a PNG of a few kB that declares 60,000 x 60,000 pixels."""
    size = (60_000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + bytes([8, 0, 0, 0, 0]))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


def with_profile():
    """Return a good PNG with a color profile of 200 MB, compressed twice."""
    photo = encoded(900, "PNG")
    profile = zlib.compress(zlib.compress(bytes(200_000_000), 9), 9)
    return photo[:33] + chunk(b"iCCP", b"x\0\0" + profile) + photo[33:]


def with_exif():
    """Return a good JPEG with sixty metadata segments of maximum size."""
    photo = encoded(901)
    segment = b"\xff\xe1\xff\xff" + b"Exif\0\0" + os.urandom(65535 - 8)
    return photo[:2] + 60 * segment + photo[2:]


def broken_markers():
    """Return a JPEG whose frame marker is undefined."""
    return encoded(902).replace(b"\xff\xc0", b"\xff\xc8")


# File name: content, and the reason it is skipped ('' for a good photo).
JPEG, PNG = encoded(1), encoded(2, "PNG")
FILES = {
    **{f"cut_{n}.jpg": (JPEG[: len(JPEG) * n // 100], "truncated") for n in (30, 60, 99)},
    "cut_head.jpg": (JPEG[:40], "truncated"),
    "cut.png": (PNG[: len(PNG) // 2], "truncated"),
    "markers.jpg": (broken_markers(), "unreadable"),
    "bomb.png": (bomb(), "too_large"),
    "zero.jpg": (b"", "zero_bytes"),
    "text.jpg": (b"this is a text\n", "not_an_image"),
    "profile.png": (with_profile(), ""),
    "exif.jpg": (with_exif(), ""),
    "liar.jpg": (encoded(3, "PNG"), ""),
    "avif.jpg": (encoded(4, "AVIF"), ""),
    EMOJI: (encoded(5), ""),
    LONG: (encoded(6), ""),
    LINES: (encoded(7), ""),
}  # fmt: skip
# Annotations without a usable label, other keys of the task, and the reason.
TASKS = {
    "empty": ([{"result": []}], {}, "no_label"),
    "none": ([], {}, "no_label"),
    "cancelled": ([{"was_cancelled": True, "result": []}], {}, "cancelled"),
    "several": ([{"result": [{"value": {"choices": [*CLASSES]}}]}], {}, "several_choices"),
    "unknown": ([{"result": [{"value": {"choices": ["1_Pronatio"]}}]}], {}, "label_unknown"),
    "tie": (
        [{"completed_by": n, "result": [{"value": {"choices": [CLASSES[n]]}}]} for n in (0, 1)],
        {}, "label_tie",
    ),
    "draft": ([], {"drafts": [{"result": []}]}, "draft_only"),
    "model": ([], {"predictions": [{"result": []}]}, "prediction_only"),
}  # fmt: skip


def chosen(label):
    return [{"completed_by": 1, "result": [{"from_name": "boka", "value": {"choices": [label]}}]}]


class Folder:
    """A folder under construction, with the reason under which each defect must be listed."""

    def __init__(self, root):
        self.own = root / OWN
        self.own.mkdir(parents=True)
        self.tasks = []
        self.files, self.task_reasons, self.exports = {}, {}, {}

    def file(self, name, data, reason=""):
        path = self.own / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        if reason:
            self.files[escape_unprintable(f"{OWN}/{name}")] = reason

    def task(self, name, annotations, reason="", **more):
        number = len(self.tasks) + 1
        self.tasks.append(
            {"id": number, "file_upload": f"{number:08x}-{name}", "project": 1, "data": {},
             "annotations": annotations, **more}
        )  # fmt: skip
        # Votes of several annotators belong to the photo, not to the task.
        if reason == "label_tie":
            reason = "file_skipped"
        if reason:
            self.task_reasons[f"{OWN}/project.json#{number}"] = reason


def fill_folder(root, *, enforced=False):
    """Fill a folder with every defect; return {path: reason} for files, tasks and exports.

    `enforced`: file permissions apply to the reader, unlike to root.
    """
    folder = Folder(root)
    for n in range(36):
        name = f"sajat_reszvevo{n // 2:02}_{n % 2}.jpg"
        folder.file(name, encoded(100 + n))
        folder.task(name, chosen(CLASSES[n % 3]))
    for n, (name, (data, reason)) in enumerate(FILES.items()):
        folder.file(name, data, reason)
        # Django drops line ends from names.
        folder.task(name.replace("\n", ""), chosen(CLASSES[n % 3]), reason and "file_skipped")
    add_tasks(folder)
    add_odd_files(folder, root, enforced=enforced)
    newer = [folder.tasks[1] | {"updated_at": "2026"}]
    folder.task_reasons[f"{OWN}/project.json#2"] = "superseded"
    for name, text, reason in (
        ("project.json", json.dumps(folder.tasks), ""),
        ("newer.json", json.dumps(newer), ""),
        ("broken.json", "[{", "broken_export"),
        ("nothing.json", "", "zero_bytes"),
        ("settings.json", '"text"', "not_an_export"),
    ):
        (folder.own / name).write_text(text)
        if reason:
            folder.exports[f"{OWN}/{name}"] = reason
    return folder.files, folder.task_reasons, folder.exports


def add_tasks(folder):
    """Add good photos with defective tasks."""
    for n, (name, (annotations, more, reason)) in enumerate(TASKS.items()):
        folder.file(f"{name}.jpg", encoded(200 + n), reason)
        folder.task(f"{name}.jpg", annotations, reason, **more)
    folder.task("never_was.jpg", chosen(CLASSES[0]), "missing_file")
    for n, place in enumerate(("one", "two")):
        folder.file(f"{place}/same.jpg", encoded(300 + n), "ambiguous")
    folder.task("same.jpg", chosen(CLASSES[0]), "ambiguous")
    folder.file("settle.jpg", encoded(302), "label_conflict")
    for label in CLASSES[:2]:
        folder.task("settle.jpg", chosen(label), "label_conflict")
    folder.task("sajat_reszvevo00_0.jpg", chosen(CLASSES[0]), "duplicate_task")


def add_odd_files(folder, root, *, enforced):
    """Add files that are no photos or cannot be opened."""
    folder.file("folder.jpg/inside.jpg", encoded(303))
    folder.task("inside.jpg", chosen(CLASSES[1]))
    folder.files[f"{OWN}/folder.jpg"] = "not_a_file"
    (folder.own / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(folder.own / "pipe.jpg")
    (folder.own / "circle").symlink_to(root)
    for name in ("gone.jpg", "pipe.jpg", "circle"):
        folder.files[f"{OWN}/{name}"] = "not_a_file"
    folder.task("gone.jpg", chosen(CLASSES[0]), "missing_file")
    folder.file(".DS_Store", b"x", "system_file")
    folder.file("Thumbs.db", b"x", "system_file")
    folder.file(os.fsdecode(b"b\xe1lint.jpg"), encoded(304), "no_task")
    folder.file("notes.txt", b"notes", "other_file")
    for n in range(3):
        folder.file(f"../{UNLABELED}/{n}.jpg", encoded(400 + n))
        folder.files[f"{UNLABELED}/{n}.jpg"] = "no_task"
    folder.file("locked.jpg", encoded(500))
    (folder.own / "locked.jpg").chmod(0)
    if enforced or not os.access(folder.own / "locked.jpg", os.R_OK):
        folder.files[f"{OWN}/locked.jpg"] = "cannot_open"
        folder.task("locked.jpg", chosen(CLASSES[0]), "missing_file")
    else:  # root may read everything
        (folder.own / "locked.jpg").unlink()


@pytest.fixture
def project(tmp_path):
    """Return a clone with this interpreter and DVC in its .venv, a home, and a shell runner."""
    folder, home = tmp_path / "a clone", tmp_path / "home"
    home.mkdir()
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, listed.split("\0")):
        target = folder / name
        if (ROOT / name).exists() and name.split("/")[0] not in {"metrics", "plots"}:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(text.replace("epochs: 60", "epochs: 2"), encoding="utf-8")
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True)
    for tool in ("python", "dvc"):
        (tools / tool).write_text(f'#!/bin/sh\nexec "{Path(sys.executable).parent / tool}" "$@"\n')
        (tools / tool).chmod(0o755)
    (folder / ".venv" / "repro").touch()
    environment = os.environ | {
        "HOME": str(home), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@example.org",
    }  # fmt: skip

    def run(line):
        completed = subprocess.run(
            ["bash", "-c", line], cwd=folder, env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert completed.returncode == 0, f"{line}\n{completed.stdout}"
        return completed.stdout

    run("git init --quiet && git add --all && git commit --quiet -m all")
    return folder, home, run


def check_report(output, expected_items):
    """Check that each item is listed below its reason, with meaning and remedy."""
    lines = output.splitlines()
    for path, reason in expected_items.items():
        (head,) = [n for n, line in enumerate(lines) if line.startswith(f"  {reason}: ")]
        below = list(takewhile(lambda line: line.startswith("    "), lines[head + 1 :]))
        text = " ".join(" ".join([lines[head], *below]).split())
        meaning = REASONS[reason].partition(": ")[0]
        assert f". {meaning[0].upper()}{meaning[1:]}. remedy: {remedy(reason)} " in text
        items = {line.strip().split("   ")[0] for line in below if line.startswith("      ")}
        assert escape_unprintable(path) in items, f"{path!r} is not below {reason}:\n{output}"


def test_each_defect_is_reported_with_its_reason_and_remedy(nobody, monkeypatch, capsys):
    expected_items = fill_folder(nobody.folder / "photos", enforced=True)
    shutil.copyfile(ROOT / "params.yaml", nobody.folder / "params.yaml")
    monkeypatch.chdir(nobody.folder)
    for codec in ("utf-8-sig", "unicode_escape"):  # nothing can be imported as `nobody`
        codecs.lookup(codec)
    decoder_pool.shared().start(os.cpu_count() or 1)  # nor can a process be started
    with nobody:
        assert add.add_folder(Path("photos"), "own", dry_run=True, verbose=True) == 0
    output = capsys.readouterr().out
    assert len({reason for items in expected_items for reason in items.values()}) >= 22
    for items in expected_items:
        check_report(output, items)
    listed = [line for line in output.splitlines() if line.startswith("      " + OWN)]
    # Three more are by the collector without exports.
    assert len(listed) + 3 == sum(map(len, expected_items))
    hint = "'1_Pronatio' is not a class; the closest class is 'pronation'; found once and skipped"
    assert hint in " ".join(output.split())
    for name in ("gone.jpg", "pipe.jpg", "circle", ".DS_Store", "locked.jpg"):
        assert f"{OWN}/{name}" in output.split("not copied ")[1].split("renamed ")[0]
    assert rf"{OWN}/b\xe1lint.jpg" in output.split("renamed ")[1].split("config ")[0]


@pytest.mark.slow
def test_a_folder_with_every_defect_is_added_with_the_commands_of_the_readme(project):
    folder, home, run = project
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    own = readme.split("## Your own photos")[1].split("```")[1]
    lines = [line[2:].split("   #")[0] for line in own.splitlines() if line.startswith("$ ")]
    assert [line.split()[0] for line in lines] == ["make", "make", "git", "dvc"]
    expected_items = fill_folder(home / "photos" / "ankles")
    before = {path: path.lstat().st_mtime_ns for path in home.rglob("*")}
    assert "nothing was written" in run(lines[0])
    assert run("git status --short --ignored=no") == ""
    output = run(f"{lines[1]} ALL=1")
    for items in expected_items:
        check_report(output, items)
    assert {path: path.lstat().st_mtime_ns for path in home.rglob("*") if path in before} == before
    run(lines[2])
    assert run("git status --short") == ""
    run(lines[3])

    # Prepare reports the same.
    with (folder / "data/prepared/skipped.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all(row["remedy"] for row in rows)
    ignored = ("gone.jpg", "pipe.jpg", "circle", ".DS_Store", "Thumbs.db", "locked.jpg")
    for item, items in zip(("file", "task", "export"), expected_items, strict=True):
        expected = {path: reason for path, reason in items.items() if path[7:] not in ignored}
        actual = {row["path"]: row["reason"] for row in rows if row["item"] == item}
        assert actual == {escape_unprintable(path): reason for path, reason in expected.items()}
    metrics = results.read_details(folder / "metrics/details/prepare.json")
    good = [name for name, (_, reason) in FILES.items() if not reason]
    assert metrics["photos"] == 36 + len(good) + 1  # and the one in folder.jpg/
    assert list(metrics["classes"]) == ["pronation", "neutral", "supination"]
    assert len(list((folder / "plots/prepare").glob("class_*.png"))) == 3
