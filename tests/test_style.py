"""The code base keeps to the terms of the field and to short functions."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(
    path
    for folder in ("anklealign", "stages", "service", "synthetic")
    for path in (ROOT / folder).rglob("*.py")
)
# Terms that CONTRIBUTING.md replaces, and phrases of translated English, in texts that users see.
BANNED = re.compile(
    r"""\b(
        phantom | gap_cnn | planted | suspects? | verdicts? | write\ a\ block
      | mend(?:s|ed|ing)? | takes?\ it\ up\ again | suspicious\ label
      | by\ chance\ of\ persons | on\ two\ sides | stands?\ twice | is\ none\ that | give\ leave
      | had\ better\ not | ashamed | in\ the\ house | is\ looked\ at\ and\ forgotten
      | colours? | normalis\w+ | optimis(?:e\w*|ing) | labell(?:ed|ing) | grey
      | neighbours? | serialis\w+ | recognis\w+ | licence | behaviour | centre
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
# What people see beside code: pages, parameters, pipelines and the web page.
TEXTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "params.yaml", "dvc.yaml", "data/dvc.yaml",
         "service/page/*.html", "service/*/*.js", "anklealign/**/*.j2", "Makefile")  # fmt: skip


def literals(path: Path) -> list[tuple[int, str]]:
    """Line and text of each string of words in a module: messages, help, titles and docstrings.

    Single words are left out: they are keys, such as the old ones that params.py refuses, or names
    of random streams.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
    ]


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_strings_in_code_use_the_terms_of_the_field(path):
    hits = [(line, m[0]) for line, text in literals(path) for m in BANNED.finditer(text)]
    assert hits == []


def test_pages_and_parameters_use_the_terms_of_the_field():
    pages = [path for pattern in TEXTS for path in sorted(ROOT.glob(pattern))]
    assert len(pages) > 8
    hits = [
        (path.name, number, m[0])
        for path in pages
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for m in BANNED.finditer(line)
    ]
    assert hits == []


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_function_has_over_60_lines(path):
    """Counted without the docstring, which may be long."""
    long = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            docstring = first.end_lineno - first.lineno + 1 if documented else 0
            if node.end_lineno - node.lineno + 1 - docstring > 60:
                long.append(node.name)
    # The training loop is one function on purpose: it is read from top to bottom.
    assert set(long) <= ({"fit"} if path.name == "loop.py" else set())


def test_no_two_classes_of_the_library_have_the_same_name():
    names = {}
    for path in CODE:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                names.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in names.items() if len(paths) > 1} == {}


def test_texts_name_no_old_module_path():
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
    old = re.compile(r"anklealign[./](sources|phantom|fitting|photos|figures|verdicts)\b")
    hits = [
        name
        for name in listed
        if name.endswith((".py", ".md", ".yaml", ".toml", "Makefile")) and name != "CHANGELOG.md"
        if name != "tests/test_style.py" and (ROOT / name).exists()
        if old.search((ROOT / name).read_text(encoding="utf-8"))
    ]
    assert hits == []
