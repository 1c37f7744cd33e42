"""HTML report of a run: one self-contained, interactive file, readable offline.

Its first screen has the result, examples and what to do next. Six sections follow: result,
mistakes, confidence, data, explanations, and how it was made. The text is in the file;
assets/report.js draws the charts from the data in it (with Observable Plot, assets/plot.min.js) and
shows photos. A content security policy allows these two scripts, by their hash, and no request.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import pandas as pd

from anklealign.metrics.scores import LOWER_IS_BETTER
from anklealign.reporting import findings, metric_tables, photo_statistics, thumbnails
from anklealign.reporting.metric_tables import Cell, Metrics, Table
from anklealign.reporting.photo_data import MAX_SKIPPED, Columns, photo_data
from anklealign.reporting.run_files import RunFiles

ASSETS = Path(__file__).parent / "assets"
LONG_TEXT = 24  # characters; longer cells wrap, as a phone shows about forty per line
EXAMPLES = 3  # right and wrong photos on the first screen
MAX_CELLS = 12  # classes; of more, the report lists the most frequent confusions
MAX_ROWS = 20  # bars of a chart, confusions, and collectors or subjects before 'more'
MAX_AUGMENTED = 4  # photos


@dataclass(frozen=True)
class RunComparison:
    """Predictions of another run on the same test photos.

    Attributes:
        name: Revision of the other run.
        conclusion: Whether the difference is within noise, in a sentence.
        predicted: Predicted class of the other run by photo id.
        rows: Score, other run, this run, and difference with CI.
    """

    name: str
    conclusion: str
    predicted: Mapping[str, str]
    rows: Table


def html(files: RunFiles, comparison: RunComparison | None = None) -> str:
    """Return the page of a run, or of a run beside another one."""
    metrics, run = files.metrics, files.metrics["train"]
    evaluate, split = metrics["evaluate"], metrics["split"]
    statistics = photo_statistics.class_statistics(files.split, files.store, files.classes)
    photos = photo_data(files)
    data = page_data(files, photos, statistics, comparison)
    scripts = [_asset("plot.min.js"), _asset("report.js")]
    page = _environment().get_template("report.html.j2")
    return page.render(
        title=f"{run['params']['dataset_name']}: report of {run['params']['model_name']}",
        dataset=run["params"]["dataset_name"],
        model=run["params"]["model_name"],
        policy=_policy(scripts),
        scripts=scripts,
        style=_asset("report.css"),
        data=_json(data),
        legend=thumbnails.legend(),
        headline=findings.headline(files),
        steps=findings.next_steps(files, statistics),
        examples=examples(files, photos),
        right=int((files.predictions.actual == files.predictions.predicted).sum()),
        things=findings.unit(split),
        has_subjects=metric_tables.has_subjects(split),
        has_collectors=bool(photos["names"]["collector"]),
        majority=findings.majority_class(files),
        least_found=findings.least_found(files),
        classes=files.classes,
        confusion=_confusion(files),
        confusions=_confusions(files),
        prepare=metrics["prepare"],
        clean={"warnings": {}} | dict(metrics["clean"]),  # metrics of an earlier run have none
        split=split,
        evaluate=evaluate,
        run=run,
        flow=_flow(files),
        skipped=_skipped(files),
        skip_count=len(files.skipped),
        pictures=len(photos["pictures"]),
        statistics=statistics,
        differences=photo_statistics.differences(statistics),
        mapped=len(photos["map"].get("photo", ())),
        split_origin=metric_tables.split_origin(split),
        splits=metric_tables.split_table(split, files.classes),
        **_tables(evaluate),
        uncalibrated="confidence_before" in files.reliability,  # not in older runs
        lower_is_better=", ".join(map(metric_tables.display_name, LOWER_IS_BETTER)),
        worst_corruption=_worst_corruption(evaluate.get("robustness", {})),
        annotators=_annotators(evaluate),
        augmented=_augmented(files),
        origin=_origin_table(files),
        candidates=metric_tables.candidate_table(run),
        epochs=len(files.history),
        curve=evaluate.get("learning_curve"),
        shortcuts=evaluate.get("shortcuts"),
        comparison=comparison,
    )


def _tables(evaluate: Metrics) -> dict[str, Any]:
    """Return the tables of scores, and what makes the other ones in the templates."""
    return {
        "overall": metric_tables.overall_table(evaluate),
        "by_class": metric_tables.class_table(evaluate),
        "class_note": metric_tables.class_note(evaluate),
        "value_table": metric_tables.value_table,
        "point_scores": {
            k: v for k, v in evaluate.get("operating_point", {}).items() if isinstance(v, Mapping)
        },
        "drawn_marked": metric_tables.drawn_marked,
        "curve_table": metric_tables.learning_curve_table,
        "shortcut_table": metric_tables.shortcut_table,
    }


def page_data(
    files: RunFiles,
    photos: Columns,
    statistics: Sequence[Mapping[str, Any]],
    comparison: RunComparison | None,
) -> dict[str, Any]:
    """Return the data that the page's script draws."""
    split = files.metrics["split"]
    evaluate, predictions = files.metrics["evaluate"], files.predictions
    correct = predictions.actual == predictions.predicted
    other = [] if comparison is None else [comparison.predicted[p] for p in predictions.id]
    return {
        "photos": photos,
        "scores": findings.score_rows(files),
        "recall": _recall(evaluate),
        "reliability": _without_nan(files.reliability),
        "test": {
            "confidence": predictions.probability.round(4).tolist(),
            "correct": correct.astype(int).tolist(),
        },
        "history": _history(files),
        "robustness": _robustness(evaluate),
        "statistics": statistics,
        "splits": [
            {"split": name, "class": label, "photos": split[name]["classes"][label]}
            for name in metric_tables.SPLITS
            for label in files.classes[:MAX_ROWS]
        ],
        "other": _other(photos, predictions, other),
    }  # fmt: skip


