"""Checklist for a study of the model: the items of CLAIM and TRIPOD+AI, filled from the metrics.

Items that the pipeline knows are filled in; items that only the authors know are named blanks. Item
numbers are those of Tejani et al., Checklist for Artificial Intelligence in Medical Imaging
(CLAIM): 2024 Update (2024), doi:10.1148/ryai.240300, and of Collins et al., TRIPOD+AI statement
(2024), doi:10.1136/bmj-2023-078378.
"""

from collections.abc import Mapping
from typing import NamedTuple

from anklealign.reporting import metric_tables
from anklealign.reporting.markdown import code, escape
from anklealign.reporting.metric_tables import Metrics, ci, number, percent

BLANK = "**TO FILL IN**"


class Item(NamedTuple):
    """An item of the checklists.

    Attributes:
        topic: What is to be reported.
        claim: Item numbers of CLAIM 2024, or a dash.
        tripod: Item numbers of TRIPOD+AI, or a dash.
        entry: What the pipeline knows; empty if it knows nothing.
        blank: What the authors have to add; empty if nothing is missing.
    """

    topic: str
    claim: str
    tripod: str
    entry: str
    blank: str = ""


def checklist(metrics: Mapping[str, Metrics], run: Metrics) -> str:
    """Return the checklist in Markdown.

    Args:
        metrics: Content of metrics/details/<stage>.json by stage.
        run: Content of metrics/details/train.json.
    """
    sections = {
        "Study": study(run),
        "Data": data(metrics, run),
        "Reference standard": reference_standard(metrics, run),
        "Model and training": model(metrics, run),
        "Evaluation": evaluation(metrics["evaluate"]),
        "Other information": other(run),
    }
    blanks = sum(item.blank != "" for items in sections.values() for item in items)
    lines = [
        (
            f"# Reporting checklist: {escape(run['params']['model_name'])} on "
            f"{escape(run['params']['dataset_name'])}"
        ),
        "",
        (
            f"Bundle `{metrics['evaluate']['bundle']}`. The items of CLAIM (2024 update, "
            "doi:10.1148/ryai.240300) and TRIPOD+AI (doi:10.1136/bmj-2023-078378) for a study of "
            "this model. Every run writes this file again: fill in a copy of it."
        ),
        "",
        (
            f"{blanks} of {sum(map(len, sections.values()))} items have a blank, marked {BLANK}, "
            "that only the authors of the study can fill in."
        ),
    ]
    for title, items in sections.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| item | CLAIM | TRIPOD+AI | entry |",
            "|---|---|---|---|",
        ]
        lines += [_row(item) for item in items]
    return "\n".join(lines) + "\n"


def _row(item: Item) -> str:
    blank = f"{BLANK}: {item.blank}" if item.blank else ""
    entry = " ".join(filter(None, [item.entry, blank])).replace("|", "\\|")
    return f"| {item.topic} | {item.claim} | {item.tripod} | {entry} |"


def study(run: Metrics) -> list[Item]:
    """Return the items on the study as a whole."""
    config = run["params"]["model"]
    return [
        Item(
            "Title and abstract", "1, 2", "1, 2",
            f"Deep learning classifier of photos ({code(config['architecture'])}), "
            f"{len(run['train_class_counts'])} classes.",
            "title, structured summary, target population",
        ),
        Item("Background and intended use", "3", "3a-3c", "",
             "clinical background, intended users and role, known inequalities between groups"),
        Item("Objectives", "4, 6", "4", "Development with an internal test split.", "hypotheses"),
        Item("Study design", "5", "5a", "", "prospective or retrospective collection"),
        Item("Protocol and registration", "34, 42", "18c, 18d", "", "protocol, registration"),
        Item("Ethics", "-", "17", "", "approval or waiver, consent to use the photos"),
    ]  # fmt: skip


