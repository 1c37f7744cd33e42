"""A dataset's block in params.yaml: written with its comments, put behind the other blocks.

Only lines are added, so every comment and every line of the file stays as it is.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode

from anklealign.config.params import Dataset

# What YAML may write without quotes: no number, no word with a meaning, nothing that begins a list.
PLAIN = re.compile(r"[^\W\d][\w./-]*(?: [\w./-]+)*")
MEANINGS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
COMMENTS = {
    "layout": "folders, label_studio or table",
    "classes": "class: other ways in which it is written",
    "csv": "below the dataset's folder",
    "encoding": "of the CSV",
    "path_column": "path of the photo, below the CSV's folder",
    "label_column": "what is on it",
    "group_column": "who is on it",
    "person": "searched in the path; who is on the photo",
    "ordered": "true where the classes lie on a scale; then put them in its order",
    "mirror_safe": "false where a mirrored photo has another label",
    "fit": "into the stored square: letterbox, crop or stretch",
}
WIDEST = 40  # letters before a comment
ALWAYS = ("ordered", "mirror_safe", "fit")  # written even where they are the default


def text(
    name: str, dataset: Dataset, counts: Mapping[str, int], remarks: Sequence[str] = ()
) -> str:
    """Return a dataset's block as lines of YAML, indented to stand below `datasets:`.

    Args:
        name: The dataset's name.
        dataset: What is written; keys that have their default's value are left out.
        counts: Photos of each class, written behind it.
        remarks: Comments behind the classes.
    """
    lines: list[tuple[str, str]] = []
    for field in fields(Dataset):
        value = getattr(dataset, field.name)
        if field.name == "classes":
            lines.append(("    classes:", COMMENTS["classes"]))
            for label, aliases in value.items():
                listed = ", ".join(map(scalar, aliases))
                lines.append((f"      {scalar(label)}: [{listed}]", f"{counts[label]} photos"))
            lines += [("     ", remark) for remark in remarks]
        elif value != field.default or field.name in ALWAYS:
            lines.append((f"    {field.name}: {scalar(value)}", COMMENTS[field.name]))
    # The comments of all lines but the longest begin in one column.
    column = max(len(line) for line, _ in lines if len(line) < WIDEST)
    commented = [f"{line:<{column if line.strip() else 0}} # {said}" for line, said in lines]
    return "\n".join([f"  {name}:", *commented]) + "\n"


def scalar(value: str | bool) -> str:
    """Return a string or a truth value as YAML reads it back."""
    if isinstance(value, bool):
        return str(value).lower()
    if PLAIN.fullmatch(value) and value.casefold() not in MEANINGS:
        return value
    if "\\" in value and value.isprintable():
        quoted = value.replace("'", "''")  # no escapes within, so that a pattern stays readable
        return f"'{quoted}'"
    return json.dumps(value, ensure_ascii=not value.isprintable())


def insert(whole: str, block: str) -> str:
    """Return the text of params.yaml with a block behind the last one of `datasets`.

    Raises:
        ValueError: `datasets` is missing, or is not written as an indented block.
    """
    root = YAML(pure=True).compose(whole)
    keys: list[Any] = root.value if isinstance(root, MappingNode) else []
    place = next((n for n, (key, _) in enumerate(keys) if key.value == "datasets"), None)
    if place is None:
        raise ValueError("params.yaml: datasets is missing; add it as README.md describes")
    blocks = keys[place][1]
    if not isinstance(blocks, MappingNode) or blocks.flow_style or not blocks.value:
        raise ValueError(
            "params.yaml: datasets is no indented block; write it as one, or add these lines by "
            f"hand:\n{block}"
        )
    lines = whole.splitlines(keepends=True)
    end = keys[place + 1][0].start_mark.line if place + 1 < len(keys) else len(lines)
    # Empty lines and comments above the next key belong to it.
    while end and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    before = "".join(lines[:end])
    if not before.endswith("\n"):
        before += "\n"
    indent = blocks.value[0][0].start_mark.column
    moved = "".join(" " * indent + line[2:] for line in block.splitlines(keepends=True))
    return before + moved + "".join(lines[end:])
