"""Benchmark clean on injected corruptions in the synthetic set and real photos, next to two peers.

    python -m benchmarks.cleaning            # docs/data-cleaning.md; 11 minutes on 2 busy cores
    python -m benchmarks.cleaning --cost FOLDER     # of class folders

The thresholds were chosen on synthetic seed 2 and on the train folder of PyTorch's ants and bees
photos (--margins prints the data behind them) and are evaluated on seed 3 and the val folder. The
photos are drawn, or read from data/raw/ants_bees; corrupted copies are added to them, and prepare
and clean run on them in a temporary folder, as `dvc repro` runs them, with the fit that
params.yaml sets for the dataset; the ants and bees, which are cropped, are also letterboxed.
cleanvision (AGPL) and imagededup are installed from the package index into an environment of their
own in that folder, separate from this project's.

Detected, for a duplicate: in one cluster with the photo from which it was made, and not both of
them kept. Detected, for a contradiction: that photo and all its duplicates removed for this reason.
Detected, for a quality issue: removed for that reason, with all actions set to remove; by a peer,
for any reason. Lost: an intact photo that was removed for its quality, or as a duplicate when no
good duplicate was kept. Wrongly clustered: a photo in a cluster with another picture.

The exit status is 1 if a result of ours misses its target (TARGETS), or if one of two identical
files is kept and the other is not reported as its exact duplicate.

--cost measures photos as they are instead: the CPU time of prepare and clean next to that of
cleanvision's checks on the same files. The exit status is 1 above MAX_COST times.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageFilter, ImageOps

from anklealign.cleaning import image_quality
from anklealign.config import params, paths
from anklealign.io import pixel_store
from anklealign.similarity import registration
from anklealign.similarity.borders import PhotoPixels
from synthetic import camera, photo_plan

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT / "data/raw/ants_bees"
PEER = ROOT / "benchmarks/cleaning_peers.py"
PEERS = {"cleanvision": "0.3.7", "imagededup": "0.3.3.post2"}
EACH = 60  # photos per kind of corruption
CONTRADICTING = 20
MAX_COST = 0.75
Turn = Image.Transpose
Picture = Image.Image
Floats = npt.NDArray[np.float64]
Corrupt = Callable[[Picture, np.random.Generator], bytes]


def jpeg(picture: Picture, compression: int = 90) -> bytes:
    """Return the picture as a JPEG file."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=compression)
    return stream.getvalue()


