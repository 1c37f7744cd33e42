"""The metrics of a run, and tables and number formats that report and model card share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Metrics = Mapping[str, Any]

SPLITS = ("train", "val", "test")

MAX_CLASSES = 25  # rows of the table of classes
MAX_COLUMNS = 12  # classes with a column of their own in the table of splits

# Display names of metrics whose key is not readable by itself.
NAMES = {
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "f1": "F1",
    "mcc": "Matthews correlation",
    "kappa": "kappa (quadratic weights)",
    "roc_auc": "ROC AUC",
    "brier": "Brier score",
    "rps": "ranked probability score",
    "two_step_errors": "two-step errors",
    "gaussian_blur": "Gaussian blur",
    "gaussian_noise": "Gaussian noise",
    "jpeg_compression": "JPEG compression",
}


@dataclass(frozen=True)
class Cell:
    """A formatted value with its CI, which is empty where groups are too few."""

    text: str
    ci: str = ""


@dataclass(frozen=True)
class Table:
    """A header and rows of strings, integers and cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | int | Cell]]


def overall_scores(evaluate: Metrics) -> dict[str, Metrics]:
    """Return the scores of the whole test split: the entries with a value."""
    return {k: v for k, v in evaluate.items() if isinstance(v, Mapping) and "value" in v}


def overall_table(evaluate: Metrics) -> Table:
    """Return the overall scores with CI, majority baseline and gain."""
    rows: list[list[str | int | Cell]] = [
        [
            display_name(name),
            Cell(number(score["value"]), ci(score)),
            number(score.get("majority")),
            Cell(f"{score['gain']:+.3f}", gain_ci(score)),
        ]
        for name, score in overall_scores(evaluate).items()
    ]
    return Table(["score", "value", "majority", "gain"], rows)


def class_table(evaluate: Metrics) -> Table:
    """Return the scores of each class with CI; of many classes those with the lowest recall."""
    classes = {k.removeprefix("class_"): v for k, v in evaluate.items() if k.startswith("class_")}
    names = [
        name
        for name, value in next(iter(classes.values())).items()
        if isinstance(value, float) and "_ci_" not in name
    ]
    listed = list(classes.items())
    if len(listed) > MAX_CLASSES:
        # A class without test photos has no recall.
        measured = [item for item in listed if item[1]["support"]]
        listed = sorted(measured, key=lambda item: (item[1]["recall"], item[0]))[:MAX_CLASSES]
    rows = [
        [label, scores["support"]]
        + [Cell(number(scores[name]), ci(scores, f"{name}_")) for name in names]
        for label, scores in listed
    ]
    return Table(["class", "photos", *map(display_name, names)], rows)


def class_note(evaluate: Metrics) -> str:
    """Return which classes `class_table` leaves out; empty if it shows all."""
    count = sum(key.startswith("class_") for key in evaluate)
    if count <= MAX_CLASSES:
        return ""
    return (
        f"The table shows the {MAX_CLASSES} of {count:,} classes with the lowest recall. "
        "plots/evaluate/classes.csv lists all classes."
    )


def split_table(split: Metrics, classes: Sequence[str]) -> Table:
    """Return the counts of each split; subjects only if the dataset names any.

    Of many classes, the smallest, the median and the largest count take the place of their columns.
    """
    counts = ["photos", "subjects", "groups"] if has_subjects(split) else ["photos", "groups"]
    rows, header = [], ["split", *counts, *classes]
    for name in SPLITS:
        of_class = [split[name]["classes"][label] for label in classes]
        if len(classes) > MAX_COLUMNS:
            header = ["split", *counts, "fewest of a class", "median", "most of a class"]
            ordered = sorted(of_class)
            of_class = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
        rows.append([name, *(split[name][count] for count in counts), *of_class])
    return Table(header, rows)


def split_origin(split: Metrics) -> str:
    """Return the sentence that tells which splits are predefined."""
    held_out = [name for name in split.get("predefined", []) if name != "train"]
    if not held_out:
        return "The kept photos were split by group."
    if len(held_out) > 1:
        return "The predefined splits of the dataset are used."
    kept = (
        "The predefined test split is used"
        if held_out == ["test"]
        else "The predefined validation split became the test split"
    )
    return f"{kept}; validation photos were taken from train by group."


