"""Fixtures of all tests."""

import io
import os
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

# A shell that starts pytest in the background has SIGINT ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Test processes share the cores, and PyTorch's idle threads would take them from each other: a test
# of 64 s took 970 s beside others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

NOBODY = 65534  # user and group, on every Linux and on macOS


class Nobody:
    """A folder that is a context manager: inside it, file permissions apply even to root."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        if os.geteuid() == 0:
            self.folder.chmod(0o777)
            # os.access asks for the real user, opening for the effective one.
            os.setresgid(NOBODY, NOBODY, 0)
            os.setresuid(NOBODY, NOBODY, 0)
            self.entered = True
        return self.folder

    def __exit__(self, *_):
        if getattr(self, "entered", False):
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            self.entered = False


@pytest.fixture
def nobody():
    """Return a new folder; inside its context, the test runs as user nobody.

    Only root can read pytest's own folders, and perhaps the clone: import nothing inside.
    """
    folder = Path(tempfile.mkdtemp(prefix="nobody_"))
    yield Nobody(folder)
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def jpeg():
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), "teal").save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path, jpeg):
    """Return a function that fills a folder with photos and gives the folder."""

    def fill(*paths, **texts):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(jpeg)
        for path, text in texts.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text, encoding="utf-8")
        return tmp_path

    return fill


@pytest.fixture(scope="session")
def reasons():
    """Return a function that lists an inventory's skips as {path: reason}."""

    def listing(inventory):
        skipped = {skip.path: skip.reason for skip in inventory.skips}
        assert len(skipped) == len(inventory.skips), Counter(s.path for s in inventory.skips)
        return skipped

    return listing
