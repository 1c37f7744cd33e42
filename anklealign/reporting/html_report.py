"""The report a person opens: one HTML file, with its pictures inside, that needs no network.

The data's story, then scores, calibration, robustness, explanations and mistakes, then how it was
made. No script, no font, no address: it can be mailed. A test opens it in a browser.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from anklealign.reporting.html import document, figure, table
from anklealign.reporting.model_card import Metrics, flat, interval, named, number, overall

PAGES = 4  # of a contact sheet with many; the report stays below 10 MB


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
    nav = f"<nav>{' '.join(shown)}</nav>"
    return document(title, [*lead(metrics["evaluate"]), nav, *body])


def lead(evaluate: Metrics) -> list[str]:
    """Return the result in one sentence and four boxes."""
    accuracy = evaluate["accuracy"]
    told = "; too few groups for an interval"
    if interval(accuracy):
        told = f", with a 95 % interval of {percent(accuracy['ci_low'])} to "
        told += percent(accuracy["ci_high"])
    boxes = {
        "balanced accuracy": number(evaluate["balanced_accuracy"]["value"]),
        "test photos": number(evaluate["photos"]),
        "groups (persons) of them": number(evaluate["groups"]),
        "parameters": number(evaluate["parameters"]),
    }
    return [
        (
            f'<p class="lead">It labels {percent(accuracy["value"])} of the test photos right'
            f"{told}. Always saying the most frequent class would give "
            f"{percent(accuracy['majority'])}.</p>"
        ),
        '<div class="cards">',
        *(f'<div class="card"><b>{value}</b>{name}</div>' for name, value in boxes.items()),
        "</div>",
    ]


def data(metrics: Mapping[str, Metrics], run: Metrics) -> list[str]:
    """Return what came in, was skipped, removed and split."""
    prepare, clean, split = metrics["prepare"], metrics["clean"], metrics["split"]
    counted = {
        "files skipped": prepare["skipped"],
        "tasks skipped": prepare["skipped_tasks"],
        "exports skipped": prepare["skipped_exports"],
        "listed names skipped": prepare["skipped_names"],
        "votes skipped": prepare["skipped_votes"],
        "photos removed": clean["reasons"],
    }
    rows = []
    for what, counts in counted.items():
        found = {k.replace("_", " "): n for k, n in counts.items() if n and k != "total"}
        if found:
            listed = ", ".join(f"{reason} {n:,}" for reason, n in found.items())
            rows.append([what, sum(found.values()), listed])
    classes = list(run["train_class_counts"])
    parts = [
        [part, split[part]["photos"], split[part]["persons"], split[part]["groups"]]
        + [split[part]["classes"][name] for name in classes]
        for part in ("train", "val", "test")
    ]
    left_out = f" {split['left_out']:,} photos are in no part." if split["left_out"] else ""
    lines = [
        (
            f"<p>{prepare['files_seen']:,} files and {prepare['tasks_seen']:,} labelling tasks "
            f"gave {prepare['photos']:,} photos; {clean['removed']:,} of them were removed as "
            f"copies or as unusable. The rest was divided by {escape(split['grouped_by'])}: none "
            f"stands in two parts, and no picture does.{left_out}</p>"
        )
    ]
    if rows:
        lines += table(["", "number", "reasons"], rows)
        lines.append(
            '<p class="faint">Each by name: data/prepared/skipped.csv, data/clean/removed.csv.</p>'
        )
    else:
        lines.append("<p>Nothing was skipped and nothing removed.</p>")
    lines += table(["part", "photos", "persons", "groups", *classes], parts)
    return [
        *lines,
        (
            f'<p class="faint">Persons who share a picture are one group; each of the '
            f"{split['person_unknown']:,} photos that do not say who is on them is one, too.</p>"
        ),
    ]


def scores(evaluate: Metrics) -> list[str]:
    """Return the scores with intervals, in all and per class."""
    rows = [
        [
            named(name),
            beside(number(score["value"]), interval(score) or "too few groups"),
            number(score.get("majority")),
            beside(f"{score['gain']:+.3f}", gained(score)),
        ]
        for name, score in overall(evaluate).items()
    ]
    lines = [
        (
            "<p>Below each value its 95 % interval, by resampling whole groups (persons), as "
            "photos of one person are not independent. <em>Majority</em> always says the most "
            "frequent class of train, <em>gain</em> is the difference to it on the same photos; of "
            "log loss, Brier score and calibration error less is better. ROC AUC and average "
            "precision are of one class against the rest, the mean of all classes.</p>"
        ),
        *table(["score", "value", "majority", "gain"], rows),
    ]
    per_class = {k.removeprefix("class_"): v for k, v in evaluate.items() if k.startswith("class_")}
    names = [
        name
        for name, value in next(iter(per_class.values())).items()
        if isinstance(value, float) and "_ci_" not in name
    ]
    rows = [
        [label, found["support"]]
        + [beside(number(found[name]), interval(found, f"{name}_")) for name in names]
        for label, found in per_class.items()
    ]
    lines += table(["class", "photos", *map(named, names)], rows)
    worst = evaluate["worst"]
    told = [
        f"Worst {who}: {escape(worst[who])}, {score} {number(worst[f'{who}_{score}'])} on "
        f"{worst[f'{who}_photos']:,} photos."
        for who, score in (("class", "recall"), ("collector", "accuracy"))
        if who in worst
    ]
    return [*lines, f"<p>{' '.join(told)}</p>"]


def beside(value: str, sure: str) -> str:
    """Return a value over its interval, as one cell."""
    return f"{value}\n{sure}" if sure else value


def gained(score: Metrics) -> str:
    """Return the interval of the gain, or nothing where too few groups allow none."""
    if "gain_ci_low" not in score:
        return ""
    return f"{score['gain_ci_low']:+.3f} to {score['gain_ci_high']:+.3f}"


def percent(share: float) -> str:
    """Return a share in per cent."""
    return f"{share:.1%}"


def checks(evaluate: Metrics) -> dict[str, list[str]]:
    """Return the further blocks by title: what they say in words, then all figures, folded."""
    found = {}
    for name, words in WORDS.items():
        if name in evaluate:
            block = {k: v for k, v in evaluate[name].items() if k != "by_annotator"}
            rows = [
                (key, value if isinstance(value, str) else number(value))
                for key, value in flat(block)
            ]
            found[name.capitalize()] = [
                f"<p>{words(evaluate[name])}</p>",
                f"<details><summary>All {len(rows)} figures</summary>",
                *table(["figure", "value"], rows),
                "</details>",
            ]
    return found


def calibration(block: Metrics) -> str:
    """Return what temperature and prediction sets do."""
    before, sets = block["before_temperature"], block["coverage"]
    answered = block.get("accuracy_where_answered")
    right = f" and where it does not, it is right for {percent(answered)}" if answered else ""
    return (
        f"Prediction sets hold the truth for {percent(sets['value'])} of the test photos; "
        f"{percent(sets['promised'])} are promised, and chance of persons alone gives "
        f"{percent(sets['expected_low'])} to {percent(sets['expected_high'])}. A set has "
        f"{block['set_size']['value']:.2f} classes on average. The model abstains on "
        f"{percent(block['abstention']['value'])} of the photos{right}. Before its temperature "
        f"the log loss was {number(before['log_loss'])} and the calibration error "
        f"{number(before['calibration_error'])}."
    )


def people(block: Metrics) -> str:
    """Return how the model stands beside people."""
    if not block["votes"]:
        return (
            "No test photo has votes of several people. With split.test: consensus the photos that "
            "people voted on are the test part."
        )
    gain, own, model = block["model_gain"], block["accuracy"], block["model_accuracy"]
    sure = f" ({interval(gain)})" if interval(gain) else ""
    return (
        f"Each of {block['annotators']:,} people against the majority of the others, and the model "
        f"against the same on the same photos: people agree with it in {percent(own['value'])} of "
        f"{block['votes']:,} votes on {block['photos']:,} test photos, the model in "
        f"{percent(model['value'])}; difference {gain['value']:+.3f}{sure}."
    )


def robustness(block: Metrics) -> str:
    """Return which worse photos cost most."""
    worse = [
        (value, kind.replace("_", " "), level)
        for kind, levels in block.items()
        if isinstance(levels, Mapping)
        for level, value in levels.items()
    ]
    value, kind, level = min(worse)
    return (
        f"Balanced accuracy of {block['photos']:,} test photos is {number(block['unchanged'])} as "
        f"they are, and {number(value)} at the worst: {kind} {level}."
    )


def explanations(block: Metrics) -> str:
    """Return whether the heat maps beat chance."""
    areas = {
        name: (
            f"{number(block[name])}, in random order {number(block[f'{name}_random'])}; better "
            f"than random on {percent(block[f'{name}_better_share'])} of photos"
        )
        for name in ("deletion", "insertion")
    }
    return (
        f"Checked on {block['photos']:,} test photos, by the answer's mean probability on the way. "
        f"With the hottest places blurred away first: {areas['deletion']}. With them brought "
        f"back first: {areas['insertion']}. Rank correlation with the maps of the same network "
        f"untrained: {number(block['untrained_correlation'])}."
    )


# Blocks of the metrics to what they say.
WORDS = {
    "calibration": calibration,
    "people": people,
    "robustness": robustness,
    "explanations": explanations,
}


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


def pictures(plots: Path) -> dict[str, list[tuple[Path, str]]]:
    """Return each section's pictures below plots/, with captions; what is not there is left out."""

    def some(pattern: str, caption: str) -> list[tuple[Path, str]]:
        pages = sorted(plots.glob(pattern))
        more = f" (the first {PAGES} of {len(pages)} pages)" if len(pages) > PAGES else ""
        return [(path, caption + more) for path in pages[:PAGES]]

    return {
        "data": [
            *some("prepare/overview.png", "The photos as they came in: classes, sizes, shapes"),
            *some("prepare/collectors.png", "Photos of each collector"),
            *some("prepare/agreement.png", "How far those who voted agree, and what they chose"),
            *some("prepare/class_*.png", "Photos as they came in, evenly from all collectors"),
            *some("clean/scores.png", "Quality of the photos, with the thresholds of clean"),
            *some("clean/copies_*.png", "Removed copies, each beside what was kept, and why"),
            *some("clean/quality_*.png", "Photos removed as unusable, and why"),
            *some("split/classes.png", "Classes in the parts"),
            *some("split/nearest_*.png", "The most similar photos of different parts"),
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
            "evaluate/pictures/reliability*.png",
            "How often it is right at each probability, before and after the temperature",
        ),
        "people": some(
            "evaluate/pictures/people.png",
            "Each annotator and the model on the same test photos; in brackets the photos",
        ),
        "robustness": some(
            "evaluate/pictures/robustness*.png", "Scores on worse photos, by kind and degree"
        ),
        "explanations": [
            *some(
                "evaluate/explanations/maps_*.png",
                "Where the model looked: photos, and over them what speaks for the class it said",
            ),
            *some("evaluate/explanations/heads_*.png", "What the last layer's heads attend to"),
        ],
        "mistakes": some(
            "evaluate/pictures/mistakes_*.png", "The surest mistakes on the test photos"
        ),
    }
