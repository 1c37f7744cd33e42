"""Write the code dependencies of every DVC stage into dvc.yaml and data/dvc.yaml.

A stage depends on every project module that it imports, directly or through another module. Where
these are all modules of a package, the package's folder is listed instead of its files.

    anklealign sync-deps
"""

import ast
import re
import sys
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from ruamel.yaml import YAML

from anklealign.io.files import replacing

PACKAGES = ("anklealign", "stages", "service", "synthetic")
PIPELINES = ("dvc.yaml", "data/dvc.yaml")


def module_file(root: Path, name: str) -> Path | None:
    """Return the file of a dotted module name below root, or None if it is not the project's."""
    path = root / Path(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return file
    return None


def imports_of(root: Path, file: Path) -> set[Path]:
    """Return the project files that a file imports, anywhere in it, without __init__.py files.

    Those are empty, except for the top one, which only looks names up (tests/test_dvc.py).

    Raises:
        ValueError: The file has a relative import, which is not followed.
    """
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}:{node.lineno}: use an absolute import")
            names |= {node.module or ""}
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    files = {module_file(root, name) for name in names if name.split(".")[0] in PACKAGES}
    return {path for path in files if path is not None and path.name != "__init__.py"}


def closure(root: Path, file: Path) -> set[Path]:
    """Return a file and all project files that it imports, transitively."""
    seen: set[Path] = set()
    pending = [file]
    while pending:
        path = pending.pop()
        if path not in seen:
            seen.add(path)
            pending += imports_of(root, path)
    return seen


def modules_in(folder: Path) -> set[Path]:
    """Return the modules below a package's folder, without __init__.py files."""
    return {path for path in folder.rglob("*.py") if path.name != "__init__.py"}


def grouped(root: Path, files: Iterable[Path]) -> list[str]:
    """Return files as sorted dependency paths; a package needed in full is listed as a folder."""
    needed = set(files)
    paths = set()
    for file in needed:
        folder = file.parent
        package = folder.parent == root / "anklealign" or folder == root / "synthetic"
        complete = package and modules_in(folder) <= needed
        paths.add((folder if complete else file).relative_to(root).as_posix())
    return sorted(paths)


def code_dependencies(root: Path, command: str) -> list[str]:
    """Return the code that a stage's command, `python -m MODULE`, depends on.

    Raises:
        ValueError: The command runs no module of the project.
    """
    name = command.rsplit(" ", 1)[-1]
    file = module_file(root, name)
    if not command.startswith("python -m ") or file is None:
        raise ValueError(f"{command!r}: expected `python -m MODULE` with a module of this project")
    return grouped(root, closure(root, file))


def is_code(dependency: str) -> bool:
    """Return True for the path of a module or a package of the project."""
    return dependency.split("/", 1)[0] in PACKAGES


def synced(root: Path, pipeline: str) -> str:
    """Return the text of a dvc.yaml with the current code dependencies of each stage."""
    text = (root / pipeline).read_text(encoding="utf-8")
    stages = YAML(typ="safe", pure=True).load(text)["stages"]
    for name, stage in stages.items():
        other = [dep for dep in stage["deps"] if not is_code(dep)]
        pins = [dep for dep in other if dep == "requirements.txt"]
        data = [dep for dep in other if dep != "requirements.txt"]
        listed = pins + code_dependencies(root, stage["cmd"])
        start = re.search(rf"^  {name}:\n(?:    .*\n|\n)*?    deps:\n", text, re.MULTILINE)
        if start is None:
            raise ValueError(f"{pipeline}: {name}: expected a list `deps:` of one path a line")
        rest = text[start.end() :].splitlines(keepends=True)
        block = list(takewhile(lambda line: line.startswith(("      - ", "      #")), rest))
        kept = [line for line in block if line.lstrip()[0] == "#" or line.strip()[2:] in data]
        lines = [f"      - {dep}\n" for dep in listed] + kept + rest[len(block) :]
        text = text[: start.end()] + "".join(lines)
    return text


def stale(root: Path) -> list[str]:
    """Return the pipelines whose lists of code dependencies are not up to date."""
    return [
        pipeline
        for pipeline in PIPELINES
        if (root / pipeline).exists()
        and synced(root, pipeline) != (root / pipeline).read_text(encoding="utf-8")
    ]


def write_dependencies() -> int:
    """Write both pipelines where their lists are stale; return the exit status, 1 on an error."""
    try:
        pipelines = stale(Path())
        for pipeline in pipelines:
            text = synced(Path(), pipeline)
            with replacing(Path(pipeline)) as temporary:
                temporary.write_text(text, encoding="utf-8")
            print(f"{pipeline}: dependencies written")
    except (ValueError, OSError) as error:
        print(f"sync-deps: {error}", file=sys.stderr)
        return 1
    if not pipelines:
        print("sync-deps: all dependencies are up to date")
    return 0
