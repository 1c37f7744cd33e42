"""Print scores, counts and pictures of the last run.

    anklealign summary

Reads only metrics/details/, and the hash of model/config.json.
"""

import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from anklealign.io.results import read_results
from anklealign.reporting.metric_tables import drawn_marked

# The table shows kappa for ordered classes and the Matthews correlation otherwise.
SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "mcc", "roc_auc", "log_loss")
PICTURES = {
    "plots/prepare/": "photos of each class, sizes, aspect ratios, collectors",
    "plots/report.html": "everything on one page; open it in a browser",
    "plots/clean/": "removed photos, each next to the one kept, with the reason",
    "plots/split/": "classes in each split, most similar photos across splits",
    "plots/train/pictures/": "augmented training photos",
    "plots/evaluate/pictures/": "confusion, calibration, robustness, learning curves, mistakes",
    "plots/evaluate/explanations/": "heat maps of the predicted class",
}


def print_summary() -> int:
    """Print the summary of the last run; return the exit status, 1 if there is none."""
    try:
        metrics = read_results()
    except FileNotFoundError as error:
        print(f"summary: {error.filename} is missing; run `dvc repro` first", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"summary: {error}", file=sys.stderr)
        return 1
    evaluate = metrics["evaluate"]
    print()
    print("\n".join(wrapped(count_lines(metrics), 10)))
    print()
    print("\n".join(score_table(evaluate)))
    print()
    print("\n".join(wrapped(remarks(evaluate), 18)))
    print()
    print("\n".join(wrapped(pictures(), 30)))
    return 0


