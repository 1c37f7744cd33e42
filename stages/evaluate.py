"""Evaluate: score the trained model on the test split, which no earlier stage uses.

Reads pixels/ and votes.csv in data/prepared/, data/split/photos.csv, data/train/repeats.csv, model/
and metrics/details/split.json. Writes metrics/scores.json (the headline metrics that DVC shows),
metrics/details/evaluate.json (every score with its 95% CI over groups and the majority baseline;
the spread over training seeds, calibration, prediction sets, unlike photos, human baseline where
test photos have votes, robustness), in plots/evaluate/ predictions.csv (one row per test photo),
reliability.csv (before and after calibration), classes.csv and explanations.npz (attribution maps,
most similar training photos and a map of the photos).

    python -m stages.evaluate

Runs in fp32 with TF32 off, with the same predictor as `anklealign predict` and the service. The
report stage draws the results.
"""

import os

# Idle threads would otherwise spin between the layers: 10% more CPU time in as many seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from anklealign.config import params, paths, stage
from anklealign.config.params import Evaluate
from anklealign.evaluation import (
    bundle_scores,
    explained_photos,
    learning_curve,
    reference_images,
    robustness,
    score_tables,
    shortcuts,
)
from anklealign.evaluation.network_passes import NetworkPasses
from anklealign.evaluation.prediction_tables import (
    Features,
    describe_table,
    reliability_table,
    rounded_probabilities,
)
from anklealign.evaluation.robustness import CorruptionSample
from anklealign.evaluation.score_tables import Predictions
from anklealign.explainability import attribution, feature_map
from anklealign.inference.predictor import Predictor
from anklealign.io import execution, files, pixel_store, results
from anklealign.io.pseudonyms import Pseudonyms
from anklealign.metrics.scores import Floats, Integers
from anklealign.models import calibration, inputs
from anklealign.models.features import frozen, stored_features

METRICS = paths.DETAILS / "evaluate.json"
PLOTS = paths.PLOTS / "evaluate"
DIGITS = 4  # of a headline metric
SPLITS = ("train", "val", "test")


def main() -> None:
    """Predict the test photos and write scores, tables and attribution maps."""
    raw = params.read()
    settings = params.section(raw, "evaluate", Evaluate)
    seed = params.section(raw, "seed", int)
    _, dataset = params.dataset(raw)
    inputs.configure_cpu(params.section(raw, "train.threads", int))
    table = pixel_store.read_table(paths.SPLIT / "photos.csv")
    execution.configure(**vars(params.execution(raw)))
    device = params.section(raw, "train.device", str)
    networks = NetworkPasses.load(paths.MODEL, device, pixel_store.open_store())
    predictor = networks.predictor
    classes = list(predictor.classes)

    _, validation, val_features = describe_table(table[table.split == "val"], networks)
    test, predictions, features = describe_table(table[table.split == "test"], networks)
    general, scores = describe_novelty(test, networks)
    rows = bundle_scores.predicted_rows(test, predictions, predictor, scores)
    metrics: dict[str, Any] = {
        results.BUNDLE: results.bundle_hash(paths.MODEL),
        **bundle_scores.all_scores(
            test, predictions, predictor, pixel_store.read_table(paths.VOTES),
            validation=validation, frequencies=class_frequencies(table, classes),
            ordered=dataset.ordered, settings=settings, seed=seed,
        ),
    }  # fmt: skip
    if seeds := score_tables.seed_scores(test, classes, pd.read_csv(paths.REPEATS)):
        metrics["seeds"] = seeds
    if published := dataset.label_reliability:
        metrics["label_reliability"] = {
            "measure": published.measure, "published": published.value, "source": published.source,
        }  # fmt: skip
    if settings.robustness:
        metrics["robustness"] = measure_robustness(
            test, networks, predictions, limit=settings.robustness, flip=dataset.mirror_safe
        )
    if predictor.bundle.novelty is not None:
        metrics["novelty"] = score_tables.novelty_scores(
            ~rows.in_distribution.to_numpy(), predictions.groups, detection_rates(predictor),
            settings, seed,
        )  # fmt: skip
    metrics |= dataset_checks(
        table, networks, metrics["balanced_accuracy"], general, settings=settings, seed=seed
    )
    wrong = set(rows.id[rows.actual != rows.predicted])
    compute = from_cache(networks) if frozen(predictor.bundle.record) else networks.features
    described = feature_map.describe(table, wrong, compute, features | val_features)
    metrics["explanations"] = explain(
        rows, test, networks, described, limit=settings.explained, seed=seed
    )
    without_names(metrics, rows, Pseudonyms(settings.pseudonyms))
    bundle = predictor.bundle
    uncalibrated = calibration.undo(
        predictions.probabilities, bundle.temperature, bundle.class_bias
    )
    reliability = reliability_table(predictions, uncalibrated)
    write_outputs(metrics, rows, reliability, classes)
    stage.print_wrapped(summary_line(metrics))


