"""What the tests of the sources share: small photos on disk, and the sums that always hold."""

import io
from collections import Counter

import pytest
from PIL import Image


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
