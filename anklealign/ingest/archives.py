"""Unpack archives of photos safely: zip, tar and compressed tar files, also inside each other.

`unpacked` yields a folder that has the content of an archive, or of a folder with archives in it as
SharePoint, Google Drive and Kaggle give them. It is a temporary folder that is removed afterwards,
whatever happens, so an interrupted run leaves nothing behind.

No entry is written outside the folder: a path with `..` is refused, an absolute path becomes a
relative one, and links, pipes and devices are left out and counted. The number of files, their size
and the compression ratio are bounded while the archive is read, because its headers may lie.
"""

import fcntl
import filecmp
import os
import re
import shutil
import signal
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tqdm import tqdm

from anklealign.ingest.filename_matching import is_code
from anklealign.ingest.inventory import LIKE_A_PHOTO, escape_unprintable, list_files
from anklealign.io.decode import PHOTO_SUFFIXES
from anklealign.io.files import apply_umask, walk

SUFFIXES = (
    ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz",
)  # fmt: skip
# Archives that the standard library cannot read.
OTHER_ARCHIVES = {".7z", ".rar", ".zipx", ".z01", ".001", ".cab", ".ace", ".zst"}
# A set of 30,000 photos of 7 MB has 210 GB.
MOST_FILES = 500_000
MOST_BYTES = 500 * 10**9
# Photos barely compress; uncompressed masks and tables compress up to about 100 times. A bomb of
# one layer reaches 1,000.
MOST_RATIO = 200
SMALL = 1 << 30  # bytes; below this size any ratio is harmless
_REMEDY = "if it is intended, unpack it yourself and pass the folder"
DEEPEST = 3  # archives inside archives
CHUNK = 1 << 20
ENCRYPTED = 1  # bit of a zip entry's flags
UTF8_NAME = 0x800
UNICODE_PATH = 0x7075  # extra field with the UTF-8 name (APPNOTE 4.6.9)
# Windows writes zip names in the code page of its console: Central European, then the standard's.
CODE_PAGES = ("cp852", "cp437")
# Parts of one large download from OneDrive, SharePoint or Google Drive.
DOWNLOAD_PART = re.compile(r"^onedrive_\d|-\d{8}t\d{6}z(-\d+)?-\d{3}$", re.IGNORECASE)
DOCUMENTS = ("readme", "license", "licence", "copying")


@dataclass
class _Progress:
    """What has been unpacked so far, over all archives."""

    bar: Any
    files: int = 0
    size: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    archive: Path = Path()
    before: int = 0  # size when the archive was started
    packed: int = 0  # size of the archive

    def start(self, archive: Path) -> None:
        """Start an archive."""
        self.archive, self.before, self.packed = archive, self.size, archive.stat().st_size

    def add(self, size: int) -> None:
        """Count unpacked bytes and check the bounds.

        Raises:
            ValueError: A bound is exceeded.
        """
        self.size += size
        self.bar.update(size)
        if self.size > MOST_BYTES:
            raise ValueError(
                f"{_shown(self.archive)} unpacks to over {MOST_BYTES / 1e9:g} GB; {_REMEDY}"
            )
        unpacked_size = self.size - self.before
        if unpacked_size > SMALL and unpacked_size > MOST_RATIO * self.packed:
            raise ValueError(
                f"{_shown(self.archive)} unpacks to over {MOST_RATIO} times its size, as a "
                f"decompression bomb does; {_REMEDY}"
            )


def is_archive(path: Path) -> bool:
    """Return True for a file with the name of an archive that can be unpacked."""
    return path.name.casefold().endswith(SUFFIXES) and path.is_file()


