"""What clean finds: faults planted in the phantom and in real photos, with two peers beside it.

    python -m benchmarks.cleaning            # 17 minutes on 2 busy cores; README's table

Thresholds were chosen on phantom seed 2 and on the train folder of PyTorch's ants and bees photos
(--margins prints what they were chosen from) and are reported on seed 3 and the val folder. The
photos are drawn, or read from data/raw/ants_bees; faults are planted in copies that are added to
them, and prepare and clean run on the whole in a temporary folder, as `dvc repro` runs them, with
the fit that params.yaml gives the dataset; the ants and bees, which are cropped, letterboxed too.
cleanvision (AGPL) and imagededup are installed from the package index into an environment of their
own in that folder, never beside this project.

Found, for a copy: in one cluster with the photo that it was made from, and not both of them kept.
Found, for a contradiction: that photo and every copy of it removed for this. Found, for a fault of
quality: removed for that fault; by a peer, for any. Lost: a photo in which nothing was planted, and
that was removed for its quality or as a copy when no good copy stayed. Wrongly joined: a photo in a
cluster with another picture.

Exit status 1 where a figure of ours is below its bar (BARS), or where one of two same files that is
kept has a twin which is not called an exact duplicate of it.
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
from anklealign.config import params
from anklealign.io import pixel_store
from anklealign.similarity import registration
from synthetic import camera, photo_plan

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT / "data/raw/ants_bees"
PEER = ROOT / "benchmarks/cleaning_peers.py"
PEERS = {"cleanvision": "0.3.7", "imagededup": "0.3.3.post2"}
EACH = 60  # photos that each fault is planted in
CONTRADICTING = 20
Turn = Image.Transpose
Picture = Image.Image
Floats = npt.NDArray[np.float64]
Plant = Callable[[Picture, np.random.Generator], bytes]


def jpeg(picture: Picture, compression: int = 90) -> bytes:
    """Return the picture as a JPEG file."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=compression)
    return stream.getvalue()


