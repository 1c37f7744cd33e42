"""The model card: what a stranger must know of a trained bundle, in numbers from the metrics files.

In the form of the Hugging Face hub's cards, front matter first (Mitchell et al., Model Cards for
Model Reporting (2019)). Nothing here is measured or typed in: a test compares every number with
metrics/*.json and plots/train/run.json.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Metrics = Mapping[str, Any]

# Score to the hub's name of it, where it has one.
HUB_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "f1",
    "mcc": "matthews_correlation",
}
PARTS = ("train", "val", "test")

# Key in the metrics to what a person calls it, where the key alone does not say.
NAMES = {
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "f1": "F1",
    "mcc": "Matthews correlation",
    "kappa": "kappa, quadratic weights",
    "roc_auc": "ROC AUC",
    "brier": "Brier score",
}


def card(metrics: Mapping[str, Metrics], run: Metrics) -> str:
    """Return the card in Markdown.

    Args:
        metrics: Stage to the content of its file in metrics/.
        run: Content of plots/train/run.json.
    """
    sections = [
        front_matter(metrics["evaluate"], run),
        *what(metrics, run),
        *data(metrics, run),
        *scores(metrics["evaluate"]),
        *checks(metrics["evaluate"]),
        *limits(metrics),
        *use(),
    ]
    return "\n".join(sections) + "\n"


def front_matter(evaluate: Metrics, run: Metrics) -> str:
    """Return the card's YAML head. JSON strings are YAML strings, whatever is in a name."""
    dataset, model = run["params"]["dataset_name"], run["params"]["model_name"]
    name = json.dumps(dataset)
    results = [
        f"          - type: {HUB_NAMES[key]}\n"
        f"            name: {key.replace('_', ' ')}\n"
        f"            value: {score['value']:.4f}"
        for key, score in overall(evaluate).items()
        if key in HUB_NAMES
    ]
    return "\n".join(
        [
            "---",
            "library_name: timm",
            "pipeline_tag: image-classification",
            "license: unknown",
            "tags: [image-classification, timm, anklealign]",
            "model-index:",
            f"  - name: {json.dumps(f'{model} on {dataset}')}",
            "    results:",
            "      - task: {type: image-classification}",
            f"        dataset: {{name: {name}, type: {name}, split: test}}",
            "        metrics:",
            *results,
            "---",
            "",
        ]
    )


def overall(evaluate: Metrics) -> dict[str, Metrics]:
    """Return the scores of the whole test part: those with a value."""
    return {k: v for k, v in evaluate.items() if isinstance(v, Mapping) and "value" in v}


def what(metrics: Mapping[str, Metrics], run: Metrics) -> list[str]:
    """Return what the model is and how it was made."""
    dataset, model = run["params"]["dataset_name"], run["params"]["model_name"]
    block, chosen = run["params"]["model"], run["chosen"]
    classes = ", ".join(run["train_class_counts"])
    versions = ", ".join(f"{name} {run['versions'][name]}" for name in ("python", "torch", "timm"))
    return [
        f"# {model} on {dataset}",
        "",
        (
            f"Tells photos apart: {classes}. Architecture `{block['architecture']}`, "
            f"{metrics['evaluate']['parameters']:,} parameters, input {block['image_size']} x "
            f"{block['image_size']} pixels."
        ),
        "",
        (
            f"Of {metrics['train']['epochs']} epochs the one with the best validation "
            f"{chosen['monitor'].replace('_', ' ')} was kept: {chosen['epoch']}. Seed "
            f"{run['params']['seed']}; {versions}. No stage chooses "
            "anything by the test part."
        ),
        "",
    ]


def data(metrics: Mapping[str, Metrics], run: Metrics) -> list[str]:
    """Return where the photos come from and what became of them."""
    prepare, clean, split = metrics["prepare"], metrics["clean"], metrics["split"]
    classes = list(run["train_class_counts"])
    rows = [
        [part, split[part]["photos"], split[part]["persons"], split[part]["groups"]]
        + [split[part]["classes"][name] for name in classes]
        for part in PARTS
    ]
    return [
        "## Data",
        "",
        (
            f"Dataset `{run['params']['dataset_name']}`: {prepare['files_seen']} files and "
            f"{prepare['tasks_seen']} labelling tasks gave {prepare['photos']} photos; "
            f"{clean['removed']} were removed as copies or as unusable, {split['left_out']} "
            f"left out of all parts. Photos were divided by {split['grouped_by']}; no "
            f"{split['grouped_by']} and no picture stands in two parts."
        ),
        "",
        *table(["part", "photos", "persons", "groups", *classes], rows),
        "",
    ]