def data(metrics: Mapping[str, Metrics], run: Metrics) -> list[Item]:
    """Return the items on photos and subjects."""
    prepare, clean, split = metrics["prepare"], metrics["clean"], metrics["split"]
    config = run["params"]["prepare"]
    return [
        Item(
            "Data sources", "7", "5a, 5b, 6a",
            f"Dataset {code(run['params']['dataset_name'])}: {prepare['files_seen']} files"
            f"{_collectors(prepare)}.",
            "sources, centers, first and last date of collection",
        ),
        Item("Eligibility and recruitment", "8", "6b, 6c", "",
             "inclusion and exclusion criteria, how subjects were recruited, treatments"),
        Item(
            "Photos included and excluded", "8, 10, 35", "20a",
            f"{prepare['photos']} photos with a label were read; skipped files: "
            f"{_counts(prepare['skipped'])}. Removed before the split: {clean['removed']} "
            f"({_counts(clean['reasons'])}). Excluded from all splits: {split['excluded']}.",
        ),
        Item("Photo acquisition", "13", "9a-9c", "",
             "cameras, distance, posture, light, who took the photos"),
        Item(
            "Preprocessing", "9", "7",
            f"EXIF orientation applied, colors converted to sRGB, fitted into {config['size']} px "
            f"squares ({run['params']['dataset']['fit']}); network input "
            f"{run['params']['model']['image_size']} px.",
        ),
        Item("De-identification", "11", "-", "",
             "how faces, names and metadata were removed from photos and file names"),
        Item(
            "Missing data", "12", "11",
            f"Photos without a usable label or that cannot be read are left out and counted "
            f"({prepare['skipped']['total']} files). Nothing is imputed.",
        ),
        Item("Sample size", "21", "10",
             f"{split['train']['photos']} training, {split['val']['photos']} validation and "
             f"{split['test']['photos']} test photos were available.",
             "how the number of photos and subjects was chosen"),
        Item(
            "Partitions", "19, 20", "12a, 16",
            f"Removed photos are in no split. {metric_tables.split_origin(split)} No "
            f"{split['grouped_by']} and no picture is in two splits "
            f"({split['leaking_pairs']} pairs found by the audit). Groups: "
            + ", ".join(f"{name} {split[name]['groups']}" for name in metric_tables.SPLITS) + ".",
        ),
        Item("Subjects", "36", "20b, 20c", _subjects(split),
             "age, sex and clinical characteristics of the subjects in each split"),
    ]  # fmt: skip


def reference_standard(metrics: Mapping[str, Metrics], run: Metrics) -> list[Item]:
    """Return the items on labels and annotators."""
    agreement = metrics["prepare"]["agreement"]
    votes = "No photo has several votes."
    if agreement["votes"]:
        values = [
            f"{name} {number(agreement[key])}"
            for key, name in (
                ("alpha_nominal", "Krippendorff's alpha"),
                ("alpha_ordinal", "ordinal alpha"),
                ("pairwise", "pairwise agreement"),
            )
            if agreement.get(key) is not None
        ]
        votes = (
            f"{agreement['votes']} votes of {agreement['annotators']} annotators on "
            f"{agreement['photos']} photos: {', '.join(values)}."
        )
    return [
        Item("Definition and rationale", "14, 15", "8a",
             f"Classes: {_listed([escape(name) for name in run['train_class_counts']])}.",
             "definition of each class, reference standard and why it was chosen"),
        Item("Annotators", "16, 17", "8b, 8c",
             f"{agreement['annotators']} annotators voted on photos with several labels."
             if agreement["annotators"] else "",
             "number, qualification and training of the annotators, instructions, blinding"),
        Item("Agreement of annotators", "18", "-", votes, "intra-annotator variability"),
        Item("Aggregation of votes", "14", "8a",
             f"`{run['params']['prepare']['consensus']}`." if agreement["votes"] else
             "Not applicable: no photo has several votes."),
    ]  # fmt: skip


def model(metrics: Mapping[str, Metrics], run: Metrics) -> list[Item]:
    """Return the items on the network and its training."""
    config, settings = run["params"]["model"], run["params"]["train"]
    start = "pretrained weights" if config["pretrained"] else "random weights"
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    used = [name for name, value in settings["augmentation"].items() if value]
    return [
        Item("Architecture and output", "22", "12c, 15, 22",
             f"{code(config['architecture'])}, {metrics['evaluate']['parameters']:,} parameters; "
             "output: a probability of each class and a prediction set."),
        Item("Software", "23", "-", f"{versions}."),
        Item("Initialization", "24", "12c", f"{start}, seed {run['params']['seed']}."),
        Item("Training", "25", "12c, 21",
             f"{settings['optimizer']}, peak learning rate {config['learning_rate']:g}, batch size "
             f"{settings['batch_size']}, {settings['loss']}, {run['epochs']} epochs; augmentation: "
             f"{', '.join(used).replace('_', ' ') or 'none'}."),
        Item("Class imbalance", "25", "13",
             f"`{settings['class_balancing']}`; training photos: "
             f"{_counts(run['train_class_counts'])}."),
        Item("Model selection", "26", "12c",
             f"Epoch {run['chosen']['epoch']}, by validation "
             f"{run['chosen']['monitor'].replace('_', ' ')}. The test split was not used.",
             "how many other models were compared, and on which photos"),
        Item("Ensembles", "27", "-", "None."),
        Item("Calibration", "-", "12e, 23a",
             f"Temperature {run['temperature']:.3f}, fitted on validation; test calibration error "
             f"{number(metrics['evaluate']['calibration_error']['value'])}."),
    ]  # fmt: skip


