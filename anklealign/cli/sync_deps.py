"""Write the dependencies of every DVC stage on code and libraries into dvc.yaml and data/dvc.yaml.

A stage depends on every project module that it imports, directly or through another module. Where
these are all modules of a package, the package's folder is listed instead of its files. A stage
also depends on the pinned version of every library that these modules import. DVC compares files
as a whole, so the pins of requirements.txt are copied to pins.yaml, whose keys DVC compares one by
one.

    anklealign sync-deps
"""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from itertools import takewhile
from pathlib import Path

from anklealign.config import params
from anklealign.io.files import write_text
from anklealign.io.imports import PACKAGES, closure, imported_names, module_file

PIPELINES = ("dvc.yaml", "data/dvc.yaml")
REQUIREMENTS = "requirements.txt"
PINS = "pins.yaml"
HEADER = "# Versions in requirements.txt. Do not edit: `anklealign sync-deps` writes this file.\n"
# They change no result: progress bars, and the reader of params.yaml, whose values DVC compares.
WITHOUT_EFFECT = {"tqdm", "ruamel-yaml", "joblib"}


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


def stage_file(root: Path, command: str) -> Path:
    """Return the module that a stage's command, `python -m MODULE`, runs.

    Raises:
        ValueError: The command runs no module of the project.
    """
    file = module_file(root, command.rsplit(" ", 1)[-1])
    if not command.startswith("python -m ") or file is None:
        raise ValueError(f"{command!r}: expected `python -m MODULE` with a module of this project")
    return file


def code_dependencies(root: Path, command: str) -> list[str]:
    """Return the code that a stage's command depends on."""
    return grouped(root, closure(root, stage_file(root, command)))


def libraries(root: Path, command: str) -> list[str]:
    """Return the pinned libraries that a stage's command imports, sorted.

    Raises:
        ValueError: A library is not installed, so the name of its distribution is unknown.
    """
    modules = {
        name.split(".")[0]
        for file in closure(root, stage_file(root, command))
        for name in imported_names(file)
    }
    external = modules - set(sys.stdlib_module_names) - {*PACKAGES, ""}
    distributions = packages_distributions()
    if unknown := sorted(external - distributions.keys()):
        raise ValueError(f"{', '.join(unknown)} not installed; run `make .venv/dev`")
    names = {name for module in external for name in distributions[module]}
    return sorted(set(map(_normalized, names)) & read_pins(root).keys())


def read_pins(root: Path) -> dict[str, str]:
    """Return the pinned version of each library in requirements.txt that affects results."""
    lines = (root / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    matches = (re.match(r"([A-Za-z0-9._-]+)==([^\s;#]+)", line) for line in lines)
    pins = {_normalized(match[1]): match[2] for match in matches if match}
    return {name: pin for name, pin in pins.items() if name not in WITHOUT_EFFECT}


def _normalized(distribution: str) -> str:
    """Return the normalized name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def pins_text(root: Path) -> str:
    """Return the content of pins.yaml. The quotes keep 1.10 from being read as a number."""
    return (
        HEADER
        + "pins:\n"
        + "".join(f'  {name}: "{pin}"\n' for name, pin in read_pins(root).items())
    )


def is_code(dependency: str) -> bool:
    """Return True for the path of a module or a package of the project."""
    return dependency.split("/", 1)[0] in PACKAGES


def synced(root: Path, pipeline: str) -> str:
    """Return the text of a dvc.yaml with the current dependencies of each stage.

    Raises:
        ValueError: It is not valid YAML, or a stage has no single command or a list on one line.
    """
    text = (root / pipeline).read_text(encoding="utf-8")
    stages = params.read(root / pipeline).get("stages") or {}
    for name, stage in stages.items():
        if not isinstance(stage.get("cmd"), str):
            raise ValueError(f"{pipeline}: {name}: expected `cmd: python -m MODULE`")
        code = code_dependencies(root, stage["cmd"])
        data = [dep for dep in stage.get("deps") or [] if not is_code(dep)]
        before, block, after = _list_of(text, pipeline, name, "deps")
        kept = [line for line in block if line.lstrip()[0] == "#" or line.strip()[2:] in data]
        text = "".join([before, *(f"      - {dep}\n" for dep in code), *kept, after])
        pins = [f"          - pins.{library}\n" for library in libraries(root, stage["cmd"])]
        if pins:
            pins.insert(0, f"      - {PINS}:\n")
        elif not stage.get("params"):
            continue
        before, block, after = _list_of(text, pipeline, name, "params")
        kept = [line for line in block if not line.startswith((" " * 10, f"      - {PINS}:"))]
        text = "".join([before, *kept, *pins, after])
    return text


def _list_of(text: str, pipeline: str, stage: str, key: str) -> tuple[str, list[str], str]:
    """Return the text before a stage's list, the lines of the list, and the text after it.

    Of a stage without the list, return an empty one at the stage's end.

    Raises:
        ValueError: The list does not have one entry a line.
    """
    start = re.search(rf"^  {stage}:\n(?:    .*\n|\n)*?    {key}:\n", text, re.MULTILINE)
    if start is None:
        body = re.search(rf"^  {stage}:\n(?:\n*    .*\n)*", text, re.MULTILINE)
        if body is None or f"\n    {key}:" in body[0]:
            raise ValueError(f"{pipeline}: {stage}: expected a list `{key}:` with one entry a line")
        return f"{text[: body.end()]}    {key}:\n", [], text[body.end() :]
    rest = text[start.end() :].splitlines(keepends=True)
    block = list(takewhile(lambda line: line.startswith(("      - ", "      #", " " * 10)), rest))
    return text[: start.end()], block, "".join(rest[len(block) :])


def current_files(root: Path) -> dict[str, str]:
    """Return the current text of pins.yaml and of each pipeline, by path."""
    pipelines = [pipeline for pipeline in PIPELINES if (root / pipeline).exists()]
    return {PINS: pins_text(root), **{pipeline: synced(root, pipeline) for pipeline in pipelines}}


def stale(root: Path) -> list[str]:
    """Return the files whose dependencies are not up to date."""
    return [
        file
        for file, text in current_files(root).items()
        if not (root / file).exists() or text != (root / file).read_text(encoding="utf-8")
    ]


def write_dependencies() -> int:
    """Write the files that are stale; return the exit status, 1 on an error."""
    try:
        files = stale(Path())
        for file in files:
            write_text(Path(file), current_files(Path())[file])
            print(f"{file}: dependencies written")
    except (ValueError, OSError) as error:
        print(f"sync-deps: {error}", file=sys.stderr)
        return 1
    if not files:
        print("sync-deps: all dependencies are up to date")
    return 0