def png(picture: Picture) -> bytes:
    """Return the picture as a PNG file, equal in every pixel."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def cut(
    picture: Picture, *, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0
) -> Picture:
    """Return the picture less shares of its sides."""
    width, height = picture.size
    edges = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return picture.crop(tuple(round(edge) for edge in edges))  # type: ignore[arg-type]


def levels(picture: Picture, change: Callable[[float], float]) -> bytes:
    """Return the picture with its levels changed."""
    table = [min(255, max(0, round(change(level)))) for level in range(256)]
    return jpeg(picture.point(table * 3))


def shade(rng: np.random.Generator) -> tuple[int, int, int]:
    """Return the colour of a border: black, white, grey or any."""
    plain = [(0, 0, 0), (255, 255, 255), (128, 128, 128)]
    colour = tuple(int(level) for level in rng.integers(0, 256, 3))
    return [*plain, colour][rng.integers(4)]  # type: ignore[return-value]


def wall(picture: Picture, rng: np.random.Generator) -> bytes:
    """Return a photo of nothing: one colour, light that falls off to a side, noise."""
    across = np.linspace(-8, 8, picture.width)[None, :, None]
    noise = rng.normal(0, 2, (picture.height, picture.width, 3))
    plain = rng.uniform(60, 200, 3) + across + noise
    return jpeg(Image.fromarray(np.clip(plain, 0, 255).astype(np.uint8)))


def blurred(picture: Picture) -> Picture:
    """Return the picture blurred by a sigma of 1.5 percent of its longer side."""
    return picture.filter(ImageFilter.GaussianBlur(0.015 * max(picture.size)))


def strip(picture: Picture) -> Picture:
    """Return a strip across the picture's middle, six times as long as high."""
    top = (picture.height - picture.width // 6) // 2
    return picture.crop((0, top, picture.width, top + max(1, picture.width // 6)))


COPIES: dict[str, Plant] = {
    "saved again without loss": lambda p, _: png(p),
    "re-encoded at quality 60": lambda p, _: jpeg(p, 60),
    "resized to a third": lambda p, _: jpeg(
        p.resize((max(1, p.width // 3), max(1, p.height // 3)))
    ),
    "cut by 8 % left": lambda p, _: jpeg(cut(p, left=0.08)),
    "cut by 8 % right": lambda p, _: jpeg(cut(p, right=0.08)),
    "cut by 8 % top": lambda p, _: jpeg(cut(p, top=0.08)),
    "cut by 8 % bottom": lambda p, _: jpeg(cut(p, bottom=0.08)),
    "cut by 0 to 5 % all round": lambda p, r: jpeg(
        cut(p, **dict(zip(("left", "top", "right", "bottom"), 0.05 * r.random(4), strict=True)))
    ),
    "mirrored": lambda p, _: jpeg(ImageOps.mirror(p)),
    "turned by 90°": lambda p, _: jpeg(p.transpose(Turn.ROTATE_90)),
    "turned by 180°": lambda p, _: jpeg(p.transpose(Turn.ROTATE_180)),
    "turned by 270°": lambda p, _: jpeg(p.transpose(Turn.ROTATE_270)),
    "framed by 6 %": lambda p, r: jpeg(ImageOps.expand(p, round(0.06 * max(p.size)), shade(r))),
    "squared with bars": lambda p, r: jpeg(ImageOps.pad(p, (max(p.size),) * 2, color=shade(r))),
    "brightened by 1.2": lambda p, _: levels(p, lambda level: 1.2 * level),
}
# With the reasons for which each is rightly removed: a light wall is too bright, and a strip of a
# small photo too small, before they are what they are meant for.
FAULTS: dict[str, tuple[tuple[str, ...], Plant]] = {
    "blurred, sigma 1.5 % of the side": (("blurred",), lambda p, _: jpeg(blurred(p))),
    "blurred, then framed": (
        ("blurred",),
        lambda p, r: jpeg(ImageOps.expand(blurred(p), round(0.06 * max(p.size)), shade(r))),
    ),
    "dark, 15 % of the light": (("dark",), lambda p, _: levels(p, lambda level: 0.15 * level)),
    "bright, only the upper fifth of the levels": (
        ("bright",),
        lambda p, _: levels(p, lambda level: 204 + 0.2 * level),
    ),
    "faded to 15 % of the contrast": (
        ("low_contrast",),
        lambda p, _: levels(p, lambda level: 108 + 0.15 * level),
    ),
    "a plain wall": (("low_contrast", "bright"), wall),
    "48 pixels long": (("too_small",), lambda p, _: jpeg(ImageOps.contain(p, (48, 48)))),
    "a strip, 6 to 1": (("aspect", "too_small"), lambda p, _: jpeg(strip(p))),
}
EXACT = "the same file"
OPPOSED = "the same picture with another label"
LOST, JOINED = "good photos lost", "photos wrongly joined"
# Percent: at least of each kind found, at most of the others.
BARS = {
    **dict.fromkeys((EXACT, "saved again without loss"), 100.0),
    **dict.fromkeys(list(COPIES)[1:], 95.0),
    OPPOSED: 100.0,
    **dict.fromkeys(FAULTS, 95.0),
    LOST: 1.0,
    JOINED: 0.1,
}


@dataclass(frozen=True)
class Planted:
    """A folder of photos by class and, by path below it, what each of them is."""

    folder: Path
    truth: pd.DataFrame  # index path; source (a number per picture), kind ('' for a good photo)


def drawn(seed: int, most: int | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield label and file of every photo of the phantom with this seed, or of a few of them.

    Without the faults that the phantom itself plants.
    """
    settings = params.section(params.read(ROOT / "params.yaml"), "phantom", params.Phantom)
    _, planned = photo_plan.plan(replace(settings, seed=seed, planted=0))
    good = [shot for shot in planned if not shot.fate]
    few = good[:: len(good) // (most or len(good))][:most]
    with ProcessPoolExecutor() as pool:
        for shot, photo in zip(few, pool.map(partial(_draw, seed), few), strict=True):
            yield shot.label, photo


def _draw(seed: int, shot: photo_plan.Shot) -> bytes:
    return jpeg(Image.fromarray(camera.photograph(seed, shot.sitting).pixels), shot.quality)


def read(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield label and file of every photo in class folders."""
    for path in sorted(folder.rglob("*.jpg")):
        yield path.parent.name, path.read_bytes()


def plant(
    sources: Iterable[tuple[str, bytes]],
    folder: Path,
    seed: int = 0,
    each: int = EACH,
    contradicting: int = CONTRADICTING,
) -> Planted:
    """Write the photos and, as files of their own, copies with every fault."""
    files = list(sources)
    labels = sorted({label for label, _ in files})
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(files))
    opposed, others = order[:contradicting], order[contradicting:]
    rows = []

    def add(source: int, label: str, kind: str, data: bytes) -> None:
        # A name that says nothing, and so no order that favours the original.
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
    faults = {kind: make for kind, (_, make) in FAULTS.items()}
    for kind, make in {EXACT: None, **COPIES, **faults}.items():
        for source in rng.choice(others, min(each, len(others)), replace=False):
            label, data = files[source]
            # A plain wall shows another picture than the photo whose size it has.
            own = len(files) + len(rows) if make is wall else int(source)
            add(own, label, kind, make(_open(data), rng) if make else data)
    return Planted(folder, pd.DataFrame(rows).set_index("path"))


def _open(data: bytes) -> Picture:
    return Image.open(io.BytesIO(data)).convert("RGB")


@dataclass(frozen=True)
class Outcome:
    """What a tool says of a planted folder, by path."""

    alike: dict[str, set[str]]  # photo -> the photos that it is said to show the same picture as
    poor: set[str] | None  # photos found unusable; None where the tool does not judge
    seconds: float  # CPU time, from files to findings
    removed: pd.DataFrame | None = None  # removed.csv by path; None where the tool removes nothing


def ours(planted: Planted, work: Path, fit: params.Fit) -> Outcome:
    """Run prepare and clean in a folder."""
    raw = params.read(ROOT / "params.yaml")
    labels = sorted({path.split("/")[0] for path in planted.truth.index})
    raw["datasets"] = {
        "planted": {"layout": "folders", "fit": fit, "classes": {name: [] for name in labels}}
    }
    raw["dataset"] = "planted"
    (work / "data/raw").mkdir(parents=True)
    (work / "params.yaml").write_text(json.dumps(raw), encoding="utf-8")
    (work / "data/raw/planted").symlink_to(planted.folder.resolve())
    seconds = _stage("prepare", work) + _stage("clean", work)
    kept = pixel_store.read_table(work / pixel_store.CLEAN / "photos.csv")
    removed = pixel_store.read_table(work / pixel_store.CLEAN / "removed.csv")
    together = pd.concat([kept, removed])
    together = together[together.cluster != ""]
    groups = [set(group.path) for _, group in together.groupby("cluster")]
    alike = {path: group - {path} for group in groups for path in group}
    poor = set(removed.path[removed.reason.isin(image_quality.UNUSABLE)])
    return Outcome(alike, poor, seconds, removed.set_index("path"))


def _stage(name: str, work: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return _run([sys.executable, "-m", f"stages.{name}"], cwd=work, env=environment)


def _run(command: list[str], **options: Any) -> float:  # noqa: ANN401 - subprocess's own
    """Run a command quietly and return the CPU seconds that it and its children took.

    Raises:
        RuntimeError: It failed; the last lines of what it said.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def install_peers(folder: Path) -> Path | None:
    """Return the Python of a new environment with both peers; None where they do not install."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pinned = [f"{name}=={version}" for name, version in PEERS.items()]
    try:
        _run([str(python), "-m", "pip", "install", "-q", *pinned])
    except RuntimeError as error:
        print(f"cleaning: the peers could not be installed, so they are left out: {error}")
        return None
    return python


def peer(name: str, python: Path, planted: Planted) -> Outcome:
    """Run one peer with its own defaults on a planted folder."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "found.json")
        command = [str(python), str(PEER), name, str(planted.folder), str(found)]
        seconds = _run(command)
        said = json.loads(found.read_text(encoding="utf-8"))
    poor = None if said["poor"] is None else set(said["poor"])
    return Outcome({path: set(others) for path, others in said["alike"].items()}, poor, seconds)


def figures(planted: Planted, outcome: Outcome) -> dict[str, float]:
    """Return what one tool found, in percent by kind; NaN where it does not judge."""
    truth = planted.truth
    source = truth.source.to_dict()
    removed = outcome.removed
    reason = {} if removed is None else removed.reason.to_dict()
    firsts = {
        s: set(rows.index) for s, rows in truth[truth.kind.isin(("", OPPOSED))].groupby("source")
    }

    def found(path: str, kind: str) -> bool:
        if kind in FAULTS:
            if removed is None:
                return path in (outcome.poor or ())
            return reason.get(path) in FAULTS[kind][0]
        if kind == OPPOSED and removed is not None:
            copies = truth.index[truth.source == source[path]]
            return {reason.get(copy) for copy in copies} == {"contradicting_labels"}
        joined = firsts[source[path]] & outcome.alike.get(path, set()) - {path}
        # A cluster that was broken up keeps several photos.
        return any(removed is None or path in reason or first in reason for first in joined)

    rows = {}
    for kind in (EXACT, *COPIES, OPPOSED, *FAULTS):
        paths = truth.index[truth.kind == kind]
        rows[kind] = 100 * float(np.mean([found(path, kind) for path in paths]))
        if kind in FAULTS and outcome.poor is None:
            rows[kind] = np.nan
    good = truth.index[truth.kind == ""]
    lost = sum(path in (outcome.poor or ()) for path in good)
    if removed is not None:
        usable = truth.index[~truth.kind.isin(list(FAULTS))]
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


def below_bar(planted: Planted, outcome: Outcome) -> list[str]:
    """Return a line for each figure of ours that is below its bar."""
    lines = []
    for name, share in figures(planted, outcome).items():
        if name in BARS and (share > BARS[name] if name in {LOST, JOINED} else share < BARS[name]):
            lines.append(f"{name}: {share:.2f} %, the bar is {BARS[name]:g} %")
    removed = outcome.removed
    if removed is not None:
        twins = planted.truth[planted.truth.kind == EXACT]
        firsts = planted.truth[planted.truth.kind == ""].reset_index().set_index("source").path
        for path, source in twins.source.items():
            pair = {path, firsts[source]}
            gone = sorted(pair & set(removed.index))
            if len(gone) == 1 and removed.reason[gone[0]] != "exact_duplicate":
                lines.append(f"{gone[0]}: not called an exact duplicate of {pair - {gone[0]}}")
    return lines


def margins(planted: Planted, work: Path, fit: params.Fit) -> str:
    """Return what the thresholds were chosen from: good photos' scores against planted ones'."""
    settings = params.section(params.read(ROOT / "params.yaml"), "clean", params.Clean)
    table = pixel_store.read_table(work / pixel_store.PREPARED / "photos.csv").set_index("path")
    table = table.loc[planted.truth.index]
    pictures = pixel_store.Pictures(table, pixel_store.open_store(work / pixel_store.STORE), fit)
    kinds = planted.truth.kind.to_numpy()
    scores = [
        image_quality.scores(picture, width, height, square=fit == "crop")
        for picture, width, height in zip(pictures, table.width, table.height, strict=True)
    ]
    rows = []
    for kind, ((reason, *_), _) in FAULTS.items():
        values = np.array([getattr(score, reason) for score in scores])
        rows.append(_margin(kind, reason, values[kinds == ""], values[kinds == kind], settings))
    same, other = residuals(planted, pictures, settings, squares=fit == "crop")
    rows.append(_margin("copies", "residual", other, same, settings))
    return pd.DataFrame(rows).round(2).to_markdown(index=False)


def _margin(
    kind: str, name: str, good: Floats, planted: Floats, settings: params.Clean
) -> dict[str, Any]:
    sign = 1 if image_quality.UNUSABLE.get(name, "below") == "below" else -1
    good, planted = np.sort(sign * good), np.sort(-sign * planted)
    return {
        "planted": kind,
        "threshold": name,
        "is": getattr(settings, name),
        "good, nearest": sign * good[0],
        "good, nearest 1 %": sign * np.percentile(good, 1),
        "planted, nearest 5 %": -sign * np.percentile(planted, 5),
        "planted, nearest": -sign * planted[0],
    }


def residuals(
    planted: Planted, pictures: pixel_store.Pictures, settings: params.Clean, *, squares: bool
) -> tuple[Floats, Floats]:
    """Return the residuals of proposed pairs that show one picture, and of the others."""
    chosen = np.flatnonzero(planted.truth.kind.isin(("", EXACT, *COPIES)))
    source = planted.truth.source.to_numpy()[chosen]
    album = registration.Album(pictures, list(chosen), squares=squares)
    best: dict[tuple[int, int], float] = {}
    for a, b, placement in album.propose(settings.hash_distance):
        match = album.compare(a, b, placement)
        if match is not None:
            pair = (min(a, b), max(a, b))
            best[pair] = min(match.residual, best.get(pair, np.inf))
    same = [residual for (a, b), residual in best.items() if source[a] == source[b]]
    other = [residual for (a, b), residual in best.items() if source[a] != source[b]]
    return np.array(same), np.array(other or [np.nan])


def main() -> int:
    """Print the table, and what of it is below its bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=Path, default=REAL, help="ants and bees: train/, val/")
    parser.add_argument("--margins", action="store_true", help="what thresholds were chosen from")
    options = parser.parse_args()
    blocks = params.read(ROOT / "params.yaml")
    own = {
        name: params.section(blocks, f"datasets.{name}", params.Dataset).fit
        for name in ("phantom", "ants_bees")
    }
    seed, part = (2, "train") if options.margins else (3, "val")
    sets = [(f"phantom, seed {seed}", drawn(seed), [own["phantom"]])]
    if options.photos.is_dir():
        fits = list(dict.fromkeys([own["ants_bees"], "letterbox"]))
        sets.append((f"ants and bees, {part}", read(options.photos / part), fits))
    else:
        print(f"cleaning: {options.photos} is not there, so the ants and bees are left out")
    faults = []
    columns: list[tuple[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as temporary:
        python = None if options.margins else install_peers(Path(temporary, "peers"))
        for number, (name, sources, fits) in enumerate(sets):
            planted = plant(sources, Path(temporary, f"planted{number}"))
            print(f"{name}: {len(planted.truth)} photos, {sum(planted.truth.kind == '')} good ones")
            for fit in fits:
                work = Path(temporary, f"work{number}{fit}")
                outcome = ours(planted, work, fit)
                columns.append((f"this, {fit}", figures(planted, outcome)))
                faults += [f"{name}, {fit}: {line}" for line in below_bar(planted, outcome)]
                if options.margins:
                    print(f"\n{margins(planted, work, fit)}\n")
            if python:
                columns += [(p, figures(planted, peer(p, python, planted))) for p in PEERS]
    if python:
        print("; ".join(f"{name} {version}" for name, version in PEERS.items()))
    print(f"\n{table_of(columns)}")
    print("\n".join(faults))
    return 1 if faults else 0


def table_of(columns: list[tuple[str, dict[str, float]]]) -> str:
    """Return the table: percent by kind and tool, seconds last."""
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