def has_archive_content(path: Path) -> bool:
    """Return True if a file of any name is a zip or tar file."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def unreadable_archive(path: Path) -> str:
    """Return why a file with the name of an archive is none, and what to do; '' for others."""
    if not is_archive(path) or has_archive_content(path):
        return ""
    with path.open("rb") as stream:
        head = stream.read(200).lstrip()
    kind = "incomplete or damaged"
    if not head:
        kind = "empty"
    elif head[:1] == b"<":
        kind = "a web page, such as that of a login"
    return f"is {kind}; download it again, or pass the folder of the photos"


@contextmanager
def unpacked(source: Path, below: Path | None, name: str) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folder with the unpacked content of a source, and remarks for the report.

    Args:
        source: An archive, or a folder. A folder without archives is yielded as it is.
        below: The folder for the temporary one, None for the system's.
        name: A name for the temporary folder.

    Raises:
        ValueError: An archive is encrypted, damaged, of an unsupported kind, or unsafe.
        OSError: The disk is full, or a file cannot be read.
    """
    inside: list[str] = []
    if source.is_dir():
        inside = [file for file in list_files(source)[0] if is_archive(source / file)]
        if not inside:
            yield source, []
            return
    if below is not None:
        below.mkdir(parents=True, exist_ok=True)
    with _terminable(), _temporary(below, name) as folder:
        bar = tqdm(desc="unpack", unit="B", unit_scale=True, delay=1, disable=None)
        with bar:
            progress = _Progress(bar)
            if inside:
                _link_files(source, folder, set(inside))
                _unpack_all({Path(file): source / file for file in inside}, folder, progress)
            else:
                _unpack(source, folder, progress)
            _unpack_inner(folder, progress, DEEPEST)
        root, remarks = _content_root(folder)
        yield root, [*_summary(source, inside, progress), *remarks]


def unpack_beside(archive: Path) -> tuple[Path, list[str]]:
    """Unpack an archive into a new folder of its name beside it; return the folder and remarks.

    Raises:
        ValueError: The folder exists, or the archive is encrypted, damaged, or unsafe.
        OSError: The disk is full, or the folder cannot be written.
    """
    folder = archive.with_name(_stem(archive.name) or archive.name)
    if folder.exists():
        raise ValueError(f"{folder} exists; pass it if it is the unpacked archive, or move it away")
    with unpacked(archive, archive.parent, folder.name) as (root, remarks):
        apply_umask(root, 0o777)
        root.rename(folder)
    return folder, remarks


