"""Names of classes, collectors and files in Markdown, where they must be text and nothing else."""

import re

# Characters with a meaning in GitHub's Markdown, with mentions (@), references (#), formulas ($)
# and addresses. An underscore inside a word has none (https://github.github.com/gfm/).
SPECIAL = re.compile(
    r"[\\`*\[\]<>|~&@#$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE
)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def escape(text: object) -> str:
    """Return a text for a paragraph or a cell of a table; special characters become entities."""
    line = CONTROL.sub(" ", str(text))
    return SPECIAL.sub(lambda match: f"&#{ord(match[0])};", line)


def code(text: object) -> str:
    """Return a text as a code span, or escaped if it has characters that a span cannot hold."""
    line = CONTROL.sub(" ", str(text))
    return escape(line) if not line.strip() or "`" in line or "|" in line else f"`{line}`"


def code_block(lines: list[str]) -> list[str]:
    """Return lines as a code block, whose fence is longer than any in them."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *lines, fence]
