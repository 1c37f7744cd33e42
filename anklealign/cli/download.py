"""Photos at an address as the source of `anklealign add`, downloaded by DVC.

An archive at an address is imported to data/raw/NAME.zip by `dvc import-url`, so that
`dvc update data/raw/NAME.zip.dvc` shows whether it changed. A folder of a cloud storage is imported
to data/raw/NAME itself. A dry run downloads to a temporary folder by `dvc get-url`.
"""

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ruamel.yaml import YAML

from anklealign.config.paths import RAW
from anklealign.ingest import archives

# Scheme -> the package that DVC needs for it; '' if it comes with DVC.
SCHEMES = {
    "http": "", "https": "", "s3": "dvc-s3", "gs": "dvc-gs", "azure": "dvc-azure",
    "ssh": "dvc-ssh", "webdavs": "dvc-webdav", "webdav": "dvc-webdav",
}  # fmt: skip
FILES_ONLY = {"http", "https"}  # these have no listing of a folder


def is_address(source: str) -> bool:
    """Return True if a source is an address instead of a path."""
    return "://" in source


@contextmanager
def local_copy(source: str, name: str, *, dry: bool) -> Iterator[Path]:
    """Yield the path of a source; an address is downloaded first.

    Raises:
        ValueError: The scheme is unknown, a package is missing, the download fails, or the address
            gives neither an archive nor a folder.
    """
    if not is_address(source):
        yield Path(source).expanduser()
        return
    scheme = urlsplit(source).scheme.casefold()
    check_scheme(source, scheme)
    ending = _ending(source)
    if not ending and scheme in FILES_ONLY:
        ending = ".zip"  # the content decides what kind of archive it is
    if dry:
        with tempfile.TemporaryDirectory(prefix=f"{name}.") as folder:
            target = Path(folder) / f"{name}{ending}"
            _dvc("get-url", source, target)
            _check_content(source, target)
            yield target
        return
    target = RAW / f"{name}{ending}"
    if not is_import(target, source):
        if target.exists():
            raise ValueError(
                f"{target} already exists and was not imported from {source}; choose another NAME, "
                "or move it away"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        _dvc("import-url", source, target)
    try:
        _check_content(source, target)
    except ValueError:
        _dvc("remove", f"{target}.dvc")
        target.unlink(missing_ok=True)
        raise
    yield target


def check_scheme(source: str, scheme: str) -> None:
    """Check that DVC can download from an address.

    Raises:
        ValueError: The scheme is unknown, or its package is not installed.
    """
    package = SCHEMES.get(scheme)
    if package is None:
        raise ValueError(
            f"{source}: addresses of {scheme}:// are not supported; use {', '.join(SCHEMES)}, or "
            "download the photos and pass the folder"
        )
    if package and importlib.util.find_spec(package.replace("-", "_")) is None:
        raise ValueError(f"{source} needs {package}; install it: pip install {package}")


def _ending(source: str) -> str:
    """Return the suffix of the archive that an address names, or ''."""
    name = PurePosixPath(unquote(urlsplit(source).path)).name.casefold()
    return max((s for s in archives.SUFFIXES if name.endswith(s)), key=len, default="")


def is_import(target: Path, source: str | None = None) -> bool:
    """Return True if the target is there and is DVC's import, of the address if one is given."""
    record = Path(f"{target}.dvc")
    if not target.exists() or not record.is_file():
        return False
    dependencies = YAML(typ="safe").load(record.read_text(encoding="utf-8")).get("deps") or []
    addresses = [each.get("path") for each in dependencies]
    return addresses == [source] if source is not None else bool(addresses)


def _dvc(command: str, *arguments: str | Path) -> None:
    """Run a DVC command; its progress goes to the terminal.

    Raises:
        ValueError: The command failed.
    """
    words = [sys.executable, "-m", "dvc", command, *map(str, arguments)]
    if subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603
        raise ValueError(
            f"`dvc {' '.join(words[3:])}` failed; fix the error above, or download the photos with "
            "a browser and pass the file"
        )


def _check_content(source: str, target: Path) -> None:
    """Check that a download is a folder or an archive.

    Raises:
        ValueError: It is another file, such as the page of a login.
    """
    if target.is_dir() or archives.has_archive_content(target):
        return
    with target.open("rb") as stream:
        head = stream.read(200).lstrip()
    page = head[:1] == b"<"
    raise ValueError(
        f"{source} gives {'a web page' if page else f'a file that starts with {head[:12]!r}'}, not "
        "a zip or tar file; pass the address of the file itself, or download it with a browser "
        "and pass the file"
    )
