"""Brightness, contrast, color, size and shape of the photos of each class.

Shapes: N photos, (H, W, 3) uint8 pixels without the letterbox.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from anklealign.io.pixel_store import Boxes, Photos, Pixels

SAMPLE = 200  # photos of each class, by id
MAX_CLASSES = 25
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
# Cohen's d from which a difference counts as large: Statistical Power Analysis (1988).
LARGE_EFFECT = 0.8
MEASURES = ("brightness", "contrast", "saturation")
STEP = 2  # pixels; every second one in each direction has the same mean


def measure(pixels: Pixels) -> dict[str, Any]:
    """Return the measures of a photo in 0 to 1, and its mean color: (H, W, 3) uint8 -> dict."""
    colors = pixels[::STEP, ::STEP].reshape(-1, 3).astype(np.float64) / 255
    gray = colors @ LUMA
    most, least = colors.max(axis=1), colors.min(axis=1)
    saturation = np.divide(most - least, most, out=np.zeros_like(most), where=most > 0)
    return {
        "brightness": float(gray.mean()),
        "contrast": float(gray.std()),
        "saturation": float(saturation.mean()),
        "color": colors.mean(axis=0),
    }


def class_statistics(
    table: pd.DataFrame, store: Photos, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the statistics of each class, of up to `MAX_CLASSES` classes in order.

    Args:
        table: Photo table with id, label, width and height.
        store: (N, S, S, 3) uint8.
        classes: Class names.

    Returns:
        Of each class: `class`, `photos`, `sampled`, quantiles of each measure, `color` as hex,
        `side`, the median shorter side in px, `portrait` and `landscape` (shares), and `effect`,
        Cohen's d of each measure against the photos of all other classes.
    """
    sampled = table.sort_values("id").groupby("label").head(SAMPLE).reset_index(drop=True)
    measured = [measure(pixels) for pixels in Boxes(sampled, store)]
    values = pd.DataFrame(measured, index=sampled.index)
    statistics = []
    for name in classes[:MAX_CLASSES]:
        photos, own = table[table.label == name], values[sampled.label == name]
        if photos.empty:
            continue
        others = values[sampled.label != name]
        color = np.rint(255 * np.stack(own.color.tolist()).mean(axis=0)).astype(int)
        statistics.append(
            {
                "class": name,
                "photos": len(photos),
                "sampled": len(own),
                "color": "#{:02x}{:02x}{:02x}".format(*color.tolist()),
                "side": int(photos[["width", "height"]].min(axis=1).median()),
                "portrait": round(float((photos.width < photos.height).mean()), 4),
                "landscape": round(float((photos.width > photos.height).mean()), 4),
                "effect": {name: effect_size(own[name], others[name]) for name in MEASURES},
            }
            | {name: own[name].quantile(list(QUANTILES)).round(4).tolist() for name in MEASURES}
        )
    return statistics


def effect_size(first: "pd.Series[float]", second: "pd.Series[float]") -> float:
    """Return Cohen's d, the difference of the means in standard deviations; 0 without spread."""
    if len(first) < 2 or len(second) < 2:
        return 0.0
    spread = (len(first) - 1) * first.var() + (len(second) - 1) * second.var()
    deviation = float(np.sqrt(spread / (len(first) + len(second) - 2)))
    return round(float(first.mean() - second.mean()) / deviation, 3) if deviation else 0.0


def differences(statistics: Sequence[dict[str, Any]]) -> list[str]:
    """Return a sentence for each class whose photos differ much from the others, largest first."""
    words = {
        "brightness": ("brighter", "darker"),
        "contrast": ("higher in contrast", "lower in contrast"),
        "saturation": ("more colorful", "less colorful"),
    }
    found = []
    for row in statistics:
        for name, effect in row["effect"].items():
            if abs(effect) >= LARGE_EFFECT:
                word = words[name][effect < 0]
                sentence = (
                    f"Photos of {row['class']} are much {word} than the others "
                    f"(by {abs(effect):.1f} standard deviations)."
                )
                found.append((-abs(effect), sentence))
    return [sentence for _, sentence in sorted(found)]
