"""Benchmark the audit's criterion: duplicates of every kind against pictures of one template.

    python -m benchmarks.same_picture                  # docs/data-cleaning.md; 2 minutes
    python -m benchmarks.same_picture --half tune      # the half on which thresholds were chosen
    python -m benchmarks.same_picture --photos FOLDER  # of photos, instead of ants and bees

Duplicates are made of photos by the changes of benchmarks/cleaning.py, and as center squares of
100 pixels. Pictures of one template are drawn: letters on one letterhead, product photos on white,
fluorescent cells, and shots of a fixed camera, with and without a defect of about 5% of the side,
the defects on one half of the photos. Half of each set is held out and audited against the other
half. `limits` counts the pairs within a residual of 0.3 or a correlation of 0.95, `same picture`
those that also agree in detail, color, and noise.

The exit status is 1 if less than 80% of a kind of duplicates, or any pair of one template, counts
as the same picture.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps

from anklealign.config import params
from anklealign.config.params import Split
from anklealign.io.pixel_store import Pixels
from anklealign.splitting.leakage import LeakageAudit, Pair, same_picture
from benchmarks import cleaning
from benchmarks.cleaning import Picture

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = 60  # whole photos
EACH = 12  # duplicates of each kind
TEMPLATES = 40  # pictures of each template
LEAST, MOST = 80.0, 0.0  # % of duplicates, % of pictures of one template
STORED = 256  # pixels, as params.yaml's prepare.size
THUMBNAIL = "center square of 100 px"


def letter(seed: int) -> Picture:
    """Return a page of random text below one letterhead."""
    rng = np.random.default_rng(seed)
    page = Image.new("RGB", (620, 877), "white")
    draw = ImageDraw.Draw(page)
    draw.rectangle((40, 30, 580, 110), fill=(20, 40, 120))
    draw.ellipse((60, 40, 120, 100), fill="white")
    draw.line((40, 130, 580, 130), fill="black", width=3)
    draw.rectangle((40, 800, 580, 840), fill=(200, 200, 210))
    font = ImageFont.truetype(f"{mpl.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 18)
    for line in range(rng.integers(8, 22)):
        codes = rng.choice([*range(97, 123), *[32] * 5], 48)
        draw.text((60, 160 + 28 * line), "".join(map(chr, codes)), fill="black", font=font)
    return page


def product(seed: int) -> Picture:
    """Return a two-colored pen, ball, or box on white."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (600, 600), "white")
    draw = ImageDraw.Draw(picture)
    one, other = (tuple(int(level) for level in rng.integers(0, 180, 3)) for _ in range(2))
    kind, size = seed % 3, int(rng.integers(100, 200))
    if kind == 0:
        left, top = int(rng.integers(40, 90)), int(rng.integers(200, 400))
        draw.rectangle((left, top, left + 440, top + 40), fill=one)
        draw.rectangle((left + 260, top, left + 440, top + 40), fill=other)
    elif kind == 1:
        draw.ellipse((300 - size, 300 - size, 300 + size, 300 + size), fill=one)
        draw.ellipse((300 - size // 2, 300 - size // 2, 300, 300), fill=other)
    else:
        draw.rectangle((300 - size, 200, 300 + size, 420), fill=one)
        draw.rectangle((280, 150, 340, 200), fill=other)
    return picture


def cells(seed: int) -> Picture:
    """Return fluorescent cells on black."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:300, :300]
    green = np.zeros((300, 300))
    for _ in range(rng.integers(6, 25)):
        x, y = rng.integers(10, 290, 2)
        spread = 2 * rng.uniform(4, 12) ** 2
        green += rng.uniform(60, 200) * np.exp(-((across - x) ** 2 + (down - y) ** 2) / spread)
    pixels = rng.integers(0, 4, (300, 300, 3)).astype(np.float64)
    pixels[:, :, 1] += green
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def shot(seed: int) -> Picture:
    """Return a shot of one part by a fixed camera: moved by a pixel or two, with its own noise."""
    rng = np.random.default_rng(seed)
    picture = product(2).resize((300, 300))
    background = np.random.default_rng(0).integers(60, 200, (6, 8, 3), dtype=np.uint8)
    scene = Image.fromarray(background).resize((320, 240), Image.Resampling.BICUBIC)
    scene.paste(picture.crop((50, 60, 250, 230)), (60, 40))
    if seed % 4 >= 2:
        draw = ImageDraw.Draw(scene)
        x, y = int(rng.integers(70, 230)), int(rng.integers(50, 190))
        if seed % 8 >= 4:
            draw.rectangle((x, y, x + 14, y + 12), fill=(90, 90, 90))
        else:
            draw.line((x, y, x + int(rng.integers(10, 25)), y + 8), fill=(20, 20, 20), width=3)
    levels = np.asarray(scene) * rng.uniform(0.95, 1.05) + rng.normal(0, 4, (240, 320, 3))
    moved = np.roll(levels, tuple(rng.integers(-2, 3, 2)), (0, 1))
    return Image.fromarray(moved.clip(0, 255).astype(np.uint8))


SETS: dict[str, Callable[[int], Picture]] = {
    "letters on one letterhead": letter,
    "products on white": product,
    "fluorescent cells": cells,
    "shots of a fixed camera": shot,
}


def stored(data: bytes) -> Pixels:
    """Return a file's pixels as the pixel store has them, without enlargement."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    picture.thumbnail((STORED, STORED), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def pairs_of_duplicates(
    files: list[Path], rng: np.random.Generator
) -> Iterator[tuple[str, bool, list[Pair]]]:
    """Yield kind, True, and the pairs of each duplicate with its original."""
    photos = [Image.open(path).convert("RGB") for path in files]
    for photo in photos:
        photo.thumbnail((1000, 1000))
    pixels = [stored(cleaning.jpeg(photo, 92)) for photo in photos]
    kinds = cleaning.COPIES | {
        THUMBNAIL: lambda picture, _: cleaning.jpeg(ImageOps.fit(picture, (100, 100)))
    }
    sources, names = [], []
    for name, change in kinds.items():
        for source in rng.choice(len(photos), min(EACH, len(photos)), replace=False):
            pixels.append(stored(change(photos[source], rng)))
            sources.append(int(source))
            names.append(name)
    splits = ["train"] * len(photos) + ["test"] * len(sources)
    by_photo: dict[int, list[Pair]] = {}
    for pair in LeakageAudit(pixels).nearest_pairs(splits, ("test",)):
        if pair.b == sources[pair.a - len(photos)]:
            by_photo.setdefault(pair.a, []).append(pair)
    for number, name in enumerate(names, len(photos)):
        yield name, True, by_photo.get(number, [])


def pairs_of_template(make: Callable[[int], Picture], first: int) -> Iterator[list[Pair]]:
    """Yield the pairs of each held-out picture of a template with other pictures of it."""
    pixels = [stored(cleaning.jpeg(make(seed))) for seed in range(first, first + TEMPLATES)]
    splits = [("train", "test")[n % 2] for n in range(len(pixels))]
    pairs = LeakageAudit(pixels).nearest_pairs(splits, ("test",))
    for photo in range(1, len(pixels), 2):
        yield [pair for pair in pairs if pair.a == photo]


def main() -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=Path, default=cleaning.REAL, help="folder of photos")
    parser.add_argument("--half", choices=("tune", "report"), default="report")
    options = parser.parse_args()
    settings = params.section(params.read(ROOT / "params.yaml"), "split", Split)
    half = options.half == "report"
    rows: list[tuple[str, bool, list[Pair]]] = []
    files = sorted(path for path in options.photos.rglob("*.*") if path.suffix != ".csv")[half::2]
    if files:
        chosen = files[:: max(1, len(files) // PHOTOS)][:PHOTOS]
        rows += pairs_of_duplicates(chosen, np.random.default_rng(half))
    else:
        print(f"same_picture: {options.photos} has no photos; the duplicates are skipped")
    for name, make in SETS.items():
        rows += ((name, False, pairs) for pairs in pairs_of_template(make, 1000 * half))
    table = pd.DataFrame(
        [
            {
                "pictures": name,
                "duplicates": duplicates,
                "held out": 1,
                "limits, %": 100 * any(_within(pair, settings) for pair in pairs),
                "same picture, %": 100 * any(same_picture(pair, settings) for pair in pairs),
            }
            for name, duplicates, pairs in rows
        ]
    )
    shares = table.groupby("pictures", sort=False).agg(
        {"duplicates": "first", "held out": "sum", "limits, %": "mean", "same picture, %": "mean"}
    )
    print(shares.drop(columns="duplicates").round(1).to_markdown())
    same = shares["same picture, %"]
    missed = shares[np.where(shares.duplicates, same < LEAST, same > MOST)]
    print("\n".join(f"{name}: misses its target" for name in missed.index))
    return 1 if len(missed) else 0


def _within(pair: Pair, settings: Split) -> bool:
    """Return whether a pair is within the limits of residual or correlation."""
    return (
        pair.residual <= settings.leakage_residual
        or pair.correlation >= settings.leakage_correlation
    )


if __name__ == "__main__":
    sys.exit(main())
