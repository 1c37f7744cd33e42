"""Open damaged files of every format, here and with the plain library, and compare.

    python -m benchmarks.fuzz [--count 20000] [--seed 1]

Each file is a seed of its format (with EXIF, XMP, a color profile, frames) with one to three random
changes; checksums of PNG chunks are made right again in half of the files, so that the changes
reach the decoder. Files are opened in child processes; one that dies is replaced and goes on with
the next file. `--file 1234` writes a single mutation to standard output.

Exit status 1 if a file takes over 5 CPU seconds or 1 GiB, crashes a decoder that also runs in the
stages' own process (JPEG, PNG, WebP), or is read here although the plain library refuses it:
`Image.open(file).load()`, or pi-heif's for HEIC. Crashes of other decoders are counted. Each file
that crashed one is then decoded as the stages and the service do it, in a process that may die
(anklealign/io/decoder_pool.py), and must be read or refused with a reason.
"""

import argparse
import faulthandler
import io
import resource
import signal
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pi_heif import HeifImageFile  # type: ignore[import-untyped]
from PIL import Image, ImageCms, ImageFile

from anklealign.io import decode
from anklealign.io.decoder_pool import DecoderPool, Target

MAX_MEGAPIXELS = 80
SIZE = 256
MAX_SECONDS = 5
MAX_MEBIBYTES = 1024
IN_PROCESS = {"JPEG", "progressive JPEG", "CMYK JPEG", "PNG", "palette PNG", "16-bit PNG", "WEBP",
              "lossless WEBP"}  # fmt: skip
HEIC = Path(__file__).resolve().parents[1] / "tests/io/data"


@dataclass
class Row:
    """The outcomes of one format's files."""

    files: int = 0
    refused_by_library: int = 0
    refused: int = 0
    accepted_though_refused: int = 0
    crashed: int = 0
    seconds: float = 0.0
    mebibytes: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


