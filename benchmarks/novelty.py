"""Compare ways to tell photos that are unlike a set of training photos, on pairs of real sets.

    python -m benchmarks.novelty --set insects=FOLDER --set vehicles=FOLDER [--set …]
    python -m benchmarks.novelty --cost PHOTO.jpg      # CPU time of a request, with and without

Every set is in turn the training set: half of its photos are references, the other half are similar
photos. Photos of every other set, and drawn images, are unlike them. A table has, for each method,
the mean and smallest AUROC over the pairs and the mean and smallest share of unlike photos that are
refused at 5 % false refusals. The sets are divided into two halves by the order of their names:
methods are to be chosen by the first, and reported on the second. The chosen method's pairs follow.

Without --set: the insects and vehicles in ../shared/photos and the synthetic legs.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import torch
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from anklealign.config import paths
from anklealign.config.params import Fit
from anklealign.evaluation import reference_images
from anklealign.inference import onnx_predictor
from anklealign.inference.predictor import Predictor
from anklealign.io import decode, decoder_pool, pixel_store, results
from anklealign.io.decode import PhotoError
from anklealign.io.decoder_pool import Target
from anklealign.io.pixel_store import Pixels
from anklealign.models import description, novelty
from anklealign.models.input_config import Floats
from anklealign.models.novelty_detector import NoveltyDetector
from anklealign.models.weights import GENERAL_NETWORK
from benchmarks import serving

SIDE = 256
CPU = torch.device("cpu")
SHARED = Path("../shared/photos")
DEFAULTS = {"insects": SHARED / "hymenoptera", "vehicles": SHARED / "car_bike"}
FALSE_REFUSALS = 0.05

Features = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Labels = np.ndarray[tuple[int, ...], np.dtype[np.str_]]
Method = Callable[[Features, Labels, Features], Floats]  # references, their labels, photos


def main() -> None:
    """Print the table of the methods, or the cost of a request."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=FOLDER", dest="sets")
    parser.add_argument("--photos", type=int, default=400, help="at most, of each set")
    parser.add_argument("--fit", default="letterbox", choices=get_args(Fit), help="of the photos")
    parser.add_argument("--sizes", type=int, nargs="+", default=[GENERAL_NETWORK.image_size])
    parser.add_argument("--cost", type=Path, help="a photo; measures CPU time instead")
    arguments = parser.parse_args()
    if arguments.cost:
        print_cost(arguments.cost)
        return
    folders = dict(text.split("=", 1) for text in arguments.sets) or DEFAULTS
    sets = {name: read_folder(Path(folder), arguments) for name, folder in folders.items()}
    if not arguments.sets:
        sets["legs"] = read_store(arguments.photos)
    labels = {name: labels for name, (_, labels) in sets.items()}
    images = {name: pixels for name, (pixels, _) in sets.items()} | reference_images.draw(SIDE)
    for size in arguments.sizes:
        features = {name: describe(pixels, size) for name, pixels in images.items()}
        print_methods(size, features, labels)
        print_thresholds(features, list(labels))


def read_folder(folder: Path, options: argparse.Namespace) -> tuple[Pixels, Labels]:
    """Return photos of class folders in a seeded random order: (n, S, S, 3), labels (n,)."""
    photos = sorted(p for p in folder.rglob("*") if p.suffix.lower() in decode.PHOTO_SUFFIXES)
    order = np.random.default_rng(0).permutation(len(photos))
    pool, fitted, labels = decoder_pool.shared(), [], []
    for i in tqdm(order, folder.name, unit="photo", disable=None):
        try:
            data = decode.read_bytes(photos[i], 80)
            fitted.append(pool.decode(data, Target(80, SIDE, options.fit, 114)).pixels)
        except PhotoError:
            continue
        labels.append(photos[i].parent.name)
        if len(fitted) == options.photos:
            break
    return np.stack(fitted), np.array(labels)


def read_store(limit: int) -> tuple[Pixels, Labels]:
    """Return photos of the committed run's store, at most `limit`: (n, S, S, 3), labels (n,)."""
    table = pixel_store.read_table(paths.SPLIT / "photos.csv").sort_values("id").head(limit)
    pixels = np.asarray(pixel_store.open_store()[table.row.to_numpy()])
    return pixels, table.label.to_numpy(np.str_)


def describe(pixels: Pixels, size: int) -> Features:
    """Return the general network's features at an input size: (n, S, S, 3) -> (n, C)."""
    return novelty.describe(pixels, np.arange(len(pixels)), CPU, size)