def scores(evaluate: Metrics) -> list[str]:
    """Return the scores with intervals, in all and per class."""
    lines = [
        "## Scores",
        "",
        (
            f"On {evaluate['photos']} test photos of {evaluate['groups']} groups, with 95 % "
            "intervals over groups; 'majority' always says the most frequent class of train. ROC "
            "AUC and average precision are of one class against the rest, the mean of all classes."
        ),
        "",
    ]
    rows = [
        [
            named(name),
            number(score["value"]),
            interval(score),
            number(score.get("majority")),
        ]
        for name, score in overall(evaluate).items()
    ]
    lines += [*table(["score", "value", "95 % interval", "majority"], rows), ""]
    per_class = {k.removeprefix("class_"): v for k, v in evaluate.items() if k.startswith("class_")}
    names = [
        name
        for name, value in next(iter(per_class.values())).items()
        if isinstance(value, float) and "_ci_" not in name
    ]
    rows = [
        [
            label,
            found["support"],
            *(f"{number(found[name])} ({interval(found, f'{name}_') or '-'})" for name in names),
        ]
        for label, found in per_class.items()
    ]
    head = ["class", "photos", *map(named, names)]
    return [*lines, *table(head, rows), ""]


def checks(evaluate: Metrics) -> list[str]:
    """Return the blocks of further figures: calibration, robustness, explanations, people."""
    lines = []
    for name, block in evaluate.items():
        if not isinstance(block, Mapping) or "value" in block or name.startswith("class_"):
            continue
        # Persons are no figures of the model: evaluate's plot and metrics have each.
        shown = {key: value for key, value in block.items() if key != "by_annotator"}
        rows = [
            [key, value if isinstance(value, str) else number(value)] for key, value in flat(shown)
        ]
        lines += [
            f"## {name.replace('_', ' ').capitalize()}",
            "",
            *table(["figure", "value"], rows),
            "",
        ]
    return lines


def limits(metrics: Mapping[str, Metrics]) -> list[str]:
    """Return what the figures do not tell."""
    evaluate, split = metrics["evaluate"], metrics["split"]
    return [
        "## Limits and intended use",
        "",
        f"- The scores rest on {evaluate['groups']} groups: read the intervals, not the values.",
        (
            "- They hold for photos taken as these were, of people like these. Other cameras, "
            "views, ages or skin tones than those in the data are not covered by any figure here."
        ),
        (
            f"- {split['person_unknown']} photos do not say who is on them and count as a group "
            "each; should two show one person, the intervals are too narrow."
        ),
        (
            "- For research and teaching, and for a first look that a person checks. It is no "
            "medical device and gives no diagnosis."
        ),
        (
            "- Where the prediction set does not hold exactly one class, the model abstains: do "
            "not use its first class there."
        ),
        "",
    ]


def use() -> list[str]:
    """Return how to use the bundle."""
    return [
        "## Use",
        "",
        "```console",
        "$ python -m anklealign.cli.predict photo.jpg --out predictions.csv",
        "```",
        "",
        (
            "`config.json` and `model.safetensors` load as timm's `local-dir:` too, without the "
            "preparation of the photo, the calibration and the prediction sets."
        ),
    ]


def flat(block: Metrics, prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested figures as (name, value)."""
    found: list[tuple[str, Any]] = []
    for key, value in block.items():
        name = f"{prefix}{key}".replace("_", " ")
        found += flat(value, f"{name}, ") if isinstance(value, Mapping) else [(name, value)]
    return found


def named(key: str) -> str:
    """Return what a person calls a score."""
    return NAMES.get(key, key.replace("_", " "))


def number(value: float | None) -> str:
    """Return a count as it is, a score to a thousandth, and a dash for none."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def interval(score: Metrics, prefix: str = "") -> str:
    """Return '0.647 to 0.948', or nothing where too few groups allow none."""
    low, high = score.get(f"{prefix}ci_low"), score.get(f"{prefix}ci_high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
