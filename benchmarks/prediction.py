"""Measure `anklealign predict` against decoding and the network alone.

    python -m benchmarks.prediction [FOLDER] [--photos 512] [--rounds 3]

Takes photos of FOLDER (default: data/raw/synthetic) and the bundle in model/, in one thread, and
alternates in each round: decoding them into the bundle's square; the bundle's network and the
novelty detector on those squares, in the passes of predict; and the whole command, with its list of
files, its parts and its table. Prints photos per CPU second, so that other programs do not matter,
and exit status 1 if the median of the command's rate is below 0.9 of decoding and network together.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np

from anklealign.cli import predict
from anklealign.cli.photo_sources import photos_in
from anklealign.config import paths
from anklealign.inference.predictor import Predictor
from anklealign.io import decode
from anklealign.models import inputs
from anklealign.models.input_config import CHUNK

ROOT = Path(__file__).resolve().parents[1]
MIN_RATIO = 0.9


def main() -> int:
    """Print the rates; return 1 if the command's is too low."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "data/raw/synthetic")
    parser.add_argument("--photos", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds-only", action="store_true", help="print the command's seconds")
    options = parser.parse_args()
    inputs.configure_cpu(1)
    joblib.cpu_count = lambda: 1  # one thread of photos, too
    predictor = Predictor.load(ROOT / paths.MODEL, "cpu")
    names = readable(predictor, options.folder, options.photos)
    squares = np.stack([predictor.preprocess(name) for name in names])
    ways: dict[str, Callable[[], object]] = {
        "decode": lambda: [predictor.preprocess(name) for name in names],
        "network": lambda: network(predictor, squares),
        "predict": lambda: command(names),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            taken = measure(way, len(names))
            if number:  # the first round warms up
                seconds[name].append(taken)
    if options.seconds_only:
        print(statistics.median(seconds["predict"]))
        return 0
    limits = [a + b for a, b in zip(seconds["decode"], seconds["network"], strict=True)]
    ratios = [limit / own for limit, own in zip(limits, seconds["predict"], strict=True)]
    print(f"{len(names)} photos, {options.rounds} rounds, one thread\n")
    print("| | photos per CPU second |\n|---|--:|")
    for name, own in (*seconds.items(), ("decode and network", limits)):
        print(f"| {name} | {1 / statistics.median(own):.1f} |")
    ratio = statistics.median(ratios)
    print(f"\nratio {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    return int(ratio < MIN_RATIO)


def measure(way: Callable[[], object], photos: int) -> float:
    """Return the CPU seconds for a photo."""
    start = time.process_time()
    way()
    return (time.process_time() - start) / photos


def readable(predictor: Predictor, folder: Path, count: int) -> list[str]:
    """Return the first `count` readable photos of a folder."""
    names = []
    for name in photos_in([str(folder)]):
        try:
            predictor.preprocess(name)
        except decode.PhotoError:
            continue
        names.append(name)
        if len(names) == count:
            break
    return names


def network(predictor: Predictor, squares: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    """Run the networks of a prediction in the passes of predict."""
    for start in range(0, len(squares), CHUNK):
        predictor.probabilities(squares[start : start + CHUNK])
        predictor.novelty_scores(squares[start : start + CHUNK])


def command(names: list[str]) -> None:
    """Run the command on a list of photos."""
    with tempfile.TemporaryDirectory(prefix="prediction-") as folder:
        listed, out = Path(folder) / "photos.txt", Path(folder) / "predictions.csv"
        listed.write_text("\n".join(str(Path(name).resolve()) for name in names))
        predict.predict_photos([str(listed)], out, ROOT / paths.MODEL, "cpu")


if __name__ == "__main__":
    sys.exit(main())
