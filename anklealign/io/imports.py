"""Which of the project's modules a file imports, directly and through other modules."""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGES = ("anklealign", "stages", "service", "synthetic")
ROOT = Path(__file__).resolve().parents[2]


def module_file(root: Path, name: str) -> Path | None:
    """Return the file of a dotted module name below root, or None if it is not the project's."""
    path = root / Path(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.exists():
            return file
    return None


def imported_names(file: Path) -> set[str]:
    """Return the dotted names that a file imports, anywhere in it.

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
    return names


def imports_of(root: Path, file: Path) -> set[Path]:
    """Return the project files that a file imports, without __init__.py files.

    Those are empty, except for the top one, which only looks names up (tests/test_dvc.py).
    """
    names = imported_names(file)
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


@cache
def code_sha256(modules: tuple[str, ...]) -> str:
    """Return the hex SHA-256 of modules by dotted name and of all project modules they import."""
    files = set[Path]()
    for name in modules:
        file = module_file(ROOT, name)
        if file is None:
            raise ValueError(f"{name!r} is no module of this project")
        files |= closure(ROOT, file)
    content = hashlib.sha256()
    for file in sorted(files):
        content.update(f"{file.relative_to(ROOT).as_posix()}\0".encode())
        content.update(hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()
