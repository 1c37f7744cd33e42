"""The search finds what is planted, in the memory that it may take."""

import json
import subprocess
import sys

import pytest

from benchmarks import cleaning_search


@pytest.mark.parametrize("kind", ["near", "view"])
def test_every_planted_copy_is_found(kind: str) -> None:
    assert cleaning_search.measure(kind, 5_000)["missed"] == 0


@pytest.mark.slow
def test_a_million_hashes_are_searched_in_under_2_gib() -> None:
    command = [sys.executable, "-m", "benchmarks.cleaning_search", "near", "1000000"]
    done = subprocess.run(
        command, cwd=cleaning_search.ROOT, check=True, capture_output=True, text=True
    )
    row = json.loads(done.stdout)
    assert row["missed"] == 0
    assert row["gib"] < 2
