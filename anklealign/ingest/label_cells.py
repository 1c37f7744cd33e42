"""The labels in a table's cell that holds a list or an object, as pandas, NumPy and JSON write it.

`['ant']`, `{"ant"}`, `("ant",)`, `["ant" "bee"]` (NumPy), `[]` and `{"class": "ant"}` (VGG Image
Annotator) are no class names. One label stands for itself, and several become `[ant, bee]`.
"""

import ast
import json
import re

from anklealign.config.class_names import EMPTY, fold

SEVERAL = re.compile(r"\[.+, .+\]", re.DOTALL)  # labels in one cell, as `plain_cell` writes them
QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
WRAPPED = re.compile(r"(?:array|set|frozenset)\((.*?)(?:, dtype=.*)?\)", re.DOTALL)
LONGEST = 2000  # characters; longer cells are texts


def plain_cell(cell: str) -> str:
    """Return the text of a cell: the label of a list of one, `[a, b]` of several, '' of none."""
    text = cell.strip()
    if not text.endswith(("]", "}", ")")) or len(text) > LONGEST:
        return cell
    if match := WRAPPED.fullmatch(text):
        text = match[1].strip()
    pair = text[:1] + text[-1:]
    if pair not in {"[]", "{}", "()", ""}:
        return cell
    inner = text[1:-1].strip()
    if pair == "{}" and ":" in inner:
        content = _object(text)
        return cell if content is None else _object_text(content, cell)
    items = _items(inner, pair)
    return cell if items is None else joined(items)


def joined(items: list[str]) -> str:
    """Return the labels of a list as one cell."""
    labels = list(dict.fromkeys(item.strip() for item in items if fold(item) not in EMPTY))
    return labels[0] if len(labels) == 1 else f"[{', '.join(labels)}]" if labels else ""


def parts(cell: str) -> list[str]:
    """Return the labels of a cell that `joined` returned for several."""
    return cell[1:-1].split(", ") if SEVERAL.fullmatch(cell) else [cell]


def _items(inner: str, pair: str) -> list[str] | None:
    """Return the items between brackets, or None if the brackets belong to a name."""
    quoted = [single or double for single, double in QUOTED.findall(inner)]
    rest = QUOTED.sub("", inner)
    if quoted and not rest.replace(",", "").replace("None", "").strip():
        return quoted
    if not inner:
        return []
    if quoted or pair != "[]":  # (left) is a name
        return None
    if re.fullmatch(r"[\d.\s-]+", inner):
        return inner.split()
    return inner.split(",")


def _object(text: str) -> dict[object, object] | None:
    try:
        content = json.loads(text)
    except ValueError:
        try:
            content = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return None
    return content if isinstance(content, dict) else None


def _object_text(content: dict[object, object], cell: str) -> str:
    """Return the label of an object with a single key; others stay as they are."""
    if len(content) != 1:
        return cell if content else ""
    (value,) = content.values()
    if isinstance(value, dict):  # a checkbox: {"ant": true, "bee": false}
        return joined([str(name) for name, marked in value.items() if marked])
    if isinstance(value, list):
        return joined([str(item) for item in value])
    return "" if value is None else str(value)