def _other(photos: Columns, predictions: pd.DataFrame, other: Sequence[str]) -> dict[str, Any]:
    """Return the rows of the photos that only one of two runs predicts correctly.

    `other` has the predicted class of the other run for each row of `predictions`.
    """
    if not other:
        return {}
    place = photos["place"]
    this_right = (predictions.actual == predictions.predicted).tolist()
    other_right = (predictions.actual == pd.Series(other, predictions.index)).tolist()
    rows = list(zip(predictions.id, this_right, other_right, strict=True))
    return {
        "this": [place[photo] for photo, mine, theirs in rows if mine and not theirs],
        "other": [place[photo] for photo, mine, theirs in rows if theirs and not mine],
        "predicted": {
            place[photo]: name for photo, name in zip(predictions.id, other, strict=True)
        },
    }


def examples(files: RunFiles, photos: Columns) -> dict[str, list[dict[str, Any]]]:
    """Return the photos of the first screen.

    The most confident right ones, of the classes in turn, and the highest-confidence errors.
    """
    rows = files.predictions.assign(
        place=[photos["place"][photo] for photo in files.predictions.id]
    )
    rows = rows[rows.place < len(photos["pictures"])]
    rows = rows.sort_values(["probability", "path"], ascending=[False, True])
    correct = rows[rows.actual == rows.predicted]
    turn = correct.groupby("actual").cumcount()
    correct = correct.assign(turn=turn).sort_values(["turn"], kind="stable")
    wrong = rows[rows.actual != rows.predicted]
    return {
        kind: [
            {
                "place": row["place"],
                "actual": row["actual"],
                "predicted": row["predicted"],
                "confidence": metric_tables.percent(row["probability"], 0),
                "picture": photos["pictures"][row["place"]],
            }
            for row in chosen.head(EXAMPLES).to_dict("records")
        ]
        for kind, chosen in (("right", correct), ("wrong", wrong))
    }


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """Return a content security policy: these scripts, pictures in the file, and no request."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    ]
    return (
        f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _json(data: Mapping[str, Any]) -> str:
    """Return JSON for a script element, which `<` could end."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("anklealign.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": metric_tables.number,
        "percent": metric_tables.percent,
        "whole": functools.partial(metric_tables.percent, digits=0),
        "ci": metric_tables.ci,
        "code": _code,
        "sentence": lambda text: f"{text[:1].upper()}{text[1:]}.",
        "cell_text": _cell_text,
        "cell_class": _cell_class,
    }
    return environment


