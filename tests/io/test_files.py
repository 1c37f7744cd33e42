"""Files are replaced atomically."""

import csv
import os

import pandas as pd
import pytest

from anklealign.io import files


def test_a_failure_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "metrics.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_values_without_a_json_form_are_refused_before_the_file_is_replaced(tmp_path):
    path = tmp_path / "metrics.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    assert "1" in path.read_text()


def test_new_files_respect_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        files.write_text(tmp_path / "a.txt", "a")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_tables_end_lines_with_line_feeds_only(tmp_path):
    files.write_table(tmp_path / "t.csv", pd.DataFrame({"a": ["é", "b,c"], "b": [0.1, 2]}))
    assert (tmp_path / "t.csv").read_bytes() == 'a,b\né,0.1\n"b,c",2.0\n'.encode()


NASTY = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "'=x",
    "''-x",
    "'x",
    "=HYPERLINK(0)",
    "a=b",
    "",
    "é",
]


def test_no_cell_is_a_formula_and_tables_come_back_as_they_were(tmp_path):
    path = tmp_path / "table.csv"
    table = pd.DataFrame({"path": NASTY, "=cmd": NASTY, "number": range(-6, len(NASTY) - 6)})
    files.write_table(path, table)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    for row in rows:
        assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in row)
        assert not any(cell.startswith("-") for cell in row[:2])  # numbers stay numbers
    pd.testing.assert_frame_equal(
        files.read_table(path, ["path", "'=cmd"]), table, check_dtype=False
    )
