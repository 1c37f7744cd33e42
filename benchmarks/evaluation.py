"""Measure what evaluate costs against an earlier revision, on the same model and photos.

    python -m benchmarks.evaluation --against d3595e4                # the last run of this project
    python -m benchmarks.evaluation --against main --project ../my-clone

Runs evaluate of the revision and of the working tree on copies of the project's results, one after
the other, and prints the CPU seconds of each, their ratio, and the metrics that differ. Both have a
copy of the project's result cache, which train leaves. The number of photos that pass through a
network is exact on a busy machine, too.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anklealign.config import paths

ROOT = Path(__file__).resolve().parents[1]
INPUTS = ("data", "model", "params.yaml", "pins.yaml", "dvc.yaml", "requirements.txt")
COUNT = """
from anklealign.models import inputs
from anklealign.explainability import attribution
from stages import evaluate
counts = []
original = inputs.to_input
def to_input(pixels, *arguments):
    counts.append(len(pixels))  # in any thread
    return original(pixels, *arguments)
inputs.to_input = attribution.to_input = to_input
evaluate.main()
print("passes", sum(counts))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the cost of both revisions, and what differs in the metrics."""
    parser = argparse.ArgumentParser(description="What evaluate costs against another revision")
    parser.add_argument("--against", required=True, help="git revision")
    parser.add_argument("--project", type=Path, default=ROOT, help="project with a finished train")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="evaluation-") as folder:
        code = Path(folder) / "code"
        git("worktree", "add", "--detach", str(code), options.against)
        try:
            results = [
                measure(options.project.resolve(), Path(folder) / name, source)
                for name, source in (("old", code), ("new", ROOT))
            ]
        finally:
            git("worktree", "remove", "--force", str(code))
    (old, before), (new, after) = results
    for unit, a, b in zip(("CPU seconds", "photos through a network"), old, new, strict=True):
        print(f"{options.against}: {a:.0f} {unit}, working tree: {b:.0f}, ratio {b / a:.2f}")
    first, second = dict(flatten(before)), dict(flatten(after))
    changed = sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
    print(f"{len(changed)} of {len(second)} metrics differ")
    for key in changed:
        print(f"  {key}: {first.get(key)} -> {second.get(key)}")


def git(*arguments: str) -> None:
    """Run git in this repository."""
    subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True)


def measure(project: Path, work: Path, code: Path) -> tuple[tuple[float, float], Any]:
    """Run evaluate of `code` on the project's results; return CPU seconds, passes and metrics."""
    work.mkdir()
    for name in INPUTS:
        if (project / name).exists():
            (work / name).symlink_to(project / name)
    shutil.copytree(project / paths.METRICS, work / paths.METRICS)
    if (project / paths.CACHE).exists():
        shutil.copytree(project / paths.CACHE, work / paths.CACHE)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-c", COUNT],
        cwd=work, env=os.environ | {"PYTHONPATH": str(code)},
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    metrics = json.loads((work / paths.DETAILS / "evaluate.json").read_text(encoding="utf-8"))
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (seconds, float(run.stdout.rpartition("passes ")[2])), metrics


def flatten(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted key and the value of each leaf."""
    if isinstance(value, list):
        value = dict(enumerate(value)) if len(value) > 1 else value[0]
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


if __name__ == "__main__":
    main()