def _code(text: str) -> markupsafe.Markup:
    """Return HTML of a sentence with `commands` in backticks."""
    parts = text.split("`")
    return markupsafe.Markup("").join(
        markupsafe.Markup("<code>{}</code>").format(part) if n % 2 else part
        for n, part in enumerate(parts)
    )


def _cell_text(value: str | int | Cell) -> str:
    if isinstance(value, Cell):
        return value.text
    return f"{value:,}" if isinstance(value, int) else value


def _cell_class(value: str | int | Cell) -> str:
    """Return the CSS class: 'n' aligns numbers to the right, 'long' wraps long texts."""
    text = _cell_text(value)
    if text and all(character in "0123456789.,+-% " for character in text):
        return "n"
    return "long" if len(text) > LONG_TEXT else ""


def _confusion(files: RunFiles) -> list[list[int]]:
    """Return the photo counts, rows by actual class; empty for many classes."""
    if len(files.classes) > MAX_CELLS:
        return []
    counts = pd.crosstab(files.predictions.actual, files.predictions.predicted)
    counts = counts.reindex(index=files.classes, columns=files.classes, fill_value=0)
    table: list[list[int]] = counts.to_numpy().tolist()
    return table


def _confusions(files: RunFiles) -> list[dict[str, Any]]:
    """Return the most frequent confusions, for a report with many classes."""
    wrong = files.predictions[files.predictions.actual != files.predictions.predicted]
    counts = wrong.groupby(["actual", "predicted"]).size().reset_index(name="photos")
    ordered = counts.sort_values(["photos", "actual", "predicted"], ascending=[False, True, True])
    rows = ordered.head(MAX_ROWS).to_dict("records")
    place = {name: k for k, name in enumerate(files.classes)}
    return [
        {str(k): v for k, v in row.items()}
        | {"a": place[row["actual"]], "p": place[row["predicted"]]}
        for row in rows
    ]


def _recall(evaluate: Metrics) -> list[dict[str, Any]]:
    """Return the recall of each class with its CI; of many classes, the lowest ones."""
    rows = [
        {
            "class": key.removeprefix("class_"),
            "photos": scores["support"],
            "value": scores["recall"],
            "low": scores.get("recall_ci_low"),
            "high": scores.get("recall_ci_high"),
        }
        for key, scores in evaluate.items()
        if key.startswith("class_") and scores["support"]
    ]
    if len(rows) > MAX_ROWS:
        rows = sorted(rows, key=lambda row: (row["value"], row["class"]))[:MAX_ROWS]
    return rows


def _history(files: RunFiles) -> dict[str, Any]:
    names = ["epoch", "train_loss", "val_loss"]
    if not len(files.history):  # the majority baseline has no epochs
        return {}
    rows = _without_nan(files.history[names])
    return {"rows": rows, "best": files.metrics["train"]["chosen"]["epoch"]}