def main() -> int:
    """Print the table; return 1 if there is a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--file", type=int)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.file is not None:
        sys.stdout.buffer.write(mutation(options.seed, options.file, seeds())[1])
        return 0
    if options.child is not None:
        run_child(options.seed, options.child, options.count, OPENERS)
        return 0
    start = time.perf_counter()
    rows, failures = run(options.count, options.seed)
    print("| format | files | library refuses | refused here | read though refused | crashed | "
          "CPU s | MiB |\n|---|---:|---:|---:|---:|---:|---:|---:|")  # fmt: skip
    for kind, row in rows.items():
        print(
            f"| {kind} | {row.files} | {row.refused_by_library} | {row.refused} "
            f"| {row.accepted_though_refused} | {row.crashed} | {row.seconds:.2f} "
            f"| {row.mebibytes:.0f} |"
        )
    reasons = sum((row.reasons for row in rows.values()), Counter())
    print(f"\n{options.count} files of seed {options.seed} in {time.perf_counter() - start:.0f} s; "
          f"reasons: {dict(reasons.most_common())}")  # fmt: skip
    for failure in failures[:20]:
        print(f"fuzz: {failure}", file=sys.stderr)
    print(f"{len(failures)} failures")
    return int(bool(failures))


def run(count: int, seed: int, command: Sequence[str] = ()) -> tuple[dict[str, Row], list[str]]:
    """Return the table's rows and the failures of `count` files, opened in child processes."""
    kinds = list(seeds())
    rows = {kind: Row() for kind in kinds}
    failures: list[str] = []
    begin = 0
    command = command or [sys.executable, "-m", "benchmarks.fuzz"]
    while begin < count:
        child = subprocess.run(
            [*command, "--child", str(begin), "--count", str(count), "--seed", str(seed)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        at, phase = begin, "start"
        for line in child.stdout.splitlines():
            number, phase, *values = line.split()
            at = int(number)
            if phase == "done":
                kind = kinds[at % len(kinds)]
                failures += judge(rows[kind], f"file {at} of seed {seed}, {kind}", values)
        if child.returncode:
            if phase in {"start", "done"}:
                raise RuntimeError(f"the child of file {at} failed:\n{child.stderr[-2000:]}")
            kind = kinds[at % len(kinds)]
            rows[kind].files += 1
            rows[kind].crashed += 1
            reason = open_isolated(mutation(seed, at, seeds())[1])
            rows[kind].refused += reason != "read"
            rows[kind].reasons[reason] += 1
            if child.returncode == -signal.SIGPROF and phase == "plain":
                pass  # the library alone takes too long
            elif child.returncode == -signal.SIGPROF:
                failures.append(f"file {at} of seed {seed}, {kind}: over {MAX_SECONDS} CPU s")
            elif kind in IN_PROCESS:
                last = child.stderr.strip()[-300:]
                failures.append(f"file {at} of seed {seed}, {kind}: crashed in {phase}: {last}")
        begin = at + 1
    return rows, failures


def judge(row: Row, name: str, values: Sequence[str]) -> list[str]:
    """Add the outcome of a file to its row; return its failures."""
    plain, reason, seconds, mebibytes = values[0], values[1], float(values[2]), float(values[3])
    row.files += 1
    row.refused_by_library += plain == "refused"
    row.refused += reason != "read"
    row.reasons[reason] += 1
    row.seconds, row.mebibytes = max(row.seconds, seconds), max(row.mebibytes, mebibytes)
    failures = []
    if plain == "refused" and reason == "read":
        row.accepted_though_refused += 1
        failures.append(f"{name}: read although the library refuses it")
    if mebibytes > MAX_MEBIBYTES:
        failures.append(f"{name}: {mebibytes:.0f} MiB")
    return failures


def open_plain(data: bytes) -> str:
    """Return 'read' or 'refused' as the plain library does."""
    try:
        brands = data[8 : decode.HEAD]
        if data[4:8] == b"ftyp" and not any(brand in brands for brand in decode.AVIF_BRANDS):
            heif: ImageFile.ImageFile = HeifImageFile(io.BytesIO(data))
            heif.load()
        else:
            Image.open(io.BytesIO(data)).load()
    except Exception:  # noqa: BLE001 - any
        return "refused"
    return "read"


def open_here(data: bytes) -> str:
    """Return 'read' or the reason code, as prepare and the service do."""
    try:
        photo = decode.open_photo(data, MAX_MEGAPIXELS, 2 * SIZE)
        decode.fit(photo.image, SIZE, "letterbox", 114)
    except decode.PhotoError as error:
        return error.reason
    return "read"


def open_isolated(data: bytes) -> str:
    """Return 'read' or the reason code; the decoder has a process of its own."""
    pool = DecoderPool()
    try:
        pool.decode(data, Target(MAX_MEGAPIXELS, SIZE, "letterbox", 114))
    except decode.PhotoError as error:
        return error.reason
    finally:
        pool.close()
    return "read"


Opener = Callable[[bytes], str]
OPENERS: Mapping[str, Opener] = {"plain": open_plain, "here": open_here}


def run_child(seed: int, begin: int, count: int, openers: Mapping[str, Opener]) -> None:
    """Open files and print each step: `N plain`, `N here`, `N done <outcomes> <CPU s> <MiB>`."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    # Address space, so that a bomb is refused and not the machine killed.
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    files = seeds()
    for number in range(begin, count):
        _, data = mutation(seed, number, files)
        outcomes = {}
        for name, opener in openers.items():
            print(number, name, flush=True)
            # https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
            Path("/proc/self/clear_refs").write_text("5")
            before, start = peak_mebibytes(), time.process_time()
            # The kernel ends the process, whatever it is at; Pillow's C code handles no signal.
            signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
            outcomes[name] = opener(data)
            signal.setitimer(signal.ITIMER_PROF, 0)
            taken, grown = time.process_time() - start, peak_mebibytes() - before
        print(number, "done", *outcomes.values(), f"{taken:.3f} {grown:.1f}", flush=True)


def peak_mebibytes() -> float:
    """Return the peak memory of this process since it was last cleared."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split(None, 1)[0]) / 1024


# Files -------------------------------------------------------------------------------------------


def mutation(seed: int, number: int, files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Return a format and a damaged file of it; the same for the same seed and number."""
    rng = np.random.default_rng([seed, number])
    kind = list(files)[number % len(files)]
    data = mutate(rng, files[kind], list(files.values()))
    if data.startswith(b"\x89PNG") and rng.random() < 0.5:
        data = with_right_checksums(data)
    return kind, data


def seeds() -> dict[str, bytes]:
    """Return a small photo in each format, with metadata where the format has it."""
    y, x = np.mgrid[0:64, 0:96]
    noise = np.random.default_rng(0).integers(0, 40, (64, 96))
    image = Image.fromarray(np.stack([2 * x + noise, 3 * y, 60 + noise], -1).astype(np.uint8))
    gray16 = Image.fromarray((x * 600 + noise * 90).astype(np.uint16))
    alpha = image.copy()
    alpha.putalpha(Image.fromarray((x * 2).astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    described: dict[str, Any] = {"exif": exif, "icc_profile": profile}
    frames: dict[str, Any] = {
        "save_all": True,
        "append_images": [image.rotate(90), image.rotate(180)],
    }
    options: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "JPEG": (image, "JPEG", described | {"quality": 92, "xmp": b"<x:xmpmeta/>"}),
        "progressive JPEG": (image, "JPEG", described | {"progressive": True}),
        "CMYK JPEG": (image.convert("CMYK"), "JPEG", {}),
        "MPO": (image, "MPO", frames),
        "PNG": (image, "PNG", described),
        "palette PNG": (image.quantize(64), "PNG", {"transparency": 3}),
        "16-bit PNG": (gray16, "PNG", {"exif": exif}),
        "WEBP": (image, "WEBP", described | {"quality": 90, "xmp": b"<x:xmpmeta/>"}),
        "lossless WEBP": (alpha, "WEBP", described | {"lossless": True} | frames),
        "GIF": (image, "GIF", frames),
        "TIFF": (image, "TIFF", described),
        "LZW TIFF": (alpha, "TIFF", {"compression": "tiff_lzw"}),
        "deflate TIFF": (gray16, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "JPEG TIFF": (image, "TIFF", {"compression": "jpeg"}),
        "fax TIFF": (image.convert("1"), "TIFF", {"compression": "group4"}),
        "BMP": (image, "BMP", {}),
        "JPEG2000": (image, "JPEG2000", {}),
        "PPM": (image, "PPM", {}),
        "AVIF": (image, "AVIF", described | {"quality": 90, "xmp": b"<x:xmpmeta/>"}),
        "AVIF sequence": (image, "AVIF", frames | {"quality": 90}),
    }
    files = {}
    for kind, (picture, encoder, keywords) in options.items():
        stream = io.BytesIO()
        picture.save(stream, encoder, **keywords)
        files[kind] = stream.getvalue()
    # Pillow writes no HEIC.
    return files | {f"HEIC {name}": (HEIC / f"{name}.heic").read_bytes()
                    for name in ("upright", "turned")}  # fmt: skip


def mutate(  # noqa: C901 - eight kinds of damage
    rng: np.random.Generator, data: bytes, others: Sequence[bytes]
) -> bytes:
    """Return a file with one to three changes, as disks, networks and attackers make them."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if not changed:
            break
        start, end = sorted(int(i) for i in rng.integers(0, len(changed), 2))
        match int(rng.integers(0, 8)):
            case 0:
                for place in rng.integers(0, len(changed), int(rng.integers(1, 9))):
                    changed[place] = int(rng.integers(0, 256))
            case 1:  # in the header most bytes have a meaning
                changed[int(rng.integers(0, min(64, len(changed))))] = int(rng.integers(0, 256))
            case 2:
                del changed[start : min(end, start + 64)]
            case 3:
                changed[start:start] = changed[start : min(end, start + 64)]
            case 4:
                del changed[max(1, end) :]
            case 5:
                extreme = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xd9")
                word = extreme[int(rng.integers(0, 4))]
                changed[start : start + len(word)] = word
            case 6:
                changed[start] ^= 1 << int(rng.integers(0, 8))
            case _:
                other = others[int(rng.integers(0, len(others)))]
                place = int(rng.integers(0, len(other)))
                changed[start:end] = other[place : place + 64]
    return bytes(changed)


def with_right_checksums(png: bytes) -> bytes:
    """Return a PNG whose chunks have the CRC of their content."""
    fixed, at = bytearray(png), 8
    while at + 12 <= len(fixed):
        end = at + 8 + int.from_bytes(fixed[at : at + 4], "big")
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


if __name__ == "__main__":
    sys.exit(main())
