"""The few lines that a person wants to read after a run: scores, what was left out, pictures.

    python -m anklealign.cli.summary

Reads metrics/*.json and plots/train/run.json alone.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METRICS = Path("metrics")
RUN = Path("plots/train/run.json")
# Of kappa and the Matthews correlation the one that fits the classes: kappa where they are ordered.
SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "mcc", "roc_auc", "log_loss")
PICTURES = {
    "plots/prepare/": "a first look: each class's photos, sizes, shapes, collectors",
    "plots/report.html": "all of this on one page: open it in a browser",
    "plots/clean/": "what was removed, beside what was kept instead, and why",
    "plots/split/": "who is where",
    "plots/train/pictures/": "what augmentation makes of a photo",
    "plots/evaluate/pictures/": "confusion, calibration, robustness, learning curves, mistakes",
    "plots/evaluate/explanations/": "where the model looked",
}


def main() -> int:
    """Print the summary of the last run."""
    stages = ("prepare", "clean", "split", "train", "evaluate")
    try:
        metrics = {
            stage: json.loads((METRICS / f"{stage}.json").read_text(encoding="utf-8"))
            for stage in stages
        }
        run = json.loads(RUN.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        print(f"{error.filename} is not there; run `dvc repro` first", file=sys.stderr)
        return 1
    print(
        "\n".join(
            [
                "",
                *story(metrics, run),
                "",
                *score_table(metrics["evaluate"]),
                "",
                *remarks(metrics["evaluate"]),
                "",
                *pictures(),
            ]
        )
    )
    return 0


def story(metrics: dict[str, Any], run: dict[str, Any]) -> list[str]:
    """Return what became of the photos, stage by stage."""
    prepare, clean, split = metrics["prepare"], metrics["clean"], metrics["split"]
    parts = ", ".join(f"{part} {split[part]['photos']}" for part in ("train", "val", "test"))
    skipped = Counter[str]()
    for kind, counts in prepare.items():
        if kind.startswith("skipped"):
            skipped.update({k: n for k, n in counts.items() if k != "total"})
    left_out = f", {split['left_out']} left out" if split["left_out"] else ""
    parameters = metrics["evaluate"]["parameters"]
    agreed = prepare.get("agreement", {})
    return [
        f"came in   {prepare['files_seen']} files, {prepare['tasks_seen']} labelling tasks",
        *([vote_line(agreed)] if agreed.get("votes") else []),
        f"skipped   {_reasons(skipped)}  (data/prepared/skipped.csv)",
        f"removed   {_reasons(clean['reasons'])}  (data/clean/removed.csv)",
        f"split     {parts}{left_out}; {split['groups']} groups, none on two sides",
        f"dataset   {run['params']['dataset_name']}",
        f"model     {run['params']['model_name']}, {parameters:,} parameters",
    ]


def vote_line(agreed: Mapping[str, Any]) -> str:
    """Return who voted, and how far they agree."""
    names = {"alpha_nominal": "alpha", "alpha_ordinal": "ordinal alpha", "pairwise": "pairwise"}
    known = ", ".join(f"{name} {agreed[key]:.2f}" for key, name in names.items() if key in agreed)
    return (
        f"votes     {agreed['votes']} by {agreed['annotators']} people on {agreed['photos']} photos"
        f"; {known}"
    )


def _reasons(counts: Mapping[str, int]) -> str:
    found = {reason: count for reason, count in counts.items() if count and reason != "total"}
    listed = ", ".join(f"{reason} {count}" for reason, count in found.items())
    return f"{sum(found.values())} ({listed})" if found else "0"


def score_table(evaluate: dict[str, Any]) -> list[str]:
    """Return the scores with their intervals beside the majority class's, as lines of a table."""
    lines = [
        f"{evaluate['photos']} test photos of {evaluate['groups']} groups",
        f"{'score':<20}{'model':>7}   {'95 % interval':<17}{'majority':>8}   gain, 95 % interval",
    ]
    left_out = "mcc" if "kappa" in evaluate else "kappa"
    few = f"n/a, {evaluate['groups']} groups"
    for name in SCORES:
        if name == left_out:
            continue
        score = evaluate[name]
        interval, gain = few, f"{score['gain']:+.3f}"
        if "ci_low" in score:
            interval = f"{score['ci_low']:.3f} to {score['ci_high']:.3f}"
            gain += f", {score['gain_ci_low']:+.3f} to {score['gain_ci_high']:+.3f}"
        lines.append(
            f"{name.replace('_', ' '):<20}{score['value']:>7.3f}   {interval:<17}"
            f"{score['majority']:>8.3f}   {gain}"
        )
    return lines


def remarks(evaluate: dict[str, Any]) -> list[str]:
    """Return where the model is worst, what its prediction sets hold, and how people compare."""
    worst, sets = evaluate["worst"], evaluate["calibration"]
    lines = []
    for who, score in (("class", "recall"), ("collector", "accuracy")):
        if who in worst:
            value, photos = worst[f"{who}_{score}"], worst[f"{who}_photos"]
            told = f"{worst[who]}, {score} {value:.3f} on {photos} photos"
            lines.append(f"{f'worst {who}':<18}{told}")
    coverage, abstention = sets["coverage"], sets["abstention"]["value"]
    lines.append(
        f"prediction sets   hold the truth for {coverage['value']:.0%} of photos, "
        f"{coverage['promised']:.0%} promised ({coverage['expected_low']:.0%} to "
        f"{coverage['expected_high']:.0%} by chance of persons); {abstention:.0%} abstained"
    )
    people = evaluate.get("people", {})
    if people.get("votes"):
        own, model = people["accuracy"]["value"], people["model_accuracy"]["value"]
        lines.append(
            f"people            agree with each other's majority on {own:.0%} of "
            f"{people['votes']} votes, the model there on {model:.0%}"
        )
    return lines


def pictures() -> list[str]:
    """Return where the pictures of the run lie."""
    return [f"{path:<30}{what}" for path, what in PICTURES.items() if Path(path).exists()]


if __name__ == "__main__":
    sys.exit(main())
