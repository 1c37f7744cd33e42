"""HTML report of a run: one self-contained file with all pictures, readable offline.

Shows the data, the scores, calibration, human baseline, robustness, explanations, mistakes and how
to reproduce the run. The page has no scripts, fonts or external links.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from PIL import Image

from anklealign.metrics.scores import LOWER_IS_BETTER
from anklealign.reporting import metric_tables
from anklealign.reporting.metric_tables import Cell, Metrics, Table

MAX_PAGES = 4  # of one kind of contact sheet; keeps the report below 10 MB
MAX_WIDTH = 1400  # pixels of an embedded picture
WEBP_SIZE = 120_000  # bytes; larger pictures hold photos rather than charts and are saved as WebP
WEBP_QUALITY = 80
MIN_SCALE = 0.55  # smallest display scale of a picture, so that its text stays readable on a phone
LONG_TEXT = 24  # characters; longer cells wrap, as a phone shows about forty per line

CHECKS = ("calibration", "human_baseline", "robustness", "explanations")
SECTIONS = ("data", "scores", *CHECKS, "mistakes", "reproducibility")


@dataclass(frozen=True)
class Picture:
    """A picture as embedded in the page."""

    caption: str
    format: str
    base64: str
    width: int
    height: int

    @property
    def min_width(self) -> int:
        """Return the smallest display width in pixels."""
        return round(self.width * MIN_SCALE)


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: An entry of SECTIONS.
        template: Template of the text; empty for a section of pictures only.
        values: All values of a block of metrics, folded.
        pictures: In order.
    """

    name: str
    template: str
    values: Table | None
    pictures: Sequence[Picture]

    @property
    def title(self) -> str:
        """Return the heading."""
        return self.name.replace("_", " ").capitalize()

    @property
    def anchor(self) -> str:
        """Return the id that the navigation links to."""
        return self.name.replace("_", "-")


def html(
    metrics: Mapping[str, Metrics],
    run: Metrics,
    pictures: Mapping[str, Sequence[tuple[Path, str]]],
) -> str:
    """Return the page.

    Args:
        metrics: Content of metrics/details/<stage>.json by stage.
        run: Content of metrics/details/train.json.
        pictures: Paths and captions of the pictures by section, in order.
    """
    evaluate, split = metrics["evaluate"], metrics["split"]
    page = _environment().get_template("report.html.j2")
    return page.render(
        title=f"{run['params']['model_name']} on {run['params']['dataset_name']}",
        sections=_sections(evaluate, pictures),
        prepare=metrics["prepare"],
        clean={"warnings": {}} | dict(metrics["clean"]),  # metrics of an earlier run have none
        split=split,
        evaluate=evaluate,
        dropped=_dropped_table(metrics["prepare"], metrics["clean"]),
        has_subjects=metric_tables.has_subjects(split),
        split_origin=metric_tables.split_origin(split),
        splits=metric_tables.split_table(split, list(run["train_class_counts"])),
        overall=metric_tables.overall_table(evaluate),
        by_class=metric_tables.class_table(evaluate),
        class_note=metric_tables.class_note(evaluate),
        lower_is_better=", ".join(map(metric_tables.display_name, LOWER_IS_BETTER)),
        worst_corruption=_worst_corruption(evaluate.get("robustness", {})),
        origin=_origin_table(metrics["train"], run),
    )


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
        "ci": metric_tables.ci,
        "cell_text": _cell_text,
        "cell_class": _cell_class,
    }
    return environment


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


def _sections(
    evaluate: Metrics, pictures: Mapping[str, Sequence[tuple[Path, str]]]
) -> list[Section]:
    """Return the sections with content: a text or pictures."""
    sections = []
    for name in SECTIONS:
        measured = name in CHECKS and name in evaluate
        has_text = measured or name in ("data", "scores", "reproducibility")
        embedded = [embed(path, caption) for path, caption in pictures.get(name, ())]
        if has_text or embedded:
            template = f"{name}.html.j2" if has_text else ""
            values = metric_tables.value_table(evaluate[name]) if measured else None
            sections.append(Section(name, template, values, embedded))
    return sections


def _dropped_table(prepare: Metrics, clean: Metrics) -> Table:
    """Return what was skipped or removed, with counts by reason."""
    dropped = {
        "files skipped": prepare["skipped"],
        "tasks skipped": prepare["skipped_tasks"],
        "exports skipped": prepare["skipped_exports"],
        "listed names skipped": prepare["skipped_names"],
        "votes skipped": prepare["skipped_votes"],
        "photos removed": clean["reasons"],
    }
    rows: list[list[str | int | Cell]] = []
    for name, counts in dropped.items():
        reasons = {k.replace("_", " "): n for k, n in counts.items() if n and k != "total"}
        if reasons:
            listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
            rows.append([name, sum(reasons.values()), listed])
    return Table(["", "count", "reasons"], rows)


