"""anklealign report: the page of the last run, alone or beside another run."""

import pandas as pd
import pytest

from anklealign.cli import report
from anklealign.cli.main import main
from anklealign.config import paths
from anklealign.experiments.revisions import Revision
from anklealign.reporting import run_files
from tests.reporting.run_fixture import new_run


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Change to an empty folder, with a finished run and a revision 'main' of other predictions."""
    monkeypatch.chdir(tmp_path)
    run = new_run()
    monkeypatch.setattr(run_files, "read", lambda: run)
    return run


class Other:
    """A revision with a table of predictions."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table

    def table(self, path: str) -> pd.DataFrame:
        assert path == "plots/evaluate/predictions.csv"
        return self._table


@pytest.mark.usefixtures("run")
def test_the_page_is_written_to_plots(capsys):
    assert main(["report"]) == 0
    assert capsys.readouterr().out == "report: plots/report.html\n"
    assert "<!doctype html>" in paths.REPORT.read_text(encoding="utf-8")


def test_a_comparison_names_the_result_and_leaves_the_page_of_the_run_alone(
    run, monkeypatch, capsys
):
    classes = run.classes
    following = {name: classes[(k + 1) % 3] for k, name in enumerate(classes)}
    predicted = run.predictions.actual.map(following)
    certain = {f"p_{name}": (predicted == name).astype(float) for name in classes}
    always_wrong = run.predictions.assign(predicted=predicted, **certain)
    monkeypatch.setattr(Revision, "open", lambda _: Other(always_wrong))
    assert main(["report", "--against", "main"]) == 0
    assert capsys.readouterr().out == "report: report/report.html\n"
    page = report.COMPARED.read_text(encoding="utf-8")
    assert "Compared with main" in page
    assert "This run is better than main in balanced accuracy." in page
    assert not paths.REPORT.exists()
    compared = report.compare(run, "main")
    right = (run.predictions.actual == run.predictions.predicted).sum()
    assert f"{right} test photos are right only in this run, 0 only in" in compared.conclusion
    scores = {row[0]: row for row in compared.rows.rows}
    assert scores["accuracy"][1:3] == ["0.000", f"{right / len(run.predictions):.3f}"]


def test_other_test_photos_cannot_be_compared(run, monkeypatch, capsys):
    monkeypatch.setattr(Revision, "open", lambda _: Other(run.predictions.head(40)))
    assert main(["report", "--against", "main"]) == 2
    assert "the test splits differ" in capsys.readouterr().err
    assert not report.COMPARED.exists()


@pytest.mark.usefixtures("run")
def test_an_unpulled_file_and_a_wrong_option_name_the_remedy(monkeypatch, capsys):
    def missing() -> None:
        raise FileNotFoundError(2, "No such file", str(paths.SPLIT / "photos.csv"))

    monkeypatch.setattr(run_files, "read", missing)
    assert main(["report"]) == 1
    assert "data/split/photos.csv is missing; run `dvc pull` first" in capsys.readouterr().err
    assert main(["report", "--photos", "--against", "main"]) == 2