def _without_nan(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows, with None for NaN, which JSON does not have."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _robustness(evaluate: Metrics) -> list[dict[str, Any]]:
    """Return kind, level and balanced accuracy of each corruption."""
    return [
        {"kind": metric_tables.display_name(kind), "level": level, "score": score}
        for kind, levels in evaluate.get("robustness", {}).items()
        if isinstance(levels, Mapping)
        for level, score in levels.items()
    ]


def _worst_corruption(robustness: Metrics) -> dict[str, float | str]:
    """Return score, kind and level of the corruption with the lowest score."""
    scores = [
        (score, metric_tables.display_name(kind), level)
        for kind, levels in robustness.items()
        if isinstance(levels, Mapping)
        for level, score in levels.items()
    ]
    return dict(zip(("score", "kind", "level"), min(scores), strict=True)) if scores else {}


def _annotators(evaluate: Metrics) -> Table | None:
    """Return annotators by accuracy beside the model on the same photos, without their names."""
    human = evaluate.get("human_baseline", {})
    if not human.get("votes"):
        return None
    rows = sorted(human["by_annotator"].items(), key=lambda item: (-item[1]["accuracy"], item[0]))
    return Table(
        ["annotator", "photos", "accuracy", "model on the same photos"],
        [
            [name, row["photos"], metric_tables.percent(row["accuracy"], 0),
             metric_tables.percent(row["model_accuracy"], 0)]
            for name, row in rows
        ],
    )  # fmt: skip


def _flow(files: RunFiles) -> dict[str, list[dict[str, Any]]]:
    """Return the reasons of skipped items and of removed photos, most frequent first."""
    prepare, clean = files.metrics["prepare"], files.metrics["clean"]
    return {
        "skipped": _reasons(prepare["skipped"]),
        "tasks": _reasons(prepare["skipped_tasks"]),
        "exports": _reasons(prepare["skipped_exports"]),
        "names": _reasons(prepare["skipped_names"]),
        "votes": _reasons(prepare["skipped_votes"]),
        "removed": _reasons(clean["reasons"]),
        "flagged": _reasons(clean["flagged"]),
    }


def _reasons(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    shown = [(name, count) for name, count in counts.items() if count and name != "total"]
    return [
        {"code": name, "name": name.replace("_", " "), "count": count}
        for name, count in sorted(shown, key=lambda item: (-item[1], item[0]))
    ]


def _skipped(files: RunFiles) -> list[dict[str, str]]:
    """Return rows of skipped items, those of rare reasons first, so that each reason is shown."""
    rows = files.skipped.assign(turn=files.skipped.groupby(["item", "reason"]).cumcount())
    rows = rows.sort_values(["turn", "item", "reason", "path"]).head(MAX_SKIPPED)
    rows = rows.sort_values(["item", "reason", "path"]).drop(columns="turn")
    return [
        {str(name): str(value) for name, value in row.items()} for row in rows.to_dict("records")
    ]


def _augmented(files: RunFiles) -> list[list[str]]:
    """Return the pictures of augmented training photos, the original first; rows of photos."""
    arrays = files.augmented
    originals, augmented = arrays["originals"], arrays["augmented"]
    return [
        [thumbnails.photo(pixels, 112) for pixels in (original, *variants[:5])]
        for original, variants in zip(originals, augmented, strict=True)
    ][:MAX_AUGMENTED]


def _origin_table(files: RunFiles) -> Table:
    """Return what identifies the run: model, epoch, seed, data hashes and versions."""
    run = files.metrics["train"]
    monitor = run["chosen"]["monitor"].replace("_", " ")
    rows = [
        ["architecture", run["params"]["model"]["architecture"]],
        ["parameters", f"{files.metrics['evaluate']['parameters']:,}"],
        ["best epoch", f"{run['chosen']['epoch']} of {run['epochs']}"],
        ["selected by", f"validation {monitor}"],
        ["seed", str(run["chosen"].get("seed", run["params"]["seed"]))],
        ["bundle", f"sha256 {run['bundle'][:16]}…"],
        ["pixels", f"sha256 {run['pixels_sha256'][:16]}…"],
        ["split", f"sha256 {run['split_sha256'][:16]}…"],
        *([name, run["versions"][name]] for name in ("python", "torch", "timm")),
    ]
    return Table(["", ""], rows)
