"""Format the config of a dataset as YAML and insert it into params.yaml.

Only lines are added; all existing lines and comments are unchanged.
"""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode

from anklealign.config.params import Dataset

# Strings that need no quotes in YAML.
PLAIN = re.compile(r"[^\W\d][\w./-]*(?: [\w./-]+)*|\d{1,3}-\d{1,3}")
MEANINGS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
COMMENTS = {
    "layout": "folders, file_names, label_studio or table",
    "classes": "class: other spellings",
    "class_roots": "folders that hold class folders: predefined split, or ''",
    "label_pattern": "regular expression, whose group label is the label",
    "csv": "below the dataset's folder; one table or a list",
    "encoding": "of the CSV",
    "path_column": "path of the photo, below the CSV's folder",
    "label_column": "label of the photo",
    "one_hot": "one column per class, which is 1 for its photos",
    "vote_columns": "label of the photo by each annotator",
    "annotator_column": "annotator of the row; a photo has several rows",
    "group_column": "group or subject of the photo",
    "label_level": "level of nested answers that is the label, 1 for the topmost",
    "split_column": "predefined split: train, val or test",
    "extra_csv": "tables of groups and splits: their column of paths",
    "split_lists": "lists of photos, named after the predefined split",
    "imagenet": "ImageNet classes of each class, for zero_shot and imagenet_head",
    "operating_point": "a class and its sensitivity, specificity or cost_ratio",
    "label_reliability": "published measure, value and source",
    "page": "text of the service's page, and its example photos",
    "subject_pattern": "regular expression, searched in the path",
    "ordered": "true if the classes lie on a scale, in this order",
    "mirror_safe": "false if a horizontal flip changes the label",
    "fit": "in the stored square: letterbox, crop or stretch",
}
WIDEST = 28  # characters before aligned comments
WIDTH = 80  # columns; longer lines have their comment above them
# After a comma that is outside quotes: an even number of them follows.
BETWEEN_ITEMS = re.compile(r"""(?<=, )(?=[^"]*(?:"[^"]*"[^"]*)*$)""")
ALWAYS = ("ordered", "mirror_safe", "fit")  # written even if they have the default value
# The task of the synthetic set: the sides of a photo differ in meaning, which the pooled features
# of pretrained networks do not show (docs/model-zoo.md).
LEFT_AND_RIGHT = ("synthetic", "ankle")
HUB_MODELS = ("dinov2_frozen", "dinov3_frozen", "siglip_frozen", "convnext_tiny")


def suited_model(like: str) -> str:
    """Return the model config to start with; `like` is a dataset with the same classes, or ''."""
    return "grid_pool_cnn" if like in LEFT_AND_RIGHT else "lite0_probe"


def model_advice(like: str, dataset: Dataset) -> list[str]:
    """Return sentences about the models to compare, the first of which is `suited_model`."""
    if suited_model(like) == "grid_pool_cnn":
        first = "grid_pool_cnn: from scratch, as for the synthetic set"
        others = "lite0 (pretrained, fine-tuned)"
    else:
        first = "lite0_probe: a linear head on pretrained features; takes seconds"
        zero_shot = ", lite0_zero_shot (no training)" if dataset.imagenet else ""
        others = f"auto (the best of several by cross-validation; slower){zero_shot}"
    return [
        f"{first}. Compare with {others}; all weights are installed",
        f"stronger, if the network reaches timm's hub: {', '.join(HUB_MODELS)}",
    ]