def has_subjects(split: Metrics) -> bool:
    """Return True if the dataset names the subject of any photo in a split."""
    return any(split[name]["subjects"] for name in SPLITS)


def value_table(block: Metrics) -> Table:
    """Return all values of a block of metrics, without those of single annotators."""
    shown = {key: value for key, value in block.items() if key != "by_annotator"}
    return Table(["metric", "value"], [[name, value] for name, value in flat(shown)])


def learning_curve_table(curve: Metrics) -> Table:
    """Return the balanced accuracy by number of training photos."""
    rows: list[list[str | int | Cell]] = [
        [f"{point['photos']:.0f}", Cell(number(point["value"]), f"± {point['sd']:.3f}")]
        for point in curve["points"].values()
    ]
    return Table(["training photos", "balanced accuracy (± sd over repeats)"], rows)


def candidate_table(run: Metrics) -> Table | None:
    """Return the candidates of `auto` with their scores on folds of train, if it chose the model.

    Args:
        run: Content of metrics/details/train.json.
    """
    if not (candidates := run.get("candidates")):
        return None
    names = list(dict.fromkeys([run["chosen"]["monitor"], "log_loss", "accuracy"]))
    rows: list[list[str | int | Cell]] = [
        [
            candidate,
            values["status"],
            int(values["image_passes"]),
            *(number(values[name]) if name in values else "" for name in names),
        ]
        for candidate, values in candidates.items()
    ]
    return Table(["candidate", "", "image passes", *map(display_name, names)], rows)


def shortcut_table(audit: Metrics) -> Table:
    """Return how well each attribute alone predicts the class."""
    rows: list[list[str | int | Cell]] = [
        [name.replace("_", " "), Cell(number(score["value"]), ci(score)), number(score["majority"])]
        for name, score in audit["attributes"].items()
    ]
    return Table(["attribute", "balanced accuracy (95% CI)", "majority class"], rows)


def flat(block: Metrics, prefix: str = "") -> list[tuple[str, str | Cell]]:
    """Return nested metrics as (name, value); a value and its CI are one cell."""
    rows: list[tuple[str, str | Cell]] = []
    for key, value in block.items():
        name = f"{prefix}{display_name(key)}"
        if not isinstance(value, Mapping):
            rows.append((name, value if isinstance(value, str) else number(value)))
            continue
        nested = dict(value)
        if "value" in value:
            rows.append((name, Cell(number(nested.pop("value")), ci(nested))))
            nested = {k: v for k, v in nested.items() if k not in ("ci_low", "ci_high")}
        rows += flat(nested, f"{name}, ")
    return rows


def drawn_marked(detected: Mapping[str, float]) -> str:
    """Return which share of the drawn images of each kind is marked as unlike the photos."""
    if min(detected.values()) == 1:
        return f"all ({', '.join(detected)})"
    return ", ".join(f"{percent(share, 0)} of {kind}" for kind, share in detected.items())


def display_name(key: str) -> str:
    """Return the display name of a score."""
    return NAMES.get(key, key.replace("_", " "))


def number(value: float | None) -> str:
    """Format a count with thousands separators, a score with three decimals, None as a dash."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def percent(fraction: float, digits: int = 1) -> str:
    """Format a fraction as a percentage, with one decimal by default."""
    return f"{fraction:.{digits}%}"


def ci(score: Metrics, prefix: str = "") -> str:
    """Format a CI as '0.647 to 0.948'; empty where groups are too few."""
    low, high = score.get(f"{prefix}ci_low"), score.get(f"{prefix}ci_high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def gain_ci(score: Metrics) -> str:
    """Format the CI of the gain with signs; empty where groups are too few."""
    if "gain_ci_low" not in score:
        return ""
    return f"{score['gain_ci_low']:+.3f} to {score['gain_ci_high']:+.3f}"