def png(picture: Picture) -> bytes:
    """Return the picture as a PNG file, without loss."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def crop(
    picture: Picture, *, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0
) -> Picture:
    """Return the picture cropped by shares of its sides."""
    width, height = picture.size
    edges = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return picture.crop(tuple(round(edge) for edge in edges))  # type: ignore[arg-type]


def levels(picture: Picture, change: Callable[[float], float]) -> bytes:
    """Return the picture as a JPEG file with its levels changed."""
    table = [min(255, max(0, round(change(level)))) for level in range(256)]
    return jpeg(picture.point(table * 3))


def shade(rng: np.random.Generator) -> tuple[int, int, int]:
    """Return the color of a border: black, white, gray, or random."""
    plain = [(0, 0, 0), (255, 255, 255), (128, 128, 128)]
    color = tuple(int(level) for level in rng.integers(0, 256, 3))
    return [*plain, color][rng.integers(4)]  # type: ignore[return-value]


def wall(picture: Picture, rng: np.random.Generator) -> bytes:
    """Return a photo of a plain wall: one color, light that falls off to one side, and noise."""
    across = np.linspace(-8, 8, picture.width)[None, :, None]
    noise = rng.normal(0, 2, (picture.height, picture.width, 3))
    plain = rng.uniform(60, 200, 3) + across + noise
    return jpeg(Image.fromarray(np.clip(plain, 0, 255).astype(np.uint8)))


def blurred(picture: Picture) -> Picture:
    """Return the picture blurred by a sigma of 1.5 percent of its longer side."""
    return picture.filter(ImageFilter.GaussianBlur(0.015 * max(picture.size)))


def strip(picture: Picture) -> Picture:
    """Return a strip across the picture's middle, six times as wide as high."""
    top = (picture.height - picture.width // 6) // 2
    return picture.crop((0, top, picture.width, top + max(1, picture.width // 6)))


COPIES: dict[str, Corrupt] = {
    "re-encoded losslessly": lambda p, _: png(p),
    "re-encoded at quality 60": lambda p, _: jpeg(p, 60),
    "resized to a third": lambda p, _: jpeg(
        p.resize((max(1, p.width // 3), max(1, p.height // 3)))
    ),
    "cropped by 8% on the left": lambda p, _: jpeg(crop(p, left=0.08)),
    "cropped by 8% on the right": lambda p, _: jpeg(crop(p, right=0.08)),
    "cropped by 8% at the top": lambda p, _: jpeg(crop(p, top=0.08)),
    "cropped by 8% at the bottom": lambda p, _: jpeg(crop(p, bottom=0.08)),
    "cropped by 0 to 5% on all sides": lambda p, r: jpeg(
        crop(p, **dict(zip(("left", "top", "right", "bottom"), 0.05 * r.random(4), strict=True)))
    ),
    "flipped horizontally": lambda p, _: jpeg(ImageOps.mirror(p)),
    "rotated by 90°": lambda p, _: jpeg(p.transpose(Turn.ROTATE_90)),
    "rotated by 180°": lambda p, _: jpeg(p.transpose(Turn.ROTATE_180)),
    "rotated by 270°": lambda p, _: jpeg(p.transpose(Turn.ROTATE_270)),
    "bordered by 6%": lambda p, r: jpeg(ImageOps.expand(p, round(0.06 * max(p.size)), shade(r))),
    "padded to a square": lambda p, r: jpeg(ImageOps.pad(p, (max(p.size),) * 2, color=shade(r))),
    "brightened by 1.2": lambda p, _: levels(p, lambda level: 1.2 * level),
}
# With the reasons that count as correct: a light wall may be reported as too bright, and a strip of
# a small photo as too small, because these reasons come first.
QUALITY_CORRUPTIONS: dict[str, tuple[tuple[str, ...], Corrupt]] = {
    "blurred, sigma 1.5% of the side": (("blurred",), lambda p, _: jpeg(blurred(p))),
    "blurred, then bordered": (
        ("blurred",),
        lambda p, r: jpeg(ImageOps.expand(blurred(p), round(0.06 * max(p.size)), shade(r))),
    ),
    "dark, 15% of the brightness": (("dark",), lambda p, _: levels(p, lambda level: 0.15 * level)),
    "bright, only the upper fifth of the gray levels": (
        ("bright",),
        lambda p, _: levels(p, lambda level: 204 + 0.2 * level),
    ),
    "reduced to 15% of the contrast": (
        ("low_contrast",),
        lambda p, _: levels(p, lambda level: 108 + 0.15 * level),
    ),
    "a plain wall": (("low_contrast", "bright"), wall),
    "48 px long": (("too_small",), lambda p, _: jpeg(ImageOps.contain(p, (48, 48)))),
    "a strip of 6 to 1": (("aspect", "too_small"), lambda p, _: jpeg(strip(p))),
}
EXACT = "the same file"
OPPOSED = "the same picture with another label"
LOST, JOINED = "good photos lost", "photos wrongly clustered"
# Percent: the minimum of each kind detected, the maximum of LOST and JOINED.
TARGETS = {
    **dict.fromkeys((EXACT, "re-encoded losslessly"), 100.0),
    **dict.fromkeys(list(COPIES)[1:], 95.0),
    OPPOSED: 100.0,
    **dict.fromkeys(QUALITY_CORRUPTIONS, 95.0),
    LOST: 1.0,
    JOINED: 0.1,
}


@dataclass(frozen=True)
class CorruptedSet:
    """A folder of photos by class, and the truth about each by its path in the folder."""

    folder: Path
    truth: pd.DataFrame  # index path; source (a number per picture), kind ('' for an intact photo)


def drawn(seed: int, maximum: int | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield label and file of all photos, or of `maximum`, of the synthetic set with this seed.

    The synthetic set's own corruptions are left out.
    """
    settings = params.section(params.read(ROOT / "params.yaml"), "synthetic", params.Synthetic)
    _, planned = photo_plan.plan(replace(settings, seed=seed, corruptions=0))
    good = [shot for shot in planned if not shot.defect]
    few = good[:: len(good) // (maximum or len(good))][:maximum]
    with ProcessPoolExecutor() as pool:
        for shot, photo in zip(few, pool.map(partial(_draw, seed), few), strict=True):
            yield shot.label, photo


def _draw(seed: int, shot: photo_plan.Shot) -> bytes:
    return jpeg(Image.fromarray(camera.photograph(seed, shot.capture).pixels), shot.quality)


def read(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield label and file of every photo in class folders."""
    for path in sorted(folder.rglob("*.jpg")):
        yield path.parent.name, path.read_bytes()


def inject(
    sources: Iterable[tuple[str, bytes]],
    folder: Path,
    seed: int = 0,
    each: int = EACH,
    contradicting: int = CONTRADICTING,
) -> CorruptedSet:
    """Write the photos and copies of them with every kind of corruption."""
    files = list(sources)
    labels = sorted({label for label, _ in files})
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(files))
    opposed, others = order[:contradicting], order[contradicting:]
    rows = []

    def add(source: int, label: str, kind: str, data: bytes) -> None:
        # A random name, so that the order does not favor the original.
        path = f"{label}/{rng.integers(2**62):016x}.jpg"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        rows.append({"path": path, "source": source, "kind": kind})

    for source, (label, data) in enumerate(files):
        add(source, label, OPPOSED if source in opposed else "", data)
    for source in opposed:
        label, data = files[source]
        other = labels[(labels.index(label) + 1) % len(labels)]
        add(source, other, OPPOSED, jpeg(_open(data)))
    corruptions = {kind: make for kind, (_, make) in QUALITY_CORRUPTIONS.items()}
    for kind, make in {EXACT: None, **COPIES, **corruptions}.items():
        for source in rng.choice(others, min(each, len(others)), replace=False):
            label, data = files[source]
            # A plain wall is another picture than the photo whose size it has.
            own = len(files) + len(rows) if make is wall else int(source)
            add(own, label, kind, make(_open(data), rng) if make else data)
    return CorruptedSet(folder, pd.DataFrame(rows).set_index("path"))


def _open(data: bytes) -> Picture:
    return Image.open(io.BytesIO(data)).convert("RGB")


@dataclass(frozen=True)
class Outcome:
    """The result of a tool on a corrupted folder, by path."""

    alike: dict[str, set[str]]  # photo -> its duplicates according to the tool
    poor: set[str] | None  # unusable photos; None if the tool does not assess quality
    seconds: float  # CPU time, from files to result
    removed: pd.DataFrame | None = None  # removed.csv by path; None if the tool removes nothing


def ours(corrupted: CorruptedSet, work: Path, fit: params.Fit) -> Outcome:
    """Run prepare and clean in a folder."""
    raw = params.read(ROOT / "params.yaml")
    labels = sorted({path.split("/")[0] for path in corrupted.truth.index})
    raw["datasets"] = {
        "corrupted": {"layout": "folders", "fit": fit, "classes": {name: [] for name in labels}}
    }
    raw["dataset"] = "corrupted"
    # A reason finds the same photos whether it removes or flags them.
    raw["clean"]["actions"] = dict.fromkeys(image_quality.QUALITY_REASONS, "remove")
    (work / "data/raw").mkdir(parents=True)
    (work / "params.yaml").write_text(json.dumps(raw), encoding="utf-8")
    (work / "data/raw/corrupted").symlink_to(corrupted.folder.resolve())
    seconds = _stage("prepare", work) + _stage("clean", work)
    kept = pixel_store.read_table(work / paths.CLEAN / "photos.csv")
    removed = pixel_store.read_table(work / paths.CLEAN / "removed.csv")
    together = pd.concat([kept, removed])
    together = together[together.cluster != ""]
    groups = [set(group.path) for _, group in together.groupby("cluster")]
    alike = {path: group - {path} for group in groups for path in group}
    poor = set(removed.path[removed.reason.isin(image_quality.QUALITY_REASONS)])
    return Outcome(alike, poor, seconds, removed.set_index("path"))


def _stage(name: str, work: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return _run([sys.executable, "-m", f"stages.{name}"], cwd=work, env=environment)


def _run(command: list[str], **options: Any) -> float:  # noqa: ANN401 - subprocess's own
    """Run a command quietly and return the CPU seconds that it and its children took.

    Raises:
        RuntimeError: The command failed; the message ends with its last lines of output.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def install_peers(folder: Path) -> Path | None:
    """Return the Python of a new environment with both peers; None if they cannot be installed."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pinned = [f"{name}=={version}" for name, version in PEERS.items()]
    try:
        _run([str(python), "-m", "pip", "install", "-q", *pinned])
    except RuntimeError as error:
        print(f"cleaning: the peers could not be installed and are skipped: {error}")
        return None
    return python


def peer(name: str, python: Path, corrupted: CorruptedSet) -> Outcome:
    """Run one peer with its defaults on a corrupted folder."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "result.json")
        command = [str(python), str(PEER), name, str(corrupted.folder), str(output)]
        seconds = _run(command)
        result = json.loads(output.read_text(encoding="utf-8"))
    poor = None if result["poor"] is None else set(result["poor"])
    return Outcome({path: set(others) for path, others in result["alike"].items()}, poor, seconds)


def cost(folder: Path) -> int:
    """Print the CPU seconds for the photos of a folder as they are; return the exit status."""
    photos = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    unchanged = CorruptedSet(folder, pd.DataFrame(index=sorted(photos)))
    with tempfile.TemporaryDirectory() as temporary:
        python = install_peers(Path(temporary, "peers"))
        if not python:
            return 1
        own = ours(unchanged, Path(temporary, "work"), "letterbox").seconds
        other = peer("cleanvision", python, unchanged).seconds
    print(
        f"{len(photos):,} files: prepare and clean {own:.0f} CPU s, cleanvision {other:.0f}; "
        f"{own / other:.2f} times"
    )
    return int(own > MAX_COST * other)


def figures(corrupted: CorruptedSet, outcome: Outcome) -> dict[str, float]:
    """Return the results of one tool, in percent by kind; NaN if it does not assess quality."""
    truth = corrupted.truth
    source = truth.source.to_dict()
    removed = outcome.removed
    reason = {} if removed is None else removed.reason.to_dict()
    firsts = {
        s: set(rows.index) for s, rows in truth[truth.kind.isin(("", OPPOSED))].groupby("source")
    }

    def detected(path: str, kind: str) -> bool:
        if kind in QUALITY_CORRUPTIONS:
            if removed is None:
                return path in (outcome.poor or ())
            return reason.get(path) in QUALITY_CORRUPTIONS[kind][0]
        if kind == OPPOSED and removed is not None:
            copies = truth.index[truth.source == source[path]]
            return {reason.get(copy) for copy in copies} == {"contradicting_labels"}
        joined = firsts[source[path]] & outcome.alike.get(path, set()) - {path}
        # A chain of several clusters keeps several photos.
        return any(removed is None or path in reason or first in reason for first in joined)

    rows = {}
    for kind in (EXACT, *COPIES, OPPOSED, *QUALITY_CORRUPTIONS):
        paths = truth.index[truth.kind == kind]
        rows[kind] = 100 * float(np.mean([detected(path, kind) for path in paths]))
        if kind in QUALITY_CORRUPTIONS and outcome.poor is None:
            rows[kind] = np.nan
    good = truth.index[truth.kind == ""]
    lost = sum(path in (outcome.poor or ()) for path in good)
    if removed is not None:
        usable = truth.index[~truth.kind.isin(list(QUALITY_CORRUPTIONS))]
        stay = {source[path] for path in usable.difference(removed.index)}
        lost += len({source[path] for path in good} - stay)
    wrong = [
        path
        for path, others in outcome.alike.items()
        if any(source[other] != source[path] for other in others)
    ]
    rows[LOST] = 100 * lost / len(good) if outcome.poor is not None else np.nan
    rows[JOINED] = 100 * len(wrong) / len(truth)
    rows["CPU time, s"] = round(outcome.seconds)
    return rows


def missed_targets(corrupted: CorruptedSet, outcome: Outcome) -> list[str]:
    """Return a line for each of our results that misses its target."""
    lines = []
    for name, share in figures(corrupted, outcome).items():
        if name in TARGETS and (
            share > TARGETS[name] if name in {LOST, JOINED} else share < TARGETS[name]
        ):
            lines.append(f"{name}: {share:.2f}%, the target is {TARGETS[name]:g}%")
    removed = outcome.removed
    if removed is not None:
        twins = corrupted.truth[corrupted.truth.kind == EXACT]
        firsts = corrupted.truth[corrupted.truth.kind == ""].reset_index().set_index("source").path
        for path, source in twins.source.items():
            pair = {path, firsts[source]}
            gone = sorted(pair & set(removed.index))
            if len(gone) == 1 and removed.reason[gone[0]] != "exact_duplicate":
                lines.append(f"{gone[0]}: not reported as an exact duplicate of {pair - {gone[0]}}")
    return lines


def margins(corrupted: CorruptedSet, work: Path, fit: params.Fit) -> str:
    """Return a table of the scores of intact and corrupted photos, to choose thresholds from."""
    settings = params.section(params.read(ROOT / "params.yaml"), "clean", params.Clean)
    table = pixel_store.read_table(work / paths.PREPARED / "photos.csv").set_index("path")
    table = table.loc[corrupted.truth.index]
    pictures = pixel_store.Pictures(table, pixel_store.open_store(work / paths.STORE), fit)
    kinds = corrupted.truth.kind.to_numpy()
    scores = [
        image_quality.measure(PhotoPixels(picture), width, height, square=fit == "crop")
        for picture, width, height in zip(pictures, table.width, table.height, strict=True)
    ]
    rows = []
    for kind, ((reason, *_), _) in QUALITY_CORRUPTIONS.items():
        values = np.array([getattr(score, reason) for score in scores])
        rows.append(_margin(kind, reason, values[kinds == ""], values[kinds == kind], settings))
    same, other = residuals(corrupted, pictures, settings, squares=fit == "crop")
    rows.append(_margin("copies", "residual", other, same, settings))
    return pd.DataFrame(rows).round(2).to_markdown(index=False)


def _margin(
    kind: str, name: str, good: Floats, corrupted: Floats, settings: params.Clean
) -> dict[str, Any]:
    sign = 1 if image_quality.QUALITY_REASONS.get(name, "below") == "below" else -1
    good, corrupted = np.sort(sign * good), np.sort(-sign * corrupted)
    return {
        "corruption": kind,
        "threshold": name,
        "value": getattr(settings, name),
        "intact, nearest": sign * good[0],
        "intact, nearest 1%": sign * np.percentile(good, 1),
        "corrupted, nearest 5%": -sign * np.percentile(corrupted, 5),
        "corrupted, nearest": -sign * corrupted[0],
    }


def residuals(
    corrupted: CorruptedSet,
    pictures: pixel_store.Pictures,
    settings: params.Clean,
    *,
    squares: bool,
) -> tuple[Floats, Floats]:
    """Return the residuals of proposed pairs of the same picture, and of the other pairs."""
    chosen = np.flatnonzero(corrupted.truth.kind.isin(("", EXACT, *COPIES)))
    source = corrupted.truth.source.to_numpy()[chosen]
    matcher = registration.PhotoMatcher(pictures, squares=squares)
    matcher.select(chosen.tolist())
    best: dict[tuple[int, int], float] = {}
    for a, b, transform in matcher.propose(settings.hash_distance):
        match = matcher.register(a, b, transform)
        if match is not None:
            pair = (min(a, b), max(a, b))
            best[pair] = min(match.residual, best.get(pair, np.inf))
    same = [residual for (a, b), residual in best.items() if source[a] == source[b]]
    other = [residual for (a, b), residual in best.items() if source[a] != source[b]]
    return np.array(same), np.array(other or [np.nan])


def main() -> int:
    """Print the table and the results that miss their target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--photos", type=Path, default=REAL, help="ants and bees, with train/ and val/"
    )
    parser.add_argument(
        "--margins", action="store_true", help="print the scores behind the thresholds"
    )
    parser.add_argument("--cost", type=Path, metavar="FOLDER", help="measure its photos instead")
    options = parser.parse_args()
    if options.cost:
        return cost(options.cost)
    raw = params.read(ROOT / "params.yaml")
    own = {
        name: params.section(raw, f"datasets.{name}", params.Dataset).fit
        for name in ("synthetic", "ants_bees")
    }
    seed, folder = (2, "train") if options.margins else (3, "val")
    sets = [(f"synthetic, seed {seed}", drawn(seed), [own["synthetic"]])]
    if options.photos.is_dir():
        fits = list(dict.fromkeys([own["ants_bees"], "letterbox"]))
        sets.append((f"ants and bees, {folder}", read(options.photos / folder), fits))
    else:
        print(f"cleaning: {options.photos} does not exist; the ants and bees are skipped")
    missed = []
    columns: list[tuple[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as temporary:
        python = None if options.margins else install_peers(Path(temporary, "peers"))
        for number, (name, sources, fits) in enumerate(sets):
            corrupted = inject(sources, Path(temporary, f"corrupted{number}"))
            print(
                f"{name}: {len(corrupted.truth)} photos, {sum(corrupted.truth.kind == '')} intact"
            )
            for fit in fits:
                work = Path(temporary, f"work{number}{fit}")
                outcome = ours(corrupted, work, fit)
                columns.append((f"AnkleAlign, {fit}", figures(corrupted, outcome)))
                missed += [f"{name}, {fit}: {line}" for line in missed_targets(corrupted, outcome)]
                if options.margins:
                    print(f"\n{margins(corrupted, work, fit)}\n")
            if python:
                columns += [(p, figures(corrupted, peer(p, python, corrupted))) for p in PEERS]
    if python:
        print("; ".join(f"{name} {version}" for name, version in PEERS.items()))
    print(f"\n{table_of(columns)}")
    print("\n".join(missed))
    return 1 if missed else 0


def table_of(columns: list[tuple[str, dict[str, float]]]) -> str:
    """Return the Markdown table: percent by kind and tool, seconds last."""
    kinds = list(columns[0][1])
    lines = [["%", *(name for name, _ in columns)]]
    for kind in kinds:
        places = 2 if kind == JOINED else 0 if kind.startswith("CPU") else 1
        cells = [rows[kind] for _, rows in columns]
        shown = ["-" if np.isnan(cell) else f"{round(cell, places):g}" for cell in cells]
        lines.append([kind, *shown])
    align = ["---", *["--:"] * len(columns)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], align, *lines[1:]])


if __name__ == "__main__":
    sys.exit(main())