@contextmanager
def _temporary(below: Path | None, name: str) -> Iterator[Path]:
    """Yield a new folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=below))
    # Held until this process ends: `anklealign add` removes such folders of killed runs.
    lock = os.open(folder, os.O_RDONLY)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that the temporary folder is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _summary(source: Path, inside: Sequence[str], progress: _Progress) -> list[str]:
    """Return the remarks on what was unpacked and left out."""
    number = f"{len(inside)} archive{'s' * (len(inside) > 1)}"
    archives = f"{number} in the folder" if inside else source.name
    remarks = [
        f"{escape_unprintable(archives)}: {progress.files} files, {progress.size / 1e6:.1f} MB"
    ]
    remarks += [f"left out: {count} {kind}" for kind, count in sorted(progress.left_out.items())]
    return remarks


def _link_files(source: Path, folder: Path, without: set[str]) -> None:
    """Link the files of a folder into another one, except some; odd items stay as odd there."""
    files, odd = list_files(source)
    items = [*files, *(skip.path for skip in odd if skip.detail != LIKE_A_PHOTO)]
    for item in items:
        if item not in without:
            (folder / item).parent.mkdir(parents=True, exist_ok=True)
            (folder / item).symlink_to((source / item).absolute())


def _unpack_inner(folder: Path, progress: _Progress, depth: int) -> None:
    """Unpack the archives that came out of an archive, and remove them."""
    files = sorted(path for path in walk(folder) if not path.is_symlink() and is_archive(path))
    if not files:
        return
    if not depth:
        raise ValueError(
            f"{escape_unprintable(files[0].name)} is an archive inside {DEEPEST} others; unpack it "
            "and pass the folder"
        )
    _unpack_all({file.relative_to(folder): file for file in files}, folder, progress)
    for file in files:
        file.unlink()
    _unpack_inner(folder, progress, depth - 1)


def _unpack_all(archives: Mapping[Path, Path], folder: Path, progress: _Progress) -> None:
    """Unpack archives, by their paths below the folder, into the folder.

    An archive alone in its folder, and the parts of one download, are unpacked where they are.
    Others get a folder of their name, which may be the class, the split or the collector, unless
    that is already their only top folder. So does a single archive of files beside other photos.
    """
    number = Counter(path.parent for path in archives)
    beside_photos = {parent for parent in number if _has_photos(folder / parent)}
    for path, archive in sorted(archives.items()):
        place, stem = folder / path.parent, _stem(path.name)
        tops = _top_folders(archive)
        several = number[path.parent] > 1 and not DOWNLOAD_PART.search(stem)
        if tops != {stem.casefold()} and (several or ("" in tops and path.parent in beside_photos)):
            place /= stem
        _unpack(archive, place, progress)


def _has_photos(folder: Path) -> bool:
    """Return whether a folder has a photo or a subfolder with files."""
    return folder.is_dir() and any(
        item.suffix.casefold() in PHOTO_SUFFIXES or (item.is_dir() and any(item.iterdir()))
        for item in folder.iterdir()
        if not item.name.startswith((".", "__MACOSX"))
    )


def _stem(name: str) -> str:
    """Return the name of an archive without its suffixes."""
    ending = max((s for s in SUFFIXES if name.casefold().endswith(s)), key=len, default="")
    return name[: len(name) - len(ending)]


def _top_folders(archive: Path) -> set[str]:
    """Return the folded names at the top of an archive; a file at the top counts as ''."""
    with _opened(archive) as opened:
        names = [
            _zip_name(info) if isinstance(info, zipfile.ZipInfo) else info.name
            for info in _entries(opened)
        ]
    tops: set[str] = set()
    for name in names:
        first, _, rest = name.replace("\\", "/").lstrip("/").removeprefix("./").partition("/")
        tops.add(first.casefold() if rest else "")
    return tops - {"__macosx"}


def _content_root(folder: Path) -> tuple[Path, list[str]]:
    """Return the folder that holds the photos: the only folder at the top, if there is one.

    A folder with a collector's code is kept, because its name is the collector.
    """
    root, left = folder, []
    while True:
        items = sorted(root.iterdir())
        folders = [item for item in items if item.is_dir() and item.name != "__MACOSX"]
        documents = [
            item.name
            for item in items
            if not item.is_dir()
            and (item.name.startswith(".") or item.name.casefold().startswith(DOCUMENTS))
        ]
        others = len(items) - len(folders) - len(documents) - (root / "__MACOSX").is_dir()
        if len(folders) != 1 or others or is_code(folders[0].name.casefold()):
            break
        root = folders[0]
        left += documents
    names = ", ".join(escape_unprintable(name) for name in left)
    remarks = [f"read from its folder {root.relative_to(folder)}"] if root != folder else []
    return root, remarks + ([f"not taken: {names}"] if names else [])


Archive = zipfile.ZipFile | tarfile.TarFile
ArchiveEntry = zipfile.ZipInfo | tarfile.TarInfo


@contextmanager
def _opened(archive: Path) -> Iterator[Archive]:
    """Yield an opened archive; errors of its reader become a ValueError."""
    name = escape_unprintable(archive.name)
    try:
        # A tar file that ends with a zip file would be taken for a zip file.
        if not tarfile.is_tarfile(archive) and zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                yield opened
        else:
            with tarfile.open(archive) as tar:
                yield tar
    except NotImplementedError as error:
        raise ValueError(
            f"{name} uses an unsupported compression ({error}); unpack it with another program and "
            "pass the folder"
        ) from None
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        zlib.error,
        LZMAError,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; decompressors raise OSError without a number
        raise ValueError(
            f"{name} is damaged or incomplete ({' '.join(str(error).split())}); download it again"
        ) from None


def _entries(archive: Archive) -> Iterable[ArchiveEntry]:
    return archive.infolist() if isinstance(archive, zipfile.ZipFile) else archive


def _unpack(archive: Path, folder: Path, progress: _Progress) -> None:
    """Write the files of an archive below a folder.

    Raises:
        ValueError: An entry is unsafe or encrypted, or there are too many or too large ones.
    """
    progress.start(archive)
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(archive) as opened:
        if isinstance(opened, zipfile.ZipFile):
            needed, free = (
                sum(e.file_size for e in opened.infolist()),
                shutil.disk_usage(folder).free,
            )
            if needed > free:
                raise ValueError(
                    f"{_shown(archive)} unpacks to {needed / 1e9:.1f} GB, but the disk has only "
                    f"{free / 1e9:.1f} GB left; free some space, or pass a smaller archive"
                )
        for entry in _entries(opened):
            name = _zip_name(entry) if isinstance(entry, zipfile.ZipInfo) else entry.name
            kind = _kind(entry)
            if kind == "folder":
                continue
            if kind != "file":
                progress.left_out[f"{kind} of an archive"] += 1
                continue
            if isinstance(entry, zipfile.ZipInfo) and entry.flag_bits & ENCRYPTED:
                raise ValueError(
                    f"{escape_unprintable(archive.name)} is encrypted; unpack it with its password "
                    "and pass the folder"
                )
            progress.files += 1
            if progress.files > MOST_FILES:
                raise ValueError(f"{_shown(archive)} has over {MOST_FILES} files; {_REMEDY}")
            target = folder / _safe_path(name, archive)
            with _content(opened, entry) as stream:
                _write(stream, target, progress)
        if isinstance(opened, tarfile.TarFile) and opened.fileobj is not None:
            # The checksum of a compressed tar file is compared when the end is read.
            while padding := opened.fileobj.read(CHUNK):
                progress.add(len(padding))


def _shown(archive: Path) -> str:
    return escape_unprintable(archive.name)


def _kind(entry: ArchiveEntry) -> str:
    """Return file, folder, or the plural of what is left out."""
    if isinstance(entry, zipfile.ZipInfo):
        mode = entry.external_attr >> 16
        if entry.is_dir() or entry.filename.endswith("\\"):
            return "folder"
        if stat.S_ISLNK(mode):
            return "links"
        return "file" if not stat.S_IFMT(mode) or stat.S_ISREG(mode) else "special files"
    if entry.isdir():
        return "folder"
    # A hard link is another name of an earlier file of the archive, which is written again.
    return (
        "file" if entry.isreg() or entry.islnk() else "links" if entry.issym() else "special files"
    )


@contextmanager
def _content(archive: Archive, entry: ArchiveEntry) -> Iterator[IO[bytes]]:
    if isinstance(archive, zipfile.ZipFile) and isinstance(entry, zipfile.ZipInfo):
        with archive.open(entry) as stream:
            yield stream
    elif isinstance(archive, tarfile.TarFile) and isinstance(entry, tarfile.TarInfo):
        try:
            content = archive.extractfile(entry)
        except KeyError as error:
            raise tarfile.TarError(" ".join(str(error).split())) from None
        if content is None:
            raise tarfile.TarError(f"{entry.name} has no content")
        with content:
            yield content


def _safe_path(name: str, archive: Path) -> PurePosixPath:
    """Return the relative path of an entry.

    Raises:
        ValueError: The path leads out of the folder, or names no file.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in {"", "."}]
    if parts and len(parts[0]) == 2 and parts[0][1] == ":":  # a drive, as in C:/photos
        parts = parts[1:]
    if not parts or ".." in parts or "\0" in name:
        raise ValueError(
            f"{_shown(archive)} has an entry that leads out of its folder, "
            f"{escape_unprintable(name)!r}, so nothing was unpacked; {_REMEDY}"
        )
    return PurePosixPath(*parts)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name of a zip entry, also where it is neither flagged as UTF-8 nor in cp437."""
    if info.flag_bits & UTF8_NAME or info.filename.isascii():
        return info.filename
    extra = info.extra
    while len(extra) >= 4:
        kind, size = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if kind == UNICODE_PATH and size > 5:  # version and checksum, then the name
            return extra[9 : 4 + size].decode("utf-8", "replace")
        extra = extra[4 + size :]
    raw = info.filename.encode("cp437")  # as zipfile decoded it
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    for page in CODE_PAGES:
        text = raw.decode(page)
        if all(c.isalpha() for c in text if not c.isascii()):
            return text
    return info.filename


def _write(stream: IO[bytes], target: Path, progress: _Progress) -> None:
    """Write a stream to a file, within the bounds.

    If the archive has two entries of one name, equal content is written once, and other content
    under the name with a number.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target if not os.path.lexists(target) else _numbered(target)
        with file.open("xb") as output:
            while chunk := stream.read(CHUNK):
                progress.add(len(chunk))
                output.write(chunk)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ValueError(
            f"{_shown(progress.archive)} has a file and a folder of the same name, "
            f"{escape_unprintable(target.name)!r}; {_REMEDY}"
        ) from None
    if file != target and target.is_file() and filecmp.cmp(file, target, shallow=False):
        file.unlink()
        progress.left_out["repeated entries with the same content"] += 1


def _numbered(target: Path) -> Path:
    number = 2
    while os.path.lexists(file := target.with_name(f"{target.stem} ({number}){target.suffix}")):
        number += 1
    return file