def describe_novelty(
    test: pd.DataFrame, networks: NetworkPasses
) -> tuple[dict[int, Features], Floats]:
    """Return the general network's features (C,) by row of the store, and the novelty (N,)."""
    photo_rows = test.row.to_numpy(np.int64)
    detector = networks.predictor.bundle.novelty
    if detector is None:
        return {}, np.full(len(test), np.nan)
    described = networks.general_features(photo_rows)
    by_row = dict(zip(photo_rows.tolist(), described, strict=True))
    return by_row, detector.scores(described)


def from_cache(networks: NetworkPasses) -> Callable[[Integers], Tensor]:
    """Return a function that reads the features of a frozen network that training has computed."""
    own, device = networks.predictor.for_inference, networks.predictor.device
    return partial(
        stored_features,
        own.model, networks.store, input_config=own.input_config, device=device,
    )  # fmt: skip


def dataset_checks(
    table: pd.DataFrame,
    networks: NetworkPasses,
    score: Mapping[str, float],
    general: Mapping[int, Features],
    *,
    settings: Evaluate,
    seed: int,
) -> dict[str, Any]:
    """Return what all photos of the set say: shortcuts to the class, and the learning curve.

    `general` are features of the general network, by row of the store, that need not be computed.
    """
    photos = table[table.split.isin(SPLITS)]
    common: dict[str, Any] = {
        "resamples": settings.bootstrap,
        "confidence": settings.confidence,
        "seed": seed,
    }
    predictor = networks.predictor
    blocks: dict[str, Any] = {}
    if audit := shortcuts.audit(photos, networks.store, predictor.classes, score, **common):
        blocks["shortcuts"] = audit
        for sentence in audit["warnings"].values():
            stage.print_wrapped(f"evaluate: warning: {sentence}")
    detector = predictor.bundle.novelty
    if settings.learning_curve and detector is not None:
        known = {**general, **detector.by_row(table[table.split == "train"])}
        curve = learning_curve.of_probe(
            photos,
            predictor.classes,
            lambda chosen: networks.general_features(chosen.row.to_numpy(np.int64), known),
            score["value"],
            repeats=settings.learning_curve,
            **common,
        )
        if curve:
            blocks["learning_curve"] = curve
    return blocks


def class_frequencies(table: pd.DataFrame, classes: Sequence[str]) -> Floats:
    """Return the class frequencies in train: (K,)."""
    train = table.label[table.split == "train"]
    return np.array([(train == name).mean() for name in classes])


def write_outputs(
    metrics: Mapping[str, Any],
    rows: pd.DataFrame,
    reliability: pd.DataFrame,
    classes: Sequence[str],
) -> None:
    """Write the metrics, the headline and the tables of predictions, confidence and classes."""
    headline = headline_metrics(metrics, results.read_details(paths.DETAILS / "split.json"))
    results.write_details(METRICS, metrics)
    files.write_json(paths.SCORES, headline)
    files.write_table(paths.PREDICTIONS, rounded_probabilities(rows))
    files.write_table(PLOTS / "reliability.csv", reliability)
    counts = score_tables.confusion_table(rows, classes)
    files.write_table(PLOTS / "classes.csv", score_tables.class_table(metrics, counts))


def without_names(metrics: dict[str, Any], rows: pd.DataFrame, names: Pseudonyms) -> None:
    """Replace the names of persons in metrics and predictions, which git keeps, in place."""
    rows["path"] = [
        names.path(*row) for row in rows[["path", "collector", "group", "id"]].to_numpy().tolist()
    ]
    rows["collector"] = rows.collector.map(names.name)
    rows["group"] = rows.group.map(names.group)
    worst, human = metrics["worst"], metrics.get("human_baseline", {})
    if "collector" in worst:
        worst["collector"] = names.name(worst["collector"])
    if "by_annotator" in human:
        human["by_annotator"] = {
            names.name(name): scores for name, scores in human["by_annotator"].items()
        }


