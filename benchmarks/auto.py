"""Compare `auto` with each of its candidates on test photos that no candidate has seen.

    python -m benchmarks.auto ants_bees=DIR car_bike=DIR --photos 600    # folders of class folders
    python -m benchmarks.auto flowers=DIR --photos 200 --image-size 128 --models lite0_probe lite0

Each photo is tested once: the photos are split into five folds without a shared group, and each
fold in turn is test, the next one validation. All stages are the project's own, in a temporary
folder, with one seed. `auto` chooses by cross-validation inside train, so it is judged by photos
that neither it nor a candidate has seen. The last column is the mean difference of the accuracy of
`auto` and the candidate, with its standard error over the photos; `auto` fails where it is more
than one standard error below the best candidate.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from anklealign.config import params, paths
from anklealign.config.params import Auto
from benchmarks.seeds import run_quietly
from stages import clean, prepare, split, train

ROOT = Path(__file__).resolve().parents[1]
FOLDS = 5
AUTO = "auto"
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png"}
SPLIT_FOLDERS = {"train", "val", "valid", "validation", "test"}


@dataclass(frozen=True)
class Predictions:
    """The test photos of all folds in one order: whether each is right, and its log loss, (N,)."""

    right: np.ndarray[Any, np.dtype[np.bool_]]
    log_loss: np.ndarray[Any, np.dtype[np.float64]]
    chosen: tuple[str, ...]


def main() -> int:
    """Print a table; the exit status is 1 if `auto` is below a candidate by over one error."""
    options = read_options()
    print("| photos | variant | accuracy | log loss | `auto` minus variant, accuracy |")
    print("|---|---|---|---|---|")
    passed = True
    for item in options.data:
        name, _, folder = item.partition("=")
        with tempfile.TemporaryDirectory(prefix="auto-") as work:
            count = copy_photos(Path(folder).resolve(), Path(work, "data/raw", name), options)
            os.chdir(work)
            results = compare(name, options)
            os.chdir(ROOT)
        passed &= print_rows(f"{name}, {count}", results)
    return 0 if passed else 1


def read_options() -> argparse.Namespace:
    """Return the command-line options."""
    parser = argparse.ArgumentParser(description="auto against each of its candidates")
    parser.add_argument("data", nargs="+", metavar="NAME=DIR", help="a folder of class folders")
    parser.add_argument("--models", nargs="+", help="candidates instead of those of params.yaml")
    parser.add_argument("--photos", type=int, default=10**9, help="random photos of each set")
    parser.add_argument("--image-size", type=int, help="px, instead of the candidates' own")
    parser.add_argument("--folds", type=int, default=FOLDS, help="folds that are tested")
    return parser.parse_args()


def copy_photos(source: Path, target: Path, options: argparse.Namespace) -> int:
    """Link random photos of each class folder, without predefined splits; return their number."""
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
    order = np.random.default_rng(0).permutation(len(files))[: options.photos]
    for index in sorted(order.tolist()):
        file = files[index]
        inner = "-".join(p for p in file.relative_to(source).parts[:-2] if p not in SPLIT_FOLDERS)
        link = target / file.parent.name / f"{inner}{index}-{file.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return len(order)


def compare(name: str, options: argparse.Namespace) -> dict[str, Predictions]:
    """Return the predictions of `auto` and its candidates."""
    write_params(name, options, AUTO, 0)
    run_quietly(prepare.main)
    run_quietly(clean.main)
    candidates = read_auto().candidates
    tables: dict[str, list[pd.DataFrame]] = {}
    chosen = []
    for fold in range(options.folds):
        write_params(name, options, AUTO, fold)
        run_quietly(split.main)
        for model in [*candidates, AUTO]:
            write_params(name, options, model, fold)
            run_quietly(train.main)
            tables.setdefault(model, []).append(test_table())
        trials = pd.read_csv(paths.CANDIDATES)
        chosen += trials.candidate[trials.status == "chosen"].tolist()
        print(f"{name}, fold {fold}: {chosen[-1]}", file=sys.stderr, flush=True)
    return {
        model: Predictions(
            np.concatenate([table.right for table in rows]),
            np.concatenate([table.log_loss for table in rows]),
            tuple(chosen) if model == AUTO else (),
        )
        for model, rows in tables.items()
    }


def test_table() -> pd.DataFrame:
    """Return whether each test photo is right and its log loss, by id."""
    table = pd.read_csv(paths.REPEATS, dtype={"id": str}).set_index("id").sort_index()
    labels = pd.read_csv(paths.SPLIT / "photos.csv", dtype={"id": str}).set_index("id").label
    probabilities = table.filter(regex="^p_")
    classes = [str(column).removeprefix("p_") for column in probabilities]
    actual = labels[table.index].map(classes.index).to_numpy()
    values = probabilities.to_numpy()
    loss = -np.log(np.maximum(values[np.arange(len(actual)), actual], 1e-6))
    return pd.DataFrame({"right": values.argmax(1) == actual, "log_loss": loss}, table.index)


def read_auto() -> Auto:
    """Return the config of `auto` in the params.yaml of the working folder."""
    _, auto = params.model(params.read())
    if not isinstance(auto, Auto):
        raise TypeError(f"params.yaml: models.{AUTO} has no candidates")
    return auto


def write_params(dataset: str, options: argparse.Namespace, model: str, fold: int) -> None:
    """Write the project's params.yaml for a set, a model and a fold."""
    yaml = YAML(typ="safe", pure=True)
    raw = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    classes = sorted(path.name for path in Path("data/raw", dataset).iterdir())
    known = raw["datasets"].get(dataset, {})
    raw["datasets"][dataset] = known or {"layout": "folders", "classes": {c: [] for c in classes}}
    raw["datasets"][dataset]["mirror_safe"] = True
    auto = raw["models"][AUTO]
    if options.models:
        auto["candidates"] = {key: raw["models"][key] for key in options.models}
    if options.image_size:
        for config in auto["candidates"].values():
            config["image_size"] = options.image_size
    auto["candidates"] = {
        key: value
        for key, value in auto["candidates"].items()
        if known.get("imagenet") or not value.get("zero_shot")
    }
    auto["budget"] = 10**9
    raw |= {"dataset": dataset, "model": model}
    raw["models"] |= auto["candidates"]
    raw["split"] |= {"fold": fold, "folds": FOLDS}
    raw["train"] |= {"repeats": 1, "false_refusals": 0}
    raw["clean"]["allowed_losses"] = classes
    with Path("params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(raw, stream)
    for name in ("pins.yaml", "data/weights"):
        if (ROOT / name).exists() and not Path(name).exists():
            Path(name).symlink_to((ROOT / name).resolve())


def print_rows(title: str, results: dict[str, Predictions]) -> bool:
    """Print a row of each model; return whether `auto` is at most one error below the best."""
    auto = results[AUTO]
    best = max((m for m in results if m != AUTO), key=lambda m: results[m].right.mean())
    passed = True
    for model, own in results.items():
        difference = auto.right.astype(float) - own.right
        mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(len(difference))
        cell = f"{mean:+.4f} ± {error:.4f}"
        if model == AUTO:
            counts = Counter(auto.chosen)
            cell = "chose " + ", ".join(f"`{key}` {counts[key]}x" for key in counts)
        elif model == best:
            passed = bool(mean >= -error - 1e-9)  # both are rounded
            cell += " (best)" if passed else " (best, **exceeded**)"
        scores = f"{own.right.mean():.4f} | {own.log_loss.mean():.4f}"
        print(f"| {title} | `{model}` | {scores} | {cell} |", flush=True)
    return passed


if __name__ == "__main__":
    sys.exit(main())
