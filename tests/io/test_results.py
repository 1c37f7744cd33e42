"""Results name the bundle that they belong to."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from anklealign.config import paths
from anklealign.io import results


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run, the current folder."""
    monkeypatch.chdir(tmp_path)
    paths.MODEL.mkdir()
    (paths.MODEL / "config.json").write_text("{}")
    hashes = {
        "prepare": {"photos_sha256": "a", "pixels_sha256": "b"},
        "clean": {"prepared_sha256": "a", "photos_sha256": "c"},
        "split": {"clean_sha256": "c", "photos_sha256": "d"},
        "train": {"split_sha256": "d", "pixels_sha256": "b"},
        "evaluate": {},
    }
    bundle = {results.BUNDLE: results.bundle_hash(paths.MODEL)}
    for stage, keys in hashes.items():
        results.write_details(paths.DETAILS / f"{stage}.json", {"photos": 3} | bundle | keys)
    return tmp_path


def test_details_are_a_list_in_which_dvc_reads_no_number(run: Path) -> None:
    content = json.loads((run / "metrics/details/split.json").read_text())
    assert isinstance(content, list)
    assert results.read_details(run / "metrics/details/split.json") == content[0]


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '{"photos": 3}', '[{"photos": 3}, {}]'])
def test_other_content_is_an_error_with_a_remedy(run: Path, text: str) -> None:
    (run / "metrics/details/split.json").write_text(text)
    with pytest.raises(ValueError, match=r"split\.json is not .*`anklealign restore`"):
        results.read_results()


def test_results_of_one_run_are_returned_with_and_without_the_model(run: Path) -> None:
    assert set(results.read_results()) == set(results.STAGES)
    (run / "model/config.json").unlink()
    assert set(results.read_results()) == set(results.STAGES)


def test_another_model_beside_the_metrics_is_refused(run: Path) -> None:
    (run / "model/config.json").write_text('{"another": 1}')
    with pytest.raises(ValueError, match=r"different bundles: .*evaluate\.json of .*model/ of"):
        results.read_results()


def test_metrics_of_two_runs_are_refused(run: Path) -> None:
    results.write_details(run / "metrics/details/evaluate.json", {results.BUNDLE: "0" * 64})
    with pytest.raises(ValueError, match="different bundles"):
        results.read_results()


@pytest.mark.parametrize(
    ("stage", "key", "named"),
    [
        ("prepare", "photos_sha256", r"clean\.json is not of the photos of .*prepare\.json"),
        ("prepare", "pixels_sha256", r"train\.json is not of the photos of .*prepare\.json"),
        ("clean", "prepared_sha256", r"clean\.json is not of the photos of .*prepare\.json"),
        ("clean", "photos_sha256", r"split\.json is not of the photos of .*clean\.json"),
        ("split", "clean_sha256", r"split\.json is not of the photos of .*clean\.json"),
        ("split", "photos_sha256", r"train\.json is not of the photos of .*split\.json"),
    ],
)
@pytest.mark.parametrize("change", ["other", "missing"])
def test_metrics_of_other_photos_are_refused(
    run: Path, stage: str, key: str, named: str, change: str
) -> None:
    path = run / f"metrics/details/{stage}.json"
    metrics = results.read_details(path)
    metrics[key] = "other"
    if change == "missing":
        del metrics[key]
    results.write_details(path, metrics)
    with pytest.raises(ValueError, match=named + ".*`anklealign restore`"):
        results.read_results()


def test_equal_arrays_give_equal_bytes_at_any_time(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"ids": np.array(["a", "é"]), "maps": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    results.write_arrays(run / "one.npz", arrays)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    results.write_arrays(run / "two.npz", dict(arrays))
    assert (run / "one.npz").read_bytes() == (run / "two.npz").read_bytes()
    read = results.read_arrays(run / "one.npz")
    assert {name: value.tolist() for name, value in read.items()} == {
        name: value.tolist() for name, value in arrays.items()
    }
