"""A stage's end: done is 0, a known error one helpful line and 1, a bug its traceback."""

import pytest

from anklealign import stage


def fail(error: Exception) -> None:
    raise error


def test_a_stage_that_ends_well_exits_0():
    with pytest.raises(SystemExit) as end:
        stage.run("split", lambda: None)
    assert end.value.code == 0


@pytest.mark.parametrize("error", [ValueError("no group"), FileNotFoundError(2, "gone", "a.csv")])
def test_a_known_error_is_one_line_with_the_way_back(capsys, error):
    with pytest.raises(SystemExit) as end:
        stage.run("split", lambda: fail(error))
    assert end.value.code == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"split: {error}"
    assert "git checkout metrics plots && dvc checkout" in said[1]


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        stage.run("split", lambda: fail(ZeroDivisionError()))


def test_an_interrupted_stage_never_ends_well():
    with pytest.raises(KeyboardInterrupt):
        stage.run("split", lambda: fail(KeyboardInterrupt()))