def wrapped(lines: Iterable[str], indent: int) -> list[str]:
    """Return lines of at most 80 columns, continued below their text."""
    wrapper = textwrap.TextWrapper(
        80, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return [part for line in lines for part in wrapper.wrap(line)]


def count_lines(metrics: dict[str, Any]) -> list[str]:
    """Return the counts of photos, stage by stage."""
    run = metrics["train"]
    prepare, clean, split = metrics["prepare"], metrics["clean"], metrics["split"]
    splits = ", ".join(f"{name} {split[name]['photos']}" for name in ("train", "val", "test"))
    excluded = f", {split['excluded']} excluded" if split["excluded"] else ""
    parameters = metrics["evaluate"]["parameters"]
    agreement = prepare.get("agreement", {})
    return [
        f"input     {prepare['files_seen']} files, {prepare['tasks_seen']} labeling tasks",
        *([vote_line(agreement)] if agreement.get("votes") else []),
        f"skipped   {skipped(prepare)}  (data/prepared/skipped.csv)",
        *([correction_line(block)] if (block := prepare.get("label_corrections")) else []),
        f"removed   {_reasons(clean['reasons'])}  (data/clean/removed.csv)",
        *(
            [f"flagged   {_reasons(clean['flagged'])}  (data/clean/flagged.csv)"]
            if any(clean.get("flagged", {}).values())
            else []
        ),
        f"split     {splits}{excluded}; {split['groups']} groups, none in two splits",
        f"dataset   {run['params']['dataset_name']}",
        f"model     {run['params']['model_name']}, {parameters:,} parameters",
    ]


def skipped(prepare: Mapping[str, Any]) -> str:
    """Return the counts of skipped files, and of what labels them, each with its reasons."""
    kinds = {
        kind.removeprefix("skipped").strip("_") or "files": counts
        for kind, counts in prepare.items()
        if kind.startswith("skipped")
    }
    parts = [_reasons(counts, kind) for kind, counts in kinds.items() if any(counts.values())]
    return ", ".join(parts) or "0"


def correction_line(corrections: Mapping[str, int]) -> str:
    """Return the number of corrected labels and of stale corrections."""
    return (
        f"corrected {corrections['photos']} labels, {corrections['stale']} corrections are stale  "
        "(data/prepared/label_corrections.csv)"
    )


def vote_line(agreement: Mapping[str, Any]) -> str:
    """Return the counts of votes and the inter-annotator agreement."""
    names = {"alpha_nominal": "alpha", "alpha_ordinal": "ordinal alpha", "pairwise": "pairwise"}
    scores = ", ".join(
        f"{name} {agreement[key]:.2f}" for key, name in names.items() if key in agreement
    )
    return (
        f"votes     {agreement['votes']} by {agreement['annotators']} annotators on "
        f"{agreement['photos']} photos; {scores}"
    )


def _reasons(counts: Mapping[str, int], kind: str = "") -> str:
    nonzero = {reason: count for reason, count in counts.items() if count and reason != "total"}
    listed = ", ".join(f"{reason} {count}" for reason, count in nonzero.items())
    number = f"{sum(nonzero.values())} {kind}".strip()
    return f"{number} ({listed})" if nonzero else "0"


def score_table(evaluate: dict[str, Any]) -> list[str]:
    """Return a table of the scores, their 95% CI and the scores of the majority class."""
    lines = [
        f"{evaluate['photos']} test photos of {evaluate['groups']} groups",
        f"{'score':<18}{'model':>7}   {'95% CI':<17}{'majority':>8}   gain, 95% CI",
    ]
    omitted = "mcc" if "kappa" in evaluate else "kappa"
    few = f"n/a, {evaluate['groups']} groups"
    for name in SCORES:
        if name == omitted:
            continue
        score = evaluate[name]
        interval, gain = few, f"{score['gain']:+.3f}"
        if "ci_low" in score:
            interval = f"{score['ci_low']:.3f} to {score['ci_high']:.3f}"
            gain += f", {score['gain_ci_low']:+.3f} to {score['gain_ci_high']:+.3f}"
        lines.append(
            f"{name.replace('_', ' '):<18}{score['value']:>7.3f}   {interval:<17}"
            f"{score['majority']:>8.3f}   {gain}"
        )
    return lines


def remarks(evaluate: dict[str, Any]) -> list[str]:
    """Return the worst class and collector, the coverage and the human baseline."""
    worst, block = evaluate["worst"], evaluate["calibration"]
    lines = []
    for kind, score in (("class", "recall"), ("collector", "accuracy")):
        if kind in worst:
            value, photos = worst[f"{kind}_{score}"], worst[f"{kind}_photos"]
            text = f"{worst[kind]}, {score} {value:.3f} on {photos} photos"
            lines.append(f"{f'worst {kind}':<18}{text}")
    if seeds := evaluate.get("seeds"):
        spread = seeds["balanced_accuracy"]
        lines.append(
            f"training seeds    balanced accuracy {spread['mean']:.3f}, sd {spread['sd']:.3f}, "
            f"over {seeds['count']} seeds; the model is the median by validation"
        )
    coverage, abstention = block["coverage"], block["abstention"]["value"]
    lines.append(
        f"prediction sets   contain the true class for {coverage['value']:.0%} of photos (nominal "
        f"{coverage['nominal']:.0%}, expected range under resampling of groups "
        f"{coverage['expected_low']:.0%} to {coverage['expected_high']:.0%}); "
        f"{abstention:.0%} abstained"
    )
    selective = block.get("selective_accuracy")
    if abstention and selective is not None and selective <= evaluate["accuracy"]["value"]:
        lines.append(
            f"abstaining        does not help on this set: accuracy {selective:.3f} on the other "
            "photos"
        )
    if novelty := evaluate.get("novelty"):
        lines.append(
            f"unlike photos     {novelty['false_refusals']['value']:.0%} of the test photos are "
            f"marked by mistake; of drawn images, {drawn_marked(novelty['detected'])} are marked"
        )
    humans = evaluate.get("human_baseline", {})
    if humans.get("votes"):
        human, model = humans["accuracy"]["value"], humans["model_accuracy"]["value"]
        lines.append(
            f"annotators        match the majority of the others on {human:.0%} of "
            f"{humans['votes']} votes, the model on {model:.0%}"
        )
    if published := evaluate.get("label_reliability"):
        lines.append(
            f"published         {published['measure']} {published['published']:.2f} "
            f"({published['source']})"
        )
    return [*lines, *set_remarks(evaluate)]


def set_remarks(evaluate: Mapping[str, Any]) -> list[str]:
    """Return scores by subject and at the operating point, the learning curve, and shortcuts."""
    lines = []
    if subjects := evaluate.get("subjects"):
        lines.append(
            f"per subject       accuracy {subjects['accuracy']['value']:.3f} on "
            f"{subjects['subjects']} subjects, photo by photo "
            f"{subjects['photo_accuracy']['value']:.3f}"
        )
    if point := evaluate.get("operating_point"):
        scores = ", ".join(
            f"{name} {score['value']:.3f}"
            for name, score in point.items()
            if isinstance(score, Mapping)
        )
        lines.append(
            f"operating point   {point['positive']} from probability {point['threshold']:.3f} on: "
            f"{scores}"
        )
    if curve := evaluate.get("learning_curve"):
        lines.append(f"more photos       {curve['answer']}")
    sentences = evaluate.get("shortcuts", {}).get("warnings", {}).values()
    return [*lines, *(f"shortcut          {sentence}" for sentence in sentences)]


def pictures() -> list[str]:
    """Return the paths of the pictures of the run."""
    return [f"{path:<30}{what}" for path, what in PICTURES.items() if Path(path).exists()]
