"""The report a person opens: one HTML file, with its pictures inside, that needs no network.

The data's story, then scores, calibration, robustness, explanations and mistakes, then how it was
made. No script, no font, no address: it can be mailed. A test opens it in a browser.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from anklealign.model_card import Metrics, flat, interval, number, overall

WIDEST = 1400  # pixels of an embedded picture
LARGE = 120_000  # bytes; larger pictures are photos rather than charts and become WebP
QUALITY = 80  # of WebP
PAGES = 4  # of a contact sheet with many; the report stays below 10 MB

STYLE = """
:root { color-scheme: light; --ink: #1a1a1a; --faint: #5c5c5c; --line: #dddddd; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; background: #ffffff; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
p { max-width: 44rem; }
.lead { font-size: 1.15rem; }
.faint { color: var(--faint); }
nav a { display: inline-block; margin: 0 .9rem .3rem 0; color: var(--accent); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem;
  margin: 1.2rem 0; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.5rem; line-height: 1.2; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; }
td.n, th.n { text-align: right; }
figure { margin: 1.2rem 0; }
img { max-width: 100%; height: auto; display: block; }
figcaption { color: var(--faint); font-size: .92rem; margin-top: .3rem; }
"""


def html(
    metrics: Mapping[str, Metrics],
    run: Metrics,
    pictures: Mapping[str, Sequence[tuple[Path, str]]],
) -> str:
    """Return the page.

    Args:
        metrics: Stage to the content of its file in metrics/.
        run: Content of plots/train/run.json.
        pictures: Section ('data', 'scores', …) to its pictures' paths and captions, in order.
    """
    sections: dict[str, list[str]] = {
        "Data": data(metrics, run),
        "Scores": scores(metrics["evaluate"]),
        # Those with pictures in this order, others of the metrics behind them.
        **{key: [] for key in ("Calibration", "Robustness", "Explanations")},
        **checks(metrics["evaluate"]),
        "Mistakes": [],
        "How it was made": making(metrics, run),
    }
    body = []
    shown = []
    for title, lines in sections.items():
        figures = [figure(*some) for some in pictures.get(title.lower(), ())]
        if lines or figures:
            anchor = title.lower().replace(" ", "-")
            shown.append(f'<a href="#{anchor}">{escape(title)}</a>')
            body += [
                f'<section id="{anchor}"><h2>{escape(title)}</h2>',
                *lines,
                *figures,
                "</section>",
            ]
    dataset, model = run["params"]["dataset_name"], run["params"]["model_name"]
    title = f"{model} on {dataset}"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{escape(title)}</h1>",
            *lead(metrics["evaluate"]),
            f"<nav>{' '.join(shown)}</nav>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def lead(evaluate: Metrics) -> list[str]:
    """Return the result in one sentence and four boxes."""
    accuracy = evaluate["accuracy"]
    sure = interval(accuracy)
    told = f", 95 % interval {sure}" if sure else "; too few groups for an interval"
    boxes = {
        "balanced accuracy": number(evaluate["balanced_accuracy"]["value"]),
        "test photos": number(evaluate["photos"]),
        "groups of test photos": number(evaluate["groups"]),
        "parameters": number(evaluate["parameters"]),
    }
    return [
        (
            f'<p class="lead">It labels {accuracy["value"]:.1%} of the test photos right{told}. '
            f"Always saying the most frequent class would give {accuracy['majority']:.1%}.</p>"
        ),
        '<div class="cards">',
        *(f'<div class="card"><b>{value}</b>{name}</div>' for name, value in boxes.items()),
        "</div>",
    ]


def data(metrics: Mapping[str, Metrics], run: Metrics) -> list[str]:
    """Return what came in, was skipped, removed and split."""
    prepare, clean, split = metrics["prepare"], metrics["clean"], metrics["split"]
    reasons = [
        (what, reason, count)
        for what, counts in (
            ("file skipped", prepare["skipped"]),
            ("task skipped", prepare["skipped_tasks"]),
            ("export skipped", prepare["skipped_exports"]),
            ("name on a list skipped", prepare["skipped_names"]),
            ("vote skipped", prepare["skipped_votes"]),
            ("photo removed", clean["reasons"]),
        )
        for reason, count in counts.items()
        if count and reason != "total"
    ]
    classes = list(run["train_class_counts"])
    parts = [
        [part, split[part]["photos"], split[part]["persons"], split[part]["groups"]]
        + [split[part]["classes"][name] for name in classes]
        for part in ("train", "val", "test")
    ]
    lines = [
        (
            f"<p>{prepare['files_seen']:,} files and {prepare['tasks_seen']:,} labelling tasks "
            f"gave {prepare['photos']:,} photos; {clean['removed']:,} of them were removed as "
            f"copies or as unusable. The rest was divided by {escape(split['grouped_by'])}: none "
            f"stands in two parts, and no picture does. {split['left_out']:,} photos are in no "
            "part.</p>"
        )
    ]
    if reasons:
        told = [(what, reason.replace("_", " "), count) for what, reason, count in reasons]
        lines += table(["", "reason", "number"], told)
        lines.append(
            '<p class="faint">Each by name: data/prepared/skipped.csv, data/clean/removed.csv.</p>'
        )
    else:
        lines.append("<p>Nothing was skipped and nothing removed.</p>")
    return lines + table(["part", "photos", "persons", "groups", *classes], parts)


def scores(evaluate: Metrics) -> list[str]:
    """Return the scores with intervals, in all and per class."""
    rows = [
        [
            name.replace("_", " "),
            number(score["value"]),
            interval(score) or "too few groups",
            number(score.get("majority")),
        ]
        for name, score in overall(evaluate).items()
    ]
    lines = [
        (
            "<p>95 % intervals by resampling whole groups (persons), as photos of one person are "
            "not independent. <em>Majority</em> always says the most frequent class of train.</p>"
        ),
        *table(["score", "value", "95 % interval", "majority"], rows),
    ]
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
            *(f"{number(found[n])} ({interval(found, f'{n}_') or '-'})" for n in names),
        ]
        for label, found in per_class.items()
    ]
    return lines + table(["class", "photos", *(n.replace("_", " ") for n in names)], rows)


def checks(evaluate: Metrics) -> dict[str, list[str]]:
    """Return the further blocks of figures by title: calibration, robustness, and so on."""
    found = {}
    for name, block in evaluate.items():
        if isinstance(block, Mapping) and "value" not in block and not name.startswith("class_"):
            rows = [
                (key, value if isinstance(value, str) else number(value))
                for key, value in flat(block)
            ]
            found[name.replace("_", " ").capitalize()] = folded(
                table(["figure", "value"], rows), len(rows)
            )
    return found


def folded(lines: list[str], rows: int) -> list[str]:
    """Return a long table folded away under its length."""
    if rows <= 14:
        return lines
    return [f"<details><summary>{rows} figures</summary>", *lines, "</details>"]


def making(metrics: Mapping[str, Metrics], run: Metrics) -> list[str]:
    """Return model, settings and origin."""
    block = run["params"]["model"]
    rows = [
        ("architecture", block["architecture"]),
        ("epoch kept", f"{run['chosen']['epoch']} of {metrics['train']['epochs']}"),
        ("chosen by", f"{run['chosen']['monitor'].replace('_', ' ')} on validation photos"),
        ("seed", run["params"]["seed"]),
        ("pixels", f"sha256 {run['pixels_sha256'][:16]}…"),
        ("split", f"sha256 {run['split_sha256'][:16]}…"),
        *((name, run["versions"][name]) for name in ("python", "torch", "timm", "dvc")),
    ]
    return table(["", ""], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return an HTML table that scrolls by itself on a narrow screen; numbers to the right."""

    def cell(tag: str, value: object) -> str:
        text = f"{value:,}" if isinstance(value, int) else str(value)
        numeric = bool(text) and all(c in "0123456789.,+-% " for c in text)
        kind = ' class="n"' if numeric else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    lines = ['<div class="scroll"><table>']
    if any(head):
        lines.append("<tr>" + "".join(cell("th", name) for name in head) + "</tr>")
    lines += ["<tr>" + "".join(cell("td", value) for value in row) + "</tr>" for row in rows]
    return [*lines, "</table></div>"]


def figure(path: Path, caption: str) -> str:
    """Return a picture with its caption, its bytes inside."""
    kind, content, size = embedded(path)
    return (
        f'<figure><img src="data:image/{kind};base64,{base64.b64encode(content).decode()}" '
        f'width="{size[0]}" height="{size[1]}" loading="lazy" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def embedded(path: Path) -> tuple[str, bytes, tuple[int, int]]:
    """Return a picture's format, bytes and size: small charts as they are, the rest as WebP."""
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        if len(content) <= LARGE and picture.width <= WIDEST:
            return str(picture.format).lower(), content, picture.size
        smaller = picture.convert("RGB")
    if smaller.width > WIDEST:
        height = round(smaller.height * WIDEST / smaller.width)
        smaller = smaller.resize((WIDEST, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    smaller.save(stream, "WEBP", quality=QUALITY, method=4)
    return "webp", stream.getvalue(), smaller.size


def pictures(plots: Path) -> dict[str, list[tuple[Path, str]]]:
    """Return each section's pictures below plots/, with captions; what is not there is left out."""

    def some(pattern: str, caption: str) -> list[tuple[Path, str]]:
        pages = sorted(plots.glob(pattern))
        more = f" (the first {PAGES} of {len(pages)} pages)" if len(pages) > PAGES else ""
        return [(path, caption + more) for path in pages[:PAGES]]

    return {
        "data": [
            *some("prepare/*.png", "The photos as they came in"),
            *some("clean/scores.png", "Quality of the photos, with the thresholds of clean"),
            *some("clean/[!s]*.png", "Removed photos, each beside what was kept, and why"),
            *some("split/classes.png", "Classes in the parts"),
        ],
        "scores": [
            *some(
                "evaluate/pictures/confusion.png",
                "Actual against predicted class of the test photos",
            ),
            *some(
                "evaluate/pictures/history.png", "Loss and validation scores by epoch; dotted: kept"
            ),
            *some("train/pictures/*.png", "Photos as train sees them, augmented"),
        ],
        "calibration": some(
            "evaluate/pictures/reliability*.png", "How often it is right at each probability"
        ),
        "robustness": some("evaluate/pictures/robustness*.png", "Scores on worsened photos"),
        "explanations": some("evaluate/explanations/*.png", "Where the model looked"),
        "mistakes": some(
            "evaluate/pictures/mistakes_*.png", "The surest mistakes on the test photos"
        ),
    }