def text(
    name: str, dataset: Dataset, counts: Mapping[str, int], remarks: Sequence[str] = ()
) -> str:
    """Return the config of a dataset as YAML, indented for the `datasets:` section.

    Args:
        name: The dataset's name.
        dataset: The config. Keys with default values are omitted, except those in ALWAYS.
        counts: Number of photos of each class, written as a comment.
        remarks: Comments added after the classes.
    """
    lines: list[tuple[str, list[str], str]] = []  # key, value in pieces, comment
    for field in fields(Dataset):
        value = getattr(dataset, field.name)
        if field.name == "classes":
            lines.append(("    classes:", [], COMMENTS["classes"]))
            for label, aliases in value.items():
                key = f"      {scalar(label)}:"
                lines.append((key, _pieces(aliases), f"{counts[label]} photos"))
            lines += [("     ", [], remark) for remark in remarks]
        elif value != field.default or field.name in ALWAYS:
            lines.append((f"    {field.name}:", _pieces(value), COMMENTS[field.name]))
    # Align the comments of all lines shorter than WIDEST.
    whole = [" ".join([key, "".join(pieces)]).rstrip() for key, pieces, _ in lines]
    column = max(len(line) for line in whole if len(line) < WIDEST)
    commented = [f"  {name}:"]
    for line, (key, pieces, comment) in zip(whole, lines, strict=True):
        candidates = (f"{line:<{column if line else 5}} # {comment}", f"{line} # {comment}")
        fitting = [text for text in candidates if len(text) <= WIDTH]
        if fitting:
            commented.append(fitting[0])
            continue
        indent = " " * (len(key) - len(key.lstrip()) if line else 6)
        commented += textwrap.wrap(
            comment, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        commented += _broken(key, pieces, f"{indent}  ") if line else []
    return "\n".join(commented) + "\n"


def _pieces(value: object) -> list[str]:
    """Return a value as YAML in pieces between which a line may end."""
    items: list[list[str]]
    if isinstance(value, Mapping):
        items, start, end = [], "{", "}"
        for key, content in value.items():
            first, *rest = _pieces(content)
            items.append([f"{scalar(key)}: {first}", *rest])
    elif isinstance(value, list | tuple):
        items, start, end = [_pieces(item) for item in value], "[", "]"
    else:
        return [scalar(value)]
    for item in items[:-1]:
        item[-1] += ", "
    pieces = [piece for item in items for piece in item] or [""]
    pieces[0] = start + pieces[0]
    pieces[-1] += end
    return pieces


def _broken(key: str, pieces: Sequence[str], indent: str) -> list[str]:
    """Return a key and its value in lines of at most WIDTH where the pieces permit."""
    lines = [f"{key} "]
    for piece in pieces:
        if len(lines[-1]) + len(piece.rstrip()) > WIDTH and lines[-1].strip():
            lines.append(indent)
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def scalar(value: object) -> str:
    """Return a value as YAML in one line."""
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, Mapping | list | tuple):
        return "".join(_pieces(value))
    text = str(value)
    if PLAIN.fullmatch(text) and text.casefold() not in MEANINGS:
        return text
    if "\\" in text and text.isprintable():
        quoted = text.replace("'", "''")  # single quotes need no backslash escapes
        return f"'{quoted}'"
    return json.dumps(text, ensure_ascii=not text.isprintable())


def insert(params_text: str, config_text: str) -> str:
    """Return the text of params.yaml with a dataset config inserted after the last dataset.

    Raises:
        ValueError: `datasets` is missing or is not an indented block.
    """
    root = YAML(pure=True).compose(params_text)
    keys: list[Any] = root.value if isinstance(root, MappingNode) else []
    place = next((n for n, (key, _) in enumerate(keys) if key.value == "datasets"), None)
    if place is None:
        raise ValueError(
            "params.yaml: datasets is missing; add it as in `git show HEAD:params.yaml`"
        )
    blocks = keys[place][1]
    if not isinstance(blocks, MappingNode) or blocks.flow_style or not blocks.value:
        raise ValueError(
            "params.yaml: datasets is not an indented block; reformat it, or add these lines "
            f"manually:\n{config_text}"
        )
    lines = params_text.splitlines(keepends=True)
    end = keys[place + 1][0].start_mark.line if place + 1 < len(keys) else len(lines)
    # Empty lines and comments above the next key belong to it.
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    before = "".join(lines[:end])
    if not before.endswith("\n"):
        before += "\n"
    indent = blocks.value[0][0].start_mark.column
    moved = "".join(" " * indent + line[2:] for line in config_text.splitlines(keepends=True))
    return before + moved + "".join(lines[end:])
