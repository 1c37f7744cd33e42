"""The inputs of ../shared/cases end as their expected.txt says.

Each case goes through `anklealign add` and the stages in its own project. Other tests cover the
layouts (tests/cli/test_layout_kinds.py), the Label Studio exports
(tests/ingest/test_label_studio_kinds.py) and the service (test_batcher.py for damaged HEIC files,
test_page.py for a subpath and test_uploads.py for extra fields, all in tests/service).
"""

import json
import os
import re
import runpy
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
from anklealign.config import params, paths
from anklealign.io import pixel_store
from anklealign.metrics import bootstrap
from benchmarks import families
from stages import clean, prepare, split

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT.parent / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Enter an empty project; `dvc add` does nothing."""
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    monkeypatch.chdir(folder)

    def run(command, **_):
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(add.subprocess, "run", run)
    return folder


@pytest.fixture
def added(project, tmp_path, monkeypatch, capsys):
    """Return a function that writes a case, adds it and returns the report and its folder."""

    def go(case, write=None):
        folder = tmp_path / case
        folder.mkdir()
        if write:
            write(folder)
        else:
            monkeypatch.setattr(sys, "argv", ["make.py", str(folder)])
            runpy.run_path(str(CASES / case / "make.py"))
        capsys.readouterr()
        assert main(["add", str(folder), "mine"]) == 0
        text = capsys.readouterr().out
        raw = params.read()
        (project / "params.yaml").write_text(json.dumps(raw | {"dataset": "mine"}))
        return " ".join(text.split()), folder

    return go


def run_stages():
    """Run prepare, clean and split; return the removed photos and the photos of each split."""
    prepare.main()
    clean.main()
    split.main()
    removed = pixel_store.read_table(paths.CLEAN / "removed.csv")
    return removed, pixel_store.read_table(paths.SPLIT / "photos.csv")


def assert_preview(report, removed, dealt, photos):
    """Check that `add` announced what clean and split did."""
    assert f"clean {photos - len(removed)} of {photos} photos will be kept" in report
    sizes = dealt.split.value_counts()
    expected = ", ".join(f"{name} {sizes[name]}" for name in ("train", "val", "test"))
    assert f"split {expected} photos" in report


@pytest.mark.slow
def test_different_photos_of_a_fixed_camera_stay(added):
    report, _ = added("fixed_camera")
    removed, dealt = run_stages()
    assert removed.empty
    assert dealt.label.value_counts().to_dict() == {"good": 20, "scratch": 20}
    assert_preview(report, removed, dealt, 40)


@pytest.mark.slow
def test_different_products_on_white_stay_and_can_be_split(added):
    report, _ = added("white_background")
    removed, dealt = run_stages()
    assert removed.empty
    assert dealt.label.value_counts().to_dict() == {"ball": 20, "box": 20, "pen": 20}
    assert_preview(report, removed, dealt, 60)


def test_small_pictures_are_judged_against_their_own_set(added):
    report, _ = added("small_pictures")
    removed, dealt = run_stages()
    assert len(dealt) == 45 - len(removed)
    assert "too_small" not in set(removed.reason)
    assert_preview(report, removed, dealt, 45)


def test_12_bit_photos_are_scaled_by_their_own_range(added):
    report, folder = added("twelve_bit_png")
    removed, dealt = run_stages()
    assert removed.empty
    assert_preview(report, removed, dealt, 40)
    notes = pd.read_csv(prepare.NOTES)
    assert len(notes) == 40
    assert notes.note.str.startswith("scaled as ").all()
    table = pixel_store.read_table(paths.PREPARED / "photos.csv")
    store = pixel_store.open_store()
    for photo in table.itertuples():
        with Image.open(folder / photo.path) as stored:
            levels = np.asarray(stored, float) / 16  # 12 bits to 8
        box = store[photo.row, photo.top : photo.bottom, photo.left : photo.right]
        assert abs(box.mean() - levels.mean()) < 3


def test_damaged_pngs_are_skipped_as_pillow_refuses_them(added):
    report, _ = added("png_damaged")
    assert "photos 20 can be read and have a label, of 40 files" in report
    removed, dealt = run_stages()
    assert removed.empty
    assert dealt.path.str.contains("good_").all()
    skipped = pd.read_csv(prepare.SKIPPED)
    assert len(skipped) == 20
    assert skipped.path.str.contains("damaged_").all()
    assert set(skipped.reason) <= {"unreadable", "truncated"}


def test_a_heic_that_crashes_its_decoder_is_skipped_and_the_rest_goes_on(added):
    def write(folder):
        runpy.run_path(str(CASES / "cases.py"))["small_pictures"](folder)
        for path in CASES.joinpath("heic_damaged").glob("*.heic"):
            shutil.copyfile(path, folder / "1" / path.name)

    report, _ = added("heic_damaged", write)
    assert "decoder_crashed" in report
    removed, dealt = run_stages()
    assert len(dealt) == 45 - len(removed)
    skipped = pd.read_csv(prepare.SKIPPED)
    assert dict(zip(skipped.path, skipped.reason, strict=True)) == {
        "1/depth.heic": "decoder_crashed",
        "1/xmp.heic": "decoder_crashed",
    }


def test_intervals_of_many_classes_grow_with_the_classes():
    seconds = {}
    for classes in (100, 200):
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(classes), 5)
        probabilities = rng.dirichlet(np.full(classes, 0.2), len(labels))
        groups = [str(n) for n in range(len(labels))]
        start = time.process_time()
        bootstrap.scores_with_ci(
            labels, probabilities, groups, np.full(classes, 1 / classes),
            resamples=20, confidence=0.95, seed=0,
        )  # fmt: skip
        seconds[classes] = time.process_time() - start
    # Cubic growth is a factor of 8, quadratic growth one of 4.
    assert seconds[200] < 6 * seconds[100]
    assert 100 * seconds[200] < 120  # of 2,000 resamples; before, 536 s


def unpack_source_archive(folder: Path) -> None:
    """Unpack the committed files without git's."""
    folder.mkdir()
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", "HEAD"], check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "x", "-C", folder], input=archive, check=True)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["check"], "params.yaml"),
        (["summary"], "balanced accuracy"),
        (["report"], "run `dvc pull` first"),
        (["run"], "run `git init`"),
        (["diff", "HEAD", "workspace"], "git"),
        (["restore"], "git"),
    ],
)
def test_a_source_archive_without_git_works_or_says_what_is_missing(tmp_path, words, printed):
    unpack_source_archive(tmp_path / "ml")
    done = subprocess.run(
        [sys.executable, "-m", "anklealign", *words],
        cwd=tmp_path / "ml", capture_output=True, text=True, check=False,
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path)},
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert printed in output
    assert "Traceback" not in output
    assert (done.returncode == 0) == (words[0] in ("check", "summary")), output


