"""The report's sentences: the result in one, and what to do next."""

from collections.abc import Sequence
from typing import Any

from anklealign.reporting import photo_statistics
from anklealign.reporting.metric_tables import Metrics, has_subjects, percent
from anklealign.reporting.run_files import RunFiles

MAX_STEPS = 4
WIDE = 0.2  # width of a 95% CI from which more test photos come before anything else
MIN_ACCEPTED = 20  # photos; the accuracy of fewer says little
GOOD_ACCURACY = 0.95  # of accepted predictions
GOOD_RECALL = 0.95  # of the worst class; above it, no class is named as weak


def unit(split: Metrics) -> str:
    """Return what is kept in one split, in the plural: 'subjects', 'collectors' or 'photos'."""
    grouped = str(split["grouped_by"])
    if grouped == "subject":
        return "subjects" if has_subjects(split) else "photos"
    return f"{grouped}s"


def headline(files: RunFiles) -> str:
    """Return the result in one sentence."""
    evaluate = files.metrics["evaluate"]
    accuracy, photos = evaluate["accuracy"], evaluate["photos"]
    right = int((files.predictions.actual == files.predictions.predicted).sum())
    start = f"The model classifies {right:,} of {photos:,} test photos correctly"
    always = f"always answering “{majority_class(files)}”"
    if "gain_ci_low" not in accuracy:
        return f"{start}; the test split is too small to say how certain this is."
    if accuracy["gain_ci_low"] > 0:
        return f"{start}, clearly more than {always} would ({percent(accuracy['majority'], 0)})."
    if evaluate["balanced_accuracy"].get("gain_ci_low", 0) > 0:
        return (
            f"{start}. It is better than chance on the average class, but not certainly better "
            f"overall than {always}."
        )
    if accuracy["gain_ci_high"] < 0:
        return f"{start}, fewer than {always} would."
    return f"{start}; it is not certain that this is more than {always} would."


def majority_class(files: RunFiles) -> str:
    """Return the most frequent class of the training photos."""
    counts = files.metrics["train"]["train_class_counts"]
    return str(max(counts, key=lambda name: counts[name]))


def score_rows(files: RunFiles) -> list[dict[str, Any]]:
    """Return the rows of the first chart: model, majority baseline and annotators."""
    evaluate = files.metrics["evaluate"]
    accuracy = evaluate["accuracy"]
    rows = [
        _row("This model", accuracy, "model"),
        {"name": f"Always “{majority_class(files)}”", "value": accuracy["majority"],
         "kind": "baseline"},
    ]  # fmt: skip
    human = evaluate.get("human_baseline", {})
    if human.get("votes"):
        photos = human["photos"]
        rows += [
            _row(f"Annotators ({photos})", human["accuracy"], "annotators"),
            _row(f"Model (same {photos})", human["model_accuracy"], "model"),
        ]
    return rows


def _row(name: str, score: Metrics, kind: str) -> dict[str, Any]:
    ends = {"low": score["ci_low"], "high": score["ci_high"]} if "ci_low" in score else {}
    return {"name": name, "value": score["value"], "kind": kind} | ends


def next_steps(files: RunFiles, statistics: Sequence[dict[str, Any]]) -> list[str]:
    """Return what to do next, most important first: `MAX_STEPS` sentences at most."""
    evaluate, split = files.metrics["evaluate"], files.metrics["split"]
    accuracy = evaluate["accuracy"]
    steps = []
    if split.get("leaking_pairs"):
        steps.append(
            f"Look at {split['leaking_pairs']} pairs of the same picture in two splits "
            "(data/split/leaking_pairs.csv). They make the score too good."
        )
    if files.metrics["clean"].get("warnings"):
        steps.append(
            "Look at the removed photos under Data. Cleaning removed or flagged many photos, or "
            "mainly those of one class."
        )
    audit = evaluate.get("shortcuts", {})
    if guessed := [name.replace("_", " ") for name in audit.get("warnings", {})]:
        names = ", ".join(guessed[:-1]) + " or " + guessed[-1] if guessed[1:] else guessed[0]
        steps.append(
            f"Find out what the model looks at: the class can be guessed from {names} alone (see "
            "Explanations). Photos of all classes from the same source would tell."
        )
    things = unit(split)
    if "ci_low" not in accuracy:
        steps.append(
            f"Add photos of more {things} to the test split. It has {evaluate['groups']} groups, "
            "too few for a confidence interval."
        )
    elif accuracy["ci_high"] - accuracy["ci_low"] > WIDE:
        steps.append(
            f"Add test photos{'' if things == 'photos' else f' of more {things}'}. The accuracy "
            f"may lie anywhere from {percent(accuracy['ci_low'], 0)} to "
            f"{percent(accuracy['ci_high'], 0)}, because the test split has only "
            f"{evaluate['groups']} {'photos' if things == 'photos' else 'groups'}."
        )
    steps += _weak_class(files)
    steps += [
        f"{sentence} Check under Data that the model does not learn this instead of the content."
        for sentence in photo_statistics.differences(statistics)[:1]
    ]
    steps += _threshold(files)
    steps.append(
        "Run `anklealign label-issues` and review the photos it ranks first: some apparent "
        "errors are wrong labels."
    )
    return steps[:MAX_STEPS]


def _threshold(files: RunFiles) -> list[str]:
    """Return from which confidence on predictions are right far more often, if there is one."""
    confidence = files.predictions.probability
    correct = files.predictions.actual == files.predictions.predicted
    for percentage in range(50, 100, 5):
        accepted = confidence >= percentage / 100
        if accepted.sum() >= MIN_ACCEPTED and correct[accepted].mean() >= GOOD_ACCURACY:
            if accepted.all():
                return []
            step = (
                f"Decide under Confidence which predictions to accept. From {percentage}% on, "
                f"{percent(float(correct[accepted].mean()), 0)} of {accepted.sum():,} are right; "
                f"someone would look at the other {(~accepted).sum():,} photos."
            )
            return [step]
    return []


def least_found(files: RunFiles) -> list[str]:
    """Return the classes with the lowest recall on the test photos, in the order of the classes."""
    right = files.predictions.actual == files.predictions.predicted
    recall = right.groupby(files.predictions.actual).mean()
    return [name for name in files.classes if recall.get(name) == recall.min()]


def _weak_class(files: RunFiles) -> list[str]:
    evaluate = files.metrics["evaluate"]
    worst = evaluate["worst"]
    if worst["class_recall"] > GOOD_RECALL:
        return []
    wrong = files.predictions[
        (files.predictions.actual == worst["class"])
        & (files.predictions.predicted != worst["class"])
    ]
    if wrong.empty:
        return []
    confused = wrong.predicted.value_counts().sort_index().sort_values(kind="stable").index[-1]
    lowest = "has the lowest recall" if len(least_found(files)) == 1 else "has a low recall"
    step = (
        f"Look at the errors on “{worst['class']}”, which {lowest} "
        f"({percent(worst['class_recall'], 0)} of {worst['class_photos']} photos) and is most "
        f"often mistaken for “{confused}”. More training photos of both help, or clearer labels."
    )
    return [step]
