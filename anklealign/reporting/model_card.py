"""Model card of a trained bundle, with all numbers taken from the metrics files.

Follows the format of Hugging Face model cards, front matter first (Mitchell et al., Model Cards for
Model Reporting (2019)). A test compares every number with metrics/details/.
"""

import json
from collections.abc import Mapping

from anklealign.reporting import metric_tables
from anklealign.reporting.markdown import code, escape
from anklealign.reporting.metric_tables import Cell, Metrics, Table, overall_scores

# Score to its name on the Hugging Face Hub.
HUB_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "f1",
    "mcc": "matthews_correlation",
}


def card(metrics: Mapping[str, Metrics], run: Metrics) -> str:
    """Return the model card in Markdown.

    Args:
        metrics: Content of metrics/details/<stage>.json by stage.
        run: Content of metrics/details/train.json.
    """
    sections = [
        front_matter(metrics["evaluate"], run),
        *summary(metrics, run),
        *data(metrics, run),
        *scores(metrics["evaluate"]),
        *further_metrics(metrics["evaluate"]),
        *limits(metrics),
        *usage(),
    ]
    return "\n".join(sections) + "\n"


def front_matter(evaluate: Metrics, run: Metrics) -> str:
    """Return the YAML front matter. JSON strings are valid YAML for any name."""
    dataset, model = run["params"]["dataset_name"], run["params"]["model_name"]
    name = json.dumps(dataset)
    results = [
        f"          - type: {HUB_NAMES[key]}\n"
        f"            name: {key.replace('_', ' ')}\n"
        f"            value: {score['value']:.4f}"
        for key, score in overall_scores(evaluate).items()
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


def summary(metrics: Mapping[str, Metrics], run: Metrics) -> list[str]:
    """Return classes, architecture and training of the model."""
    dataset, model = run["params"]["dataset_name"], run["params"]["model_name"]
    config, chosen = run["params"]["model"], run["chosen"]
    names = list(run["train_class_counts"])
    more = len(names) - metric_tables.MAX_CLASSES
    classes = ", ".join(map(escape, names[: metric_tables.MAX_CLASSES]))
    if more > 0:
        classes += f" and {more:,} more, which config.json of the bundle lists"
    versions = ", ".join(f"{name} {run['versions'][name]}" for name in ("python", "torch", "timm"))
    return [
        f"# {escape(model)} on {escape(dataset)}",
        "",
        (
            f"Classes: {classes}. Architecture {code(config['architecture'])}, "
            f"{metrics['evaluate']['parameters']:,} parameters, input {config['image_size']} x "
            f"{config['image_size']} pixels."
        ),
        "",
        (
            f"Bundle `{metrics['evaluate']['bundle']}`. Trained for "
            f"{metrics['train']['epochs']} epochs; the weights are those of epoch "
            f"{chosen['epoch']}, which has the best validation "
            f"{chosen['monitor'].replace('_', ' ')}. Seed "
            f"{chosen.get('seed', run['params']['seed'])}; {versions}. The "
            "test split was not used for any choice."
        ),
        "",
    ]


def data(metrics: Mapping[str, Metrics], run: Metrics) -> list[str]:
    """Return the origin of the photos and the size of the splits."""
    prepare, clean, split = metrics["prepare"], metrics["clean"], metrics["split"]
    return [
        "## Data",
        "",
        (
            f"Dataset {code(run['params']['dataset_name'])}: {prepare['files_seen']} files and "
            f"{prepare['tasks_seen']} labeling tasks yielded {prepare['photos']} photos; "
            f"{clean['removed']} were removed as duplicates or as unusable, {split['excluded']} "
            f"are excluded from all splits. {metric_tables.split_origin(split)} No group and no "
            "picture spans two splits."
        ),
        "",
        *markdown(metric_tables.split_table(split, list(run["train_class_counts"]))),
        "",
    ]


def scores(evaluate: Metrics) -> list[str]:
    """Return the overall and per-class scores with CIs."""
    return [
        "## Scores",
        "",
        (
            f"Scores on {evaluate['photos']} test photos of {evaluate['groups']} groups, with 95% "
            "CIs over groups in parentheses. 'majority' is the baseline that always predicts the "
            "most frequent class of train, 'gain' the difference to it. ROC AUC and average "
            "precision are one-vs-rest scores, averaged over the classes."
        ),
        "",
        *markdown(metric_tables.overall_table(evaluate)),
        "",
        *markdown(metric_tables.class_table(evaluate)),
        "",
        *([note, ""] if (note := metric_tables.class_note(evaluate)) else []),
    ]


def further_metrics(evaluate: Metrics) -> list[str]:
    """Return one table per block of metrics, such as calibration and robustness."""
    lines = []
    for name, block in evaluate.items():
        if not isinstance(block, Mapping) or "value" in block or name.startswith("class_"):
            continue
        title = name.replace("_", " ").capitalize()
        lines += [f"## {title}", "", *markdown(metric_tables.value_table(block)), ""]
    return lines


def limits(metrics: Mapping[str, Metrics]) -> list[str]:
    """Return the limits of the scores and the intended use."""
    evaluate, split = metrics["evaluate"], metrics["split"]
    return [
        "## Limits and intended use",
        "",
        (
            f"- The scores are estimated on {evaluate['groups']} groups. Compare the confidence "
            "intervals, not only the values."
        ),
        (
            "- They apply to photos taken in the same way, of a similar population. Other cameras, "
            "views and subjects of other kinds are not covered."
        ),
        (
            f"- {split['subject_unknown']} photos are treated as groups of their own, because the "
            "dataset does not tell which of them belong together. If some do, for example by "
            "showing one subject, the confidence intervals are too narrow."
        ),
        (
            "- The model is intended for research, teaching and a first assessment that a person "
            "reviews. It is not a medical device and does not provide a diagnosis."
        ),
        abstention(evaluate),
        *unlike_photos(evaluate),
        "",
    ]


def abstention(evaluate: Metrics) -> str:
    """Return the sentence about prediction sets, by their measured coverage and accuracy."""
    block = evaluate["calibration"]
    coverage, abstained = (block[name]["value"] for name in ("coverage", "abstention"))
    text = (
        f"- The prediction sets contain the true class of {metric_tables.number(coverage)} of the "
        "test photos. The model abstains where a set has several classes: on "
        f"{metric_tables.number(abstained)} of the photos."
    )
    if "selective_accuracy" not in block or not abstained:
        return text
    selective, accuracy = block["selective_accuracy"], evaluate["accuracy"]["value"]
    text += (
        f" Its accuracy on the others is {metric_tables.number(selective)}, on all photos "
        f"{metric_tables.number(accuracy)}"
    )
    return f"{text}{'.' if selective > accuracy else ': abstaining does not help on this set.'}"


def unlike_photos(evaluate: Metrics) -> list[str]:
    """Return the sentence about photos that are unlike the training photos, if measured."""
    if "novelty" not in evaluate:
        return []
    block = evaluate["novelty"]
    refused = metric_tables.number(block["false_refusals"]["value"])
    return [
        (
            "- Photos unlike the training photos are marked. "
            f"{refused} of the test photos are marked by mistake. Of drawn images that are not "
            f"photos, {metric_tables.drawn_marked(block['detected'])} are marked."
        )
    ]


def usage() -> list[str]:
    """Return how to predict with the bundle and how to load it in timm."""
    return [
        "## Usage",
        "",
        "```console",
        "$ anklealign predict photo.jpg --out predictions.csv",
        "```",
        "",
        (
            "timm loads `config.json` and `model.safetensors` as a `local-dir:` model, without "
            "preprocessing, calibration and prediction sets. The first import registers the "
            "architectures of this project:"
        ),
        "",
        "```python",
        "import timm",
        "import anklealign.models.networks",
        "",
        'model = timm.create_model("local-dir:model", pretrained=True)',
        "```",
    ]


def markdown(table: Table) -> list[str]:
    """Return a Markdown table with CIs in parentheses."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    return ["| " + " | ".join(map(_cell, line)) + " |" for line in lines]


def _cell(value: str | int | Cell) -> str:
    if isinstance(value, Cell):
        return f"{value.text} ({value.ci})" if value.ci else value.text
    return escape(value)
