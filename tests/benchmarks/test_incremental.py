"""The benchmark of new photos runs, and the cache changes no output."""

import re

import pytest

from benchmarks import incremental


@pytest.mark.slow
def test_new_photos_rewrite_few_shards(capsys):
    incremental.main(["--photos", "1200", "--stages", "prepare"])
    lines = capsys.readouterr().out.splitlines()
    rows = {name: re.findall(r"([\d.]+)%", line) for line in lines[2:]
            for name in incremental.RUNS if line.startswith(name)}  # fmt: skip
    assert float(rows["10 in one folder"][0]) < 40
    # What is not new is the same file, which DVC does not hash again.
    for name in incremental.RUNS[:3]:
        assert rows[name][0] == rows[name][1]
