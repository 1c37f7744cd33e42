"""The search finds all near-duplicates within its memory limit."""

import json
import subprocess
import sys

import pytest

from benchmarks import cleaning_search


@pytest.mark.parametrize("kind", ["near", "view"])
def test_every_near_duplicate_is_found(kind: str) -> None:
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


@pytest.mark.slow
@pytest.mark.skipif(not cleaning_search.REAL.is_dir(), reason="needs the ants and bees")
def test_the_stages_keep_all_but_a_few_of_pictures_that_are_all_different(capfd) -> None:
    cleaning_search.stages(90)
    output = capfd.readouterr().out
    rows = [line for line in output.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == ["| clean", "| split"]
    assert all(row.endswith("exit status 0") for row in rows)
    kept = int(output.split("clean: kept ")[1].split()[0])
    assert kept >= 85
    assert "duplicate" not in output
