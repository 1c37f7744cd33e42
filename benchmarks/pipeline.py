"""Measure what DVC costs and prints: no-op runs, returning to a trained model, rows of tables.

    python -m benchmarks.pipeline                     # 10 minutes on 2 cores
    python -m benchmarks.pipeline --model cnn_1m

Works in a temporary clone of the last commit, with this project's DVC cache, so its results must be
there (`dvc repro` or `dvc pull`). Times are of one run on one machine; compare them with each other
only.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from anklealign.config import paths

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5  # of the short commands, of which the median is printed


class Clone:
    """A clone of the project in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        """Clone the last commit and restore its results."""
        self.folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "PYTHONPATH": str(folder)}
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        cache = self.run("dvc", "cache", "dir", folder=ROOT)[0].strip()
        self.run("dvc", "config", "--local", "cache.dir", cache)
        self.run("dvc", "checkout", "--quiet", "dvc.yaml")

    def run(self, *command: str, folder: Path | None = None, **variables: str) -> tuple[str, float]:
        """Run a command; return what it prints and its wall time in seconds."""
        start = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=folder or self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
        return done.stdout, time.perf_counter() - start

    def median(self, *command: str) -> float:
        """Return the median wall time of a command in seconds."""
        return statistics.median(self.run(*command)[1] for _ in range(ROUNDS))


def changed_rows(clone: Clone) -> str:
    """Return how many rows of predictions.csv differ between one and two threads."""
    texts = []
    for threads in ("1", "2"):
        clone.run("python", "-m", "stages.evaluate", OMP_NUM_THREADS=threads)
        texts.append((clone.folder / paths.PREDICTIONS).read_text(encoding="utf-8").splitlines())
    changed = sum(one != two for one, two in zip(*texts, strict=True))
    return f"{changed} of {len(texts[0]) - 1}"


def columns(clone: Clone, *options: str) -> int:
    """Return the number of columns of `dvc exp show`."""
    table = clone.run("dvc", "exp", "show", "--csv", *options)[0]
    return len(next(csv.reader(table.splitlines())))


def main() -> None:
    """Print one line for each figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="tiny_cnn", help="variant to train")
    model = parser.parse_args().model
    with tempfile.TemporaryDirectory(prefix="pipeline-") as name:
        clone = Clone(Path(name, "clone"))
        output, _ = clone.run("dvc", "repro")
        if "Running stage" in output.replace("synthetic", ""):
            print("the committed results were not current; the stages ran again", flush=True)
        idle, start_up = clone.median("dvc", "repro"), clone.median("dvc", "root")
        print(
            f"no-op dvc repro: {idle:.1f} s; dvc root, its start-up: {start_up:.1f} s", flush=True
        )
        committed = json.loads(clone.run("dvc", "params", "show", "--json")[0])
        (first,) = {
            file["data"]["model"]
            for file in committed[""]["data"].values()
            if "model" in file["data"]
        }
        _, trained = clone.run("dvc", "exp", "run", "-S", f"model={model}")
        rows = clone.run("dvc", "metrics", "diff", "--md")[0].strip().splitlines()[2:]
        output, back = clone.run("dvc", "exp", "run", "-S", f"model={first}")
        cached = output.count("is cached - skipping run")
        print(f"training {model}: {trained:.0f} s")
        print(f"returning to {first}: {back:.0f} s, {cached} stages from the run cache")
        print(f"rows of dvc metrics diff: {len(rows)}")
        wide, narrow = columns(clone), columns(clone, "--drop", ".*[./]|synthetic")
        print(f'columns of dvc exp show: {wide}; with --drop ".*[./]|synthetic": {narrow}')
        print(f"rows of predictions.csv that differ with 2 threads: {changed_rows(clone)}")


if __name__ == "__main__":
    main()
