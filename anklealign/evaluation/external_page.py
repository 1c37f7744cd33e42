"""The page of `anklealign evaluate`: one HTML file without scripts, fonts or links.

Shapes: K classes, H x W pixels.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from anklealign.evaluation import external, photo_attributes, score_tables
from anklealign.io.pixel_store import Pixels

# Score -> its name on the page, in this order.
SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "kappa": "kappa (quadratic weights)",
    "mcc": "Matthews correlation",
    "roc_auc": "ROC AUC (mean over classes)",
    "average_precision": "average precision (mean)",
    "log_loss": "log loss ↓",
    "brier": "Brier score ↓",
    "rps": "ranked probability score ↓",
    "two_step_errors": "errors of two steps or more ↓",
    "calibration_error": "calibration error ↓",
}
UNITS = {"width": " px", "height": " px"}
MAX_CLASSES = 20  # classes whose confusion matrix fits the page
MAX_REASONS = 10
CHART = 260  # px, side of the reliability diagram
WEBP_QUALITY = 80


@dataclass(frozen=True)
class Sheet:
    """A picture with its caption: (H, W, 3)."""

    pixels: Pixels
    caption: str


@dataclass(frozen=True)
class Origin:
    """Where the model comes from.

    Attributes:
        record: The record of the bundle.
        classes: K names.
        own: Metrics of the bundle's own test split, or {}.
    """

    record: Mapping[str, Any]
    classes: Sequence[str]
    own: Mapping[str, Any]


def html(
    metrics: Mapping[str, Any],
    origin: Origin,
    rows: pd.DataFrame,
    reliability: pd.DataFrame,
    mistakes: Sheet | None,
) -> str:
    """Return the page.

    Args:
        metrics: Content of evaluation.json.
        origin: Of the bundle.
        rows: One row per photo: actual and predicted class.
        reliability: Confidence, accuracy and photos of each bin.
        mistakes: Contact sheet of errors, if there are any.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("anklealign.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "interval": _interval, "number": _number}
    matrix = score_tables.confusion_table(rows, origin.classes)
    reasons = sorted(metrics["skipped"].items(), key=lambda item: (-item[1], item[0]))
    return environment.get_template("external.html.j2").render(
        metrics=metrics,
        run=origin.record["params"],
        own=origin.own,
        scores=[(key, name) for key, name in SCORES.items() if key in metrics],
        classes=origin.classes,
        matrix=_shaded(matrix) if len(origin.classes) <= MAX_CLASSES else [],
        attributes=_attribute_rows(metrics["drift"].get("attributes", {})),
        expected=external.EXPECTED,
        bins=_bins(reliability),
        chart=CHART,
        mistakes=mistakes and _embedded(mistakes),
        reasons=reasons[:MAX_REASONS],
        skipped=sum(metrics["skipped"].values()),
    )


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _interval(score: Mapping[str, float], prefix: str = "") -> str:
    """Return a CI as '0.647 to 0.948', or '' where groups are too few."""
    ends = [score.get(f"{prefix}ci_{end}") for end in ("low", "high")]
    sign = "+" if prefix else ""
    return " to ".join(f"{value:{sign}.3f}" for value in ends if value is not None)


def _shaded(matrix: pd.DataFrame) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return the rows of the confusion matrix: name, and count and share of each cell."""
    shares = matrix.div(matrix.sum(axis=1).clip(lower=1), axis=0)
    return [
        (str(name), list(zip(matrix.loc[name].tolist(), shares.loc[name].tolist(), strict=True)))
        for name in matrix.index
    ]


def _attribute_rows(drift: Mapping[str, Any]) -> list[tuple[str, str, str, Mapping[str, float]]]:
    """Return a row per attribute: name, medians of the training photos and of these, the share."""
    return [
        (
            name.replace("_", " "),
            *(
                f"{drift[name][key]:,.{2 if abs(drift[name][key]) < 10 else 0}f}"
                + UNITS.get(name, "")
                for key in ("train_median", "median")
            ),
            drift[name]["outside"],
        )
        for name in photo_attributes.COLUMNS
        if name in drift
    ]


def _bins(reliability: pd.DataFrame) -> list[dict[str, float]]:
    """Return the points of the reliability diagram in px, the area by the number of photos."""
    most = reliability.photos.max()
    columns = reliability[["confidence", "accuracy", "photos"]].to_numpy(np.float64).tolist()
    return [
        {
            "x": round(confidence * CHART, 1),
            "y": round((1 - accuracy) * CHART, 1),
            "r": round(3 + 5 * math.sqrt(photos / most), 1),
        }
        for confidence, accuracy, photos in columns
    ]


def _embedded(sheet: Sheet) -> dict[str, str]:
    """Return a picture as base64 WebP."""
    stream = io.BytesIO()
    pixels: npt.NDArray[np.uint8] = sheet.pixels
    Image.fromarray(pixels).save(stream, "WEBP", quality=WEBP_QUALITY, method=4)
    return {"base64": base64.b64encode(stream.getvalue()).decode(), "caption": sheet.caption}
