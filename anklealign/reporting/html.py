"""HTML that needs no network: a page with its style, tables and pictures inside."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

WIDEST = 1400  # pixels of an embedded picture
LARGE = 120_000  # bytes; larger pictures are photos rather than charts and become WebP
QUALITY = 80  # of WebP
LEAST = 0.55  # of a picture's size is shown at least: its letters are read, and a phone swipes it
LONG = 24  # letters of a cell from which on it is wrapped: a phone shows some forty in all

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
td.long { white-space: normal; min-width: 11rem; }
@media (max-width: 40rem) { td:first-child { white-space: normal; } }
td small { display: block; color: var(--faint); }
figure { margin: 1.2rem 0; }
/* On a phone a chart or sheet keeps a size at which its letters are read, and is swiped. */
img { max-width: 100%; height: auto; display: block; }
summary { cursor: pointer; color: var(--accent); margin: .6rem 0; }
figcaption { color: var(--faint); font-size: .92rem; margin-top: .3rem; }
"""


def document(title: str, body: Iterable[str]) -> str:
    """Return a whole page of parts that are HTML already; the title is plain text."""
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{escape(title)}</h1>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return an HTML table that scrolls by itself on a narrow screen; numbers to the right."""

    def cell(tag: str, value: object) -> str:
        text, _, small = (f"{value:,}" if isinstance(value, int) else str(value)).partition("\n")
        numeric = bool(text) and all(c in "0123456789.,+-% " for c in text)
        kind = ' class="n"' if numeric else ' class="long"' if len(text) > LONG else ""
        below = f"<small>{escape(small)}</small>" if small else ""
        return f"<{tag}{kind}>{escape(text)}{below}</{tag}>"

    lines = ['<div class="scroll"><table>']
    if any(head):
        lines.append("<tr>" + "".join(cell("th", name) for name in head) + "</tr>")
    lines += ["<tr>" + "".join(cell("td", value) for value in row) + "</tr>" for row in rows]
    return [*lines, "</table></div>"]


def figure(path: Path, caption: str) -> str:
    """Return a picture with its caption, its bytes inside."""
    kind, content, (width, height) = embedded(path)
    return (
        f'<figure><div class="scroll"><img src="data:image/{kind};base64,'
        f'{base64.b64encode(content).decode()}" width="{width}" height="{height}" '
        f'style="min-width: {round(width * LEAST)}px" loading="lazy" alt="{escape(caption)}"></div>'
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