def nearest(count: int) -> Method:
    """Return the method that scores by the mean cosine distance to the nearest references."""

    def score(references: Features, _: Labels, photos: Features) -> Floats:
        similarities = np.sort(photos @ references.T, axis=1)[:, -count:]
        scores: Floats = 1 - similarities.mean(axis=1, dtype=np.float64)
        return scores

    return score


def center(references: Features, _: Labels, photos: Features) -> Floats:
    """Score by the cosine distance to the mean of the references."""
    mean = references.mean(0)
    return np.asarray(1 - photos @ (mean / np.linalg.norm(mean)), np.float64)


def residual(references: Features, _: Labels, photos: Features) -> Floats:
    """Score by the norm outside of the references' 64 principal directions."""
    mean = references.mean(0)
    _, _, directions = np.linalg.svd(references - mean, full_matrices=False)
    inside = directions[: min(64, len(references) // 2)]
    centered = photos - mean
    outside = centered - centered @ inside.T @ inside
    scores: Floats = np.linalg.norm(outside, axis=1).astype(np.float64)
    return scores


def energy(references: Features, labels: Labels, photos: Features) -> Floats:
    """Score by the energy of a linear classifier of the references, -log Σ exp of its logits.

    Liu, Wang, Owens and Li, Energy-based Out-of-distribution Detection (2020).
    """
    classifier = LogisticRegression(C=10, max_iter=300)
    classifier.fit(references, labels)
    logits = classifier.decision_function(photos)
    if logits.ndim == 1:  # of two classes, scikit-learn returns the difference
        logits = np.stack([-logits / 2, logits / 2], 1)
    energies: Floats = -logsumexp(logits, axis=1)
    return energies


METHODS: dict[str, Method] = {
    "nearest photo": nearest(1),
    "5 nearest photos": nearest(5),
    "20 nearest photos": nearest(20),
    "distance to the mean": center,
    "outside the principal directions": residual,
    "energy of a linear classifier": energy,
}
CHOSEN = "5 nearest photos"


def print_methods(
    size: int, features: Mapping[str, Features], labels: Mapping[str, Labels]
) -> None:
    """Print a row per method with its scores on the two halves of sets, then the chosen pairs."""
    names = sorted(labels)
    halves = {"choice": names[::2], "report": names[1::2]}
    print(f"\n{size} px\n")
    print(
        "| method | half | AUROC mean | least | refused, mean | least |\n|---|---|---|---|---|---|"
    )
    pairs = {name: pair_scores(method, features, labels) for name, method in METHODS.items()}
    for name, (half, chosen) in product(METHODS, halves.items()):
        values = np.array([v for (own, _), v in pairs[name].items() if own in chosen])
        if not len(values):
            continue
        area, refused = values.T
        print(
            f"| {name} | {half} | {area.mean():.3f} | {area.min():.3f} | {refused.mean():.3f} "
            f"| {refused.min():.3f} |"
        )
    print(f"\n{CHOSEN}: AUROC and share refused at {FALSE_REFUSALS:.0%} false refusals\n")
    others = sorted(features)
    print(f"| trained on | {' | '.join(others)} |\n|---|{'---|' * len(others)}")
    for own in names:
        cells = [
            "-" if other == own else "{:.3f}, {:.2f}".format(*pairs[CHOSEN][own, other])
            for other in others
        ]
        print(f"| {own} | {' | '.join(cells)} |")


def pair_scores(
    method: Method, features: Mapping[str, Features], labels: Mapping[str, Labels]
) -> dict[tuple[str, str], tuple[float, float]]:
    """Return AUROC and share refused for each training set and each other set."""
    scores = {}
    for own in labels:
        references, similar = features[own][::2], features[own][1::2]
        known = labels[own][::2]
        own_scores = method(references, known, similar)
        limit = np.quantile(own_scores, 1 - FALSE_REFUSALS)
        for other in features:
            if other == own:
                continue
            unlike = method(references, known, features[other])
            is_unlike = np.repeat([0, 1], [len(own_scores), len(unlike)])
            area = float(roc_auc_score(is_unlike, np.concatenate([own_scores, unlike])))
            scores[own, other] = (area, float((unlike > limit).mean()))
    return scores


def print_thresholds(features: Mapping[str, Features], names: list[str], draws: int = 300) -> None:
    """Print the false refusals by thresholds of validation photos alone and with the references.

    Of each set, 70% of the photos are references, 15% choose the threshold, and 15% are similar
    photos, drawn anew each time. Each photo is a group of its own.
    """
    rng = np.random.default_rng(0)
    print("\nShares refused, mean and standard deviation over draws\n")
    print("| trained on | photos | similar | unlike | similar, with references | unlike |")
    print("|---|---|---|---|---|---|")
    for name in names:
        own = features[name]
        foreign = np.concatenate([features[other][:40] for other in names if other != name])
        refused = []
        for _ in range(draws):
            fold = rng.permutation(len(own))
            parts = np.split(fold, [int(0.7 * len(own)), int(0.85 * len(own))])
            references, val, similar = (own[part] for part in parts)
            detector = NoveltyDetector(references, 0.0, FALSE_REFUSALS)
            scores, by_others = detector.scores(val), detector.own_scores(range(len(references)))
            limits = [
                novelty.threshold(values, FALSE_REFUSALS)
                for values in (scores, np.concatenate([scores, by_others]))
            ]
            tested = detector.scores(similar), detector.scores(foreign)
            refused.append([(values > limit).mean() for limit in limits for values in tested])
        columns = zip(np.mean(refused, axis=0), np.std(refused, axis=0), strict=True)
        cells = " | ".join(f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in columns)
        print(f"| {name} | {len(own)} | {cells} |")


def print_cost(photo: Path, rounds: int = 15) -> None:
    """Print the CPU time of a photo's score, and of a request to the service with and without."""
    predictor = Predictor.load(paths.MODEL, "cpu")
    torch.set_num_threads(1)
    data = photo.read_bytes()
    pixels = predictor.preprocess(data)[None]
    work: dict[str, Callable[[], object]] = {"score": lambda: predictor.novelty_scores(pixels)}
    if paths.EXPORT.is_file():  # made by `anklealign export`
        exported = onnx_predictor.load(paths.MODEL, paths.EXPORT)
        work["score, ONNX"] = lambda: exported.novelty_scores(pixels)
    for name, function in work.items():
        function()
        times = []
        for _ in range(rounds):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        print(f"{name:24} {1000 * float(np.median(times)):7.1f} ms")
    for engine in ["onnx", "torch"] if paths.EXPORT.is_file() else ["torch"]:
        added = asyncio.run(request_cost(data, engine, rounds))
        print(f"{engine}: the score adds {added:.1%} to the CPU time of a request")


async def request_cost(photo: bytes, engine: str, rounds: int, requests: int = 10) -> float:
    """Return what the detector adds to a request's CPU time, as a fraction (median of the rounds).

    Two services run, one of them with a copy of the bundle without its detector. They take turns in
    both orders, so that other work on the machine affects both.
    """
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        variables = without_detector(Path(temporary))
        sides = [
            stack.enter_context(serving.running(ANKLEALIGN_ENGINE=engine, **own))
            for own in (variables, {})
        ]
        request = serving.encode_request(photo)
        clients = [await asyncio.open_connection("127.0.0.1", port) for _, port in sides]
        seconds: list[list[float]] = [[], []]
        for round_number in range(rounds + 1):  # the first one warms up
            both = list(zip(sides, clients, seconds, strict=True))
            for (process, _), client, own in both[:: 1 if round_number % 2 else -1]:
                start = serving.cpu_seconds(process.pid)
                for _ in range(requests):
                    if await serving.send(*client, request) != HTTPStatus.OK:
                        raise SystemExit("novelty: the service does not classify this photo")
                if round_number:
                    own.append((serving.cpu_seconds(process.pid) - start) / requests)
        for _, writer in clients:
            writer.close()
    without, total = map(np.array, seconds)
    print(
        f"request, {engine:15} {1000 * float(np.median(total)):7.1f} ms, without a score "
        f"{1000 * float(np.median(without)):.1f} ms"
    )
    return float(np.median(total / without)) - 1


def without_detector(folder: Path) -> dict[str, str]:
    """Copy the bundle without its detector, and its export; return the service's variables."""
    bundle = shutil.copytree(paths.MODEL, folder / "model")
    config = json.loads((bundle / description.CONFIG).read_text())
    config["anklealign"]["novelty"] = None
    (bundle / description.CONFIG).write_text(json.dumps(config))
    if description.load(bundle).novelty is not None:
        raise SystemExit("novelty: the copy of the bundle still has its detector")
    if paths.EXPORT.is_file():
        exported = onnx.load(paths.EXPORT)
        for item in exported.metadata_props:
            if item.key == onnx_predictor.BUNDLE_HASH:
                item.value = results.bundle_hash(bundle)
        onnx.save(exported, folder / paths.EXPORT.name)
    return {
        "ANKLEALIGN_MODEL": str(bundle),
        "ANKLEALIGN_EXPORT": str(folder / paths.EXPORT.name),
    }


if __name__ == "__main__":
    main()
