"""anklealign add with an archive or an address: the same dataset as from the folder."""

import functools
import http.server
import io
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from anklealign.cli import download
from anklealign.cli.main import main
from anklealign.config import params
from anklealign.config.params import Dataset

ROOT = Path(__file__).resolve().parents[2]


def photo(colour):
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(stream, "JPEG")
    return stream.getvalue()


PHOTOS = {
    f"{label}/{n}.jpg": photo((40 * n, 30 * (label == "good"), 90))
    for label in ("good", "bad")
    for n in range(6)
}
NOISE = {"__MACOSX/good/._1.jpg": b"\0", "good/.DS_Store": b"\0", "good/Thumbs.db": b"\0"}


def zipped(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def one_line(text):
    return " ".join(text.split())


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def project(tmp_path, dvc_calls):
    """Return the folder that holds an empty project, and the calls of DVC."""
    return tmp_path, dvc_calls


def test_an_archive_becomes_the_dataset_of_its_folder(project, capsys):
    top, called = project
    path = zipped(top / "set.zip", {f"set/{name}": data for name, data in (PHOTOS | NOISE).items()})
    before = path.read_bytes()
    assert main(["add", str(path), "mine"]) == 0
    assert tree(Path("data/raw")) == {f"mine/{name}": data for name, data in PHOTOS.items()}
    assert path.read_bytes() == before
    assert called == [["add", "data/raw/mine"]]
    dataset = params.section(params.read(), "datasets.mine", Dataset)
    assert (dataset.layout, list(dataset.classes)) == ("folders", ["bad", "good"])
    printed = one_line(capsys.readouterr().out)
    assert "archive set.zip: 15 files" in printed
    # A long path is broken at the edge of the terminal.
    assert f"folder{path}" in "".join(printed.split())
    assert "photos 12 can be read and have a label" in printed
    assert main(["add", str(path), "mine"]) == 0  # the same again


def test_a_dry_run_on_an_archive_writes_nothing(project, capsys):
    top, called = project
    zipped(top / "share" / "good.zip", {n[5:]: d for n, d in PHOTOS.items() if "good" in n})
    zipped(top / "share" / "bad.zip", {n[4:]: d for n, d in PHOTOS.items() if "bad" in n})
    before = tree(top)
    assert main(["add", str(top / "share"), "mine", "--dry-run"]) == 0
    assert "bad: 6 photos" in one_line(capsys.readouterr().out)
    assert (tree(top), called) == (before, [])
    assert not Path("data").exists()


def test_files_beside_archives_are_copied_and_stay(project):
    top, _ = project
    zipped(top / "share" / "good.zip", {n[5:]: d for n, d in PHOTOS.items() if "good" in n})
    for name, data in PHOTOS.items():
        if "bad" in name:
            (top / "share" / name).parent.mkdir(exist_ok=True)
            (top / "share" / name).write_bytes(data)
    before = tree(top / "share")
    assert main(["add", str(top / "share"), "mine"]) == 0
    assert tree(Path("data/raw/mine")) == PHOTOS
    assert not any(path.is_symlink() for path in Path("data/raw/mine").rglob("*"))
    assert tree(top / "share") == before


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.7z", b"7z\xbc\xaf", ".7z archives cannot be read; unpack it and give the folder"),
        ("a.zip", b"\n<html>", "is a web page, such as that of a login; download it again"),
        ("a.zip", b"PK\x03\x04\x14" + bytes(60), "is incomplete or damaged; download it again"),
        ("a.tar.gz", b"", "is empty; download it again, or pass the folder of the photos"),
        ("a.jpg", b"\xff\xd8", "is not a folder, a zip or tar file, or an address"),
        ("a.zip", b"PK\x05\x06" + bytes(18), "contains no file"),
    ],
)
def test_another_file_is_refused_with_a_sentence(project, capsys, name, data, message):
    top, called = project
    (top / name).write_bytes(data)
    assert main(["add", str(top / name), "mine"]) == 1
    assert message in one_line(capsys.readouterr().err)
    assert not called
    assert not list(Path("data").rglob("*.*"))


@pytest.mark.usefixtures("project")
def test_an_archive_in_the_datasets_own_folder_is_refused(capsys):
    zipped(Path("data/raw/mine/a.zip"), PHOTOS)
    assert main(["add", "data/raw/mine", "mine"]) == 1
    assert "data/raw/mine has archives; move the folder elsewhere" in one_line(
        capsys.readouterr().err
    )
    assert [path.name for path in Path("data/raw").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://bucket/set.zip", "s3://bucket/set.zip needs dvc-s3; install it: pip install dvc-s3"),
        ("ftp://host/set.zip", "addresses of ftp:// are not supported; use http, https, s3"),
    ],
)
def test_an_address_that_dvc_cannot_read_is_one_sentence(
    project, monkeypatch, capsys, address, message
):
    _, called = project
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda _: None)
    assert main(["add", address, "mine", "--dry-run"]) == 1
    assert message in one_line(capsys.readouterr().err)
    assert not called


@pytest.fixture
def server(tmp_path):
    """Serve a folder on this machine; return the folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.mark.slow
def test_an_address_is_imported_by_dvc_and_its_archive_unpacked(
    server, tmp_path, monkeypatch, capsys
):
    folder, address = server
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    zipped(folder / "set.zip", PHOTOS)
    (folder / "page").write_text("<!DOCTYPE html><p>Sign in</p>", encoding="utf-8")

    before = tree(project / ".dvc")
    assert main(["add", f"{address}/set.zip", "mine", "--dry-run"]) == 0
    assert "photos 12 can be read and have a label" in one_line(capsys.readouterr().out)
    assert not Path("data").exists()
    assert tree(project / ".dvc").keys() >= before.keys()

    assert main(["add", f"{address}/page", "mine"]) == 1
    assert "gives a web page, not a zip or tar file" in one_line(capsys.readouterr().err)
    assert main(["add", f"{address}/gone.zip", "mine"]) == 1
    assert "failed; fix the error above, or download the photos" in one_line(
        capsys.readouterr().err
    )
    assert [path.name for path in Path("data/raw").iterdir() if path.name != ".gitignore"] == []

    assert main(["add", f"{address}/set.zip", "mine"]) == 0
    printed = one_line(capsys.readouterr().out)
    assert "git add params.yaml data/raw/mine.dvc data/raw/mine.zip.dvc" in printed
    assert tree(Path("data/raw/mine")) == PHOTOS
    assert f"path: {address}/set.zip" in Path("data/raw/mine.zip.dvc").read_text(encoding="utf-8")
    assert Path("data/raw/mine.dvc").is_file()
    ignored = Path("data/raw/.gitignore").read_text(encoding="utf-8").split()
    assert ignored == ["/mine.zip", "/mine"]
    (folder / "set.zip").unlink()  # a second try does not download again
    assert main(["add", f"{address}/set.zip", "mine"]) == 0