def headline_metrics(metrics: Mapping[str, Any], split: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that DVC shows: at most 15 numbers (docs/experiments.md)."""
    values = {
        name: round(score["value"], DIGITS)
        for name, score in metrics.items()
        if isinstance(score, Mapping) and "value" in score
    }
    balanced = metrics["balanced_accuracy"]
    association = "kappa" if "kappa" in metrics else "mcc"
    coverage = metrics["calibration"]["coverage"]["value"]
    seeds = metrics.get("seeds", {}).get("balanced_accuracy", {})
    # The nested keys have a dot in DVC's tables, so `dvc exp show --drop ".*[./]"` hides them.
    return {
        **{name: values[name] for name in ("balanced_accuracy", "accuracy", "log_loss")},
        "ci": {
            k: round(balanced[f"ci_{k}"], DIGITS) for k in ("low", "high") if "ci_low" in balanced
        },
        **({"seeds": {k: round(seeds[k], DIGITS) for k in ("mean", "sd")}} if seeds else {}),
        "scores": {name: values[name] for name in ("macro_f1", association)},
        "calibration": {
            "error": values["calibration_error"],
            "coverage": round(coverage, DIGITS),
        },
        "test": {
            "photos": metrics["photos"],
            "groups": metrics["groups"],
            "leaking_pairs": split["leaking_pairs"],
        },
        results.BUNDLE: {
            "parameters": metrics["parameters"],
            "sha256": metrics[results.BUNDLE][: results.SHORT],
        },
    }


def detection_rates(predictor: Predictor) -> dict[str, float]:
    """Return the share of drawn images of each kind that count as unlike the training photos."""
    drawn = reference_images.draw(predictor.bundle.preprocessing.size)
    return {
        kind: float(1 - predictor.in_distribution(predictor.novelty_scores(images)).mean())
        for kind, images in drawn.items()
    }


def measure_robustness(
    test: pd.DataFrame,
    networks: NetworkPasses,
    predictions: Predictions,
    *,
    limit: int,
    flip: bool,
) -> dict[str, Any]:
    """Return the scores on corrupted photos, by kind and level.

    Uses at most the first `limit` photos by id, an order independent of path and label.
    """
    photos = test.sort_values("id").head(limit)
    labels = predictions.labels[photos.index]
    unchanged = predictions.predicted[photos.index]
    sample = CorruptionSample(
        networks.store,
        photos.row.to_numpy(np.int64),
        boxes=photos[["left", "top", "right", "bottom"]].to_numpy(np.int64),
        ids=list(photos.id),
        labels=labels,
        unchanged=unchanged,
        groups=list(photos.group),
        fill=networks.predictor.bundle.preprocessing.fill,
    )
    scores: dict[str, dict[int, float]] = {}
    widths, used = [], []
    for own in networks.corruption_scores(sample, flip=flip):
        scores.setdefault(own.kind, {})[own.level] = round(own.score, 6)
        widths.append(own.width)
        used.append(own.photos)
    clean = robustness.class_mean((unchanged == labels).astype(float), labels)
    return {
        "photos": len(photos),
        "photos_per_level": round(float(np.mean(used)), 1),
        "widest_interval": round(max(widths), 6),
        "unchanged": round(clean, 6),
        **scores,
    }


def explain(
    predictions: pd.DataFrame,
    test: pd.DataFrame,
    networks: NetworkPasses,
    described: feature_map.Arrays,
    *,
    limit: int,
    seed: int,
) -> dict[str, float | int]:
    """Write the attribution maps and the map of the photos; return the faithfulness scores.

    The scores use the first `limit` photos by id, an order independent of path and label.
    """
    photos = predictions.assign(row=test.row)
    rows = photos.sort_values("id").head(limit)
    mapped = photos[photos.id.isin([*explained_photos.select(photos).id, *rows.id])]
    known = dict(networks.heat_maps(mapped))
    own = networks.predictor
    maps = explained_photos.attribution_maps(
        photos, test, networks.store, own.for_inference, own.device, known=known
    )
    if line := empty_maps_line(known):
        stage.print_wrapped(line)
    small = feature_map.small_heat_maps(photos, networks.heat_maps, known)
    results.write_arrays(paths.EXPLANATIONS, maps | small | described)
    return networks.faithfulness(rows, np.stack([known[name] for name in rows.id]), seed)


def empty_maps_line(maps: Mapping[str, attribution.Maps]) -> str:
    """Return what to say of maps without evidence for the predicted class, or '' if none is."""
    empty = sum(not heat.any() for heat in maps.values())
    if not empty:
        return ""
    return (
        f"evaluate: {empty} of {len(maps)} heat maps are empty: nothing in these photos speaks for "
        "the predicted class, as with a baseline or a network that has learned little"
    )


def summary_line(metrics: Mapping[str, Any]) -> str:
    """Return the line that ends the stage: accuracy, majority baseline, photos and groups."""
    accuracy = metrics["accuracy"]
    interval = ""
    if "ci_low" in accuracy:
        interval = f" (95% CI {accuracy['ci_low']:.3f} to {accuracy['ci_high']:.3f})"
    return (
        f"evaluate: accuracy {accuracy['value']:.3f}{interval}, majority baseline "
        f"{accuracy['majority']:.3f}; {metrics['photos']} test photos in {metrics['groups']} groups"
    )


if __name__ == "__main__":
    stage.run("evaluate", main)