def test_a_git_worktree_is_compared_and_restored(tmp_path):
    unpack_source_archive(tmp_path / "ml")
    git = ["git", "-c", "user.email=a@example.com", "-c", "user.name=a"]
    for words in (
        ["init", "-q", "."],
        ["add", "-A"],
        ["commit", "-qm", "all"],
        ["worktree", "add", "-q", "../tree"],
    ):
        subprocess.run([*git, *words], cwd=tmp_path / "ml", check=True)
    (tmp_path / "tree/metrics/scores.json").unlink()
    for words, status in ((["restore"], 1), (["diff", "HEAD", "workspace"], 0)):
        done = subprocess.run(
            [sys.executable, "-m", "anklealign", *words],
            cwd=tmp_path / "tree", capture_output=True, text=True, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        assert "Traceback" not in output
        assert done.returncode == status, output
    # No output is cached or pushed, but git's files are restored.
    assert (tmp_path / "tree/metrics/scores.json").is_file()


def test_a_project_below_another_repository_is_compared(tmp_path):
    git = ["git", "-c", "user.email=a@example.com", "-c", "user.name=a"]
    unpack_source_archive(tmp_path / "ml")
    for words in (["init", "-q", "."], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    compared = subprocess.run(
        [sys.executable, "-m", "anklealign", "diff", "HEAD", "workspace"],
        cwd=tmp_path / "ml", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stderr
    assert "has no" not in compared.stdout + compared.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    re.findall(r'"(\w+_\w+)"', (CASES / "architectures" / "run.py").read_text())
    if CASES.is_dir()
    else [],
)
def test_every_network_of_the_case_is_trained_and_explained(architecture):
    outcome = families.run(architecture)
    if outcome["build"] == "ok":
        assert {step: r for step, r in outcome.items() if not r.startswith("ok")} == {}
    else:
        assert "change" in outcome["build"]  # refused before training, with the remedy