def _worst_corruption(robustness: Metrics) -> dict[str, float | str]:
    """Return score, kind and level of the corruption with the lowest score."""
    scores = [
        (score, kind.replace("_", " "), level)
        for kind, levels in robustness.items()
        if isinstance(levels, Mapping)
        for level, score in levels.items()
    ]
    return dict(zip(("score", "kind", "level"), min(scores), strict=True)) if scores else {}


def _origin_table(train: Metrics, run: Metrics) -> Table:
    """Return what identifies the run: model, epoch, seed, data hashes and versions."""
    monitor = run["chosen"]["monitor"].replace("_", " ")
    rows = [
        ["architecture", run["params"]["model"]["architecture"]],
        ["best epoch", f"{run['chosen']['epoch']} of {train['epochs']}"],
        ["selected by", f"validation {monitor}"],
        ["seed", run["chosen"].get("seed", run["params"]["seed"])],
        ["bundle", f"sha256 {run['bundle'][:16]}…"],
        ["pixels", f"sha256 {run['pixels_sha256'][:16]}…"],
        ["split", f"sha256 {run['split_sha256'][:16]}…"],
        *([name, run["versions"][name]] for name in ("python", "torch", "timm")),
    ]
    return Table(["", ""], rows)


def embed(path: Path, caption: str) -> Picture:
    """Return a picture for the page: small charts unchanged, larger pictures as WebP."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        kind, size = str(picture.format).lower(), picture.size
        if len(content) > WEBP_SIZE or picture.width > MAX_WIDTH:
            reduced = picture.convert("RGB")
            if reduced.width > MAX_WIDTH:
                height = round(reduced.height * MAX_WIDTH / reduced.width)
                reduced = reduced.resize((MAX_WIDTH, height), Image.Resampling.LANCZOS)
            stream = io.BytesIO()
            reduced.save(stream, "WEBP", quality=WEBP_QUALITY, method=4)
            kind, content, size = "webp", stream.getvalue(), reduced.size
    return Picture(caption, kind, base64.b64encode(content).decode(), *size)


# Section to (pattern below plots/, caption).
PICTURES = {
    "data": (
        ("prepare/overview.png", "Photos by class, size and aspect ratio"),
        ("prepare/collectors.png", "Photos by collector"),
        ("prepare/agreement.png", "Inter-annotator agreement and votes by annotator"),
        ("prepare/class_*.png", "Sample of the photos of each class"),
        ("clean/scores.png", "Quality scores of the photos, with the thresholds of clean"),
        ("clean/duplicates_*.png", "Removed duplicates next to the photo kept, with the reason"),
        ("clean/quality_*.png", "Photos removed or flagged as unusable, with the reason"),
        ("split/classes.png", "Classes by split"),
        ("split/nearest_*.png", "Most similar photos of different splits"),
    ),
    "scores": (
        ("evaluate/pictures/confusion.png", "Confusion matrix of the test photos"),
        (
            "evaluate/pictures/history.png",
            "Loss and validation scores by epoch; the dotted line marks the best epoch",
        ),
        ("train/pictures/*.png", "Augmented training photos"),
    ),
    "calibration": (
        (
            "evaluate/pictures/reliability*.png",
            "Reliability diagram before and after calibration",
        ),
    ),
    "human_baseline": (
        (
            "evaluate/pictures/human_baseline.png",
            "Accuracy of each annotator and of the model on the same test photos (photo counts)",
        ),
    ),
    "robustness": (
        ("evaluate/pictures/robustness*.png", "Balanced accuracy by kind and level of corruption"),
    ),
    "explanations": (
        (
            "evaluate/explanations/maps_*.png",
            "Attribution maps: regions that support the predicted class",
        ),
        ("evaluate/explanations/heads_*.png", "Attention heads of the last layer"),
    ),
    "mistakes": (("evaluate/pictures/mistakes_*.png", "Highest-confidence errors on test photos"),),
}


def pictures(plots: Path) -> dict[str, list[tuple[Path, str]]]:
    """Return the existing pictures of each section below plots/, with captions."""
    found: dict[str, list[tuple[Path, str]]] = {}
    for section, patterns in PICTURES.items():
        found[section] = []
        for pattern, caption in patterns:
            pages = sorted(plots.glob(pattern))
            limited = f" (first {MAX_PAGES} of {len(pages)} pages)"
            full_caption = caption + limited if len(pages) > MAX_PAGES else caption
            found[section] += [(path, full_caption) for path in pages[:MAX_PAGES]]
    return found