def evaluation(evaluate: Metrics) -> list[Item]:
    """Return the items on scores, robustness and failures."""
    scores = "; ".join(
        f"{metric_tables.display_name(key)} {number(score['value'])}"
        + (f" ({ci(score)})" if ci(score) else "")
        for key, score in metric_tables.overall_scores(evaluate).items()
    )
    confidence = "95% CIs by bootstrap over groups"
    if not ci(evaluate["accuracy"]):
        confidence = "no CIs, because the test split has fewer than 10 groups"
    worst = evaluate["worst"]
    return [
        Item("Metrics and uncertainty", "28, 29", "12e",
             f"Scores of all photos and per class, compared with the majority baseline; "
             f"{confidence}."),
        Item("Performance, internal", "32, 37, 38", "23a",
             f"{evaluate['photos']} test photos of {evaluate['groups']} groups: {scores}."),
        Item("Performance, external", "33", "23a", "",
             "test on photos of another source, collected independently"),
        Item("Subgroups and fairness", "38", "14, 23b",
             _worst(worst),
             "scores by age, sex and other groups that matter"),
        Item("Robustness", "30", "12e",
             "Balanced accuracy under " + _listed(
                 [name.replace("_", " ") for name, levels in evaluate.get("robustness", {}).items()
                  if isinstance(levels, Mapping)]) + "; see MODEL_CARD.md."
             if "robustness" in evaluate else "Not measured (`evaluate.robustness: 0`)."),
        Item("Explanations", "31", "-",
             "Heat maps of the predicted class; deletion better than random orders on "
             f"{percent(evaluate['explanations']['deletion_better_share'])} of the photos."),
        Item("Comparison with annotators", "37", "-", _human(evaluate)),
        Item("Failure analysis", "39", "-",
             f"Lowest recall: {escape(worst['class'])}. Highest-confidence errors: "
             "plots/report.html.",
             "review of the errors by an expert"),
        Item("Limitations and use", "40, 41", "25, 26, 27a-27c",
             "See MODEL_CARD.md.", "interpretation, role in practice, required expertise"),
    ]  # fmt: skip


def other(run: Metrics) -> list[Item]:
    """Return the items on availability and funding."""
    return [
        Item("Availability", "43", "18e, 18f",
             f"The photos, labels and splits are fixed by the hashes {run['pixels_sha256'][:12]} "
             f"and {run['split_sha256'][:12]}; the commit of the run has code and parameters.",
             "where data, code and model can be obtained, and the license"),
        Item("Funding and interests", "44", "18a, 18b", "",
             "funding, role of the funders, conflicts of interest"),
        Item("Patient and public involvement", "-", "19", "",
             "involvement in design, conduct and reporting, or none"),
        Item("Model updating", "-", "24", "Not applicable: a new model."),
    ]  # fmt: skip


def _collectors(prepare: Metrics) -> str:
    return f" of {prepare['collectors']} collectors" if prepare["collectors"] else ""


def _subjects(split: Metrics) -> str:
    if not metric_tables.has_subjects(split):
        return "The dataset does not identify subjects."
    counts = ", ".join(f"{name} {split[name]['subjects']}" for name in metric_tables.SPLITS)
    return f"Subjects: {counts}; {split['subject_unknown']} photos without a known subject."


def _worst(worst: Metrics) -> str:
    entry = f"Worst class: {escape(worst['class'])}, recall {number(worst['class_recall'])}."
    if "collector" in worst:
        entry += (
            f" Worst collector: {escape(worst['collector'])}, accuracy "
            f"{number(worst['collector_accuracy'])} on {worst['collector_photos']} photos."
        )
    return entry


def _human(evaluate: Metrics) -> str:
    human = evaluate.get("human_baseline", {})
    if not human.get("votes"):
        return "Not applicable: no test photo has several votes."
    return (
        f"Annotators match the majority of the others on {percent(human['accuracy']['value'])} of "
        f"{human['votes']} votes, the model on {percent(human['model_accuracy']['value'])}."
    )


def _counts(counts: Metrics) -> str:
    """Return the counts above 0 as 'name n'; of many, the largest."""
    above = [(key, n) for key, n in counts.items() if n and key != "total"]
    above.sort(key=lambda pair: (-pair[1], pair[0]))
    return _listed([f"{escape(name)} {n}" for name, n in above]) or "none"


def _listed(names: list[str]) -> str:
    more = len(names) - metric_tables.MAX_CLASSES
    listed = ", ".join(names[: metric_tables.MAX_CLASSES])
    return f"{listed} and {more:,} more" if more > 0 else listed
