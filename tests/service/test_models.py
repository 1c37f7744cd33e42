"""Tests of several bundles in one service: names, routes, metrics and shared limits."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from anklealign.inference.predictor import Predictor
from anklealign.io.pixel_store import Pixels
from service import app
from service.settings import ServiceSettings
from tests.service.conftest import Served, photo, save_bundle, serving, settings_for

NAMES = ("first", "second")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two bundles whose stored squares differ in size."""
    top = tmp_path_factory.mktemp("several") / "models"
    for name, side in zip(NAMES, (48, 64), strict=True):
        save_bundle(top / name, side=side)
    return top


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(settings_for(folder, queue=8, threads=2)) as service:
        yield service


def bundles(text: str) -> dict[str, Path]:
    return ServiceSettings(model=text).bundles()


def test_one_bundle_is_named_by_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundles(str(folder / "first")) == {"first": folder / "first"}
    monkeypatch.chdir(folder / "second")
    assert bundles(".") == {"second": Path()}
    assert bundles("nowhere") == {"nowhere": Path("nowhere")}  # `load` reports it


def test_bundles_are_a_folder_or_a_list_with_names(folder: Path) -> None:
    first, second = folder / "first", folder / "second"
    assert bundles(str(folder)) == {"first": first, "second": second}
    assert bundles(f"{second}, {first}") == {"second": second, "first": first}
    assert bundles(f"a={first},b={first}") == {"a": first, "b": first}
    assert bundles(f"only={first}") == {"only": first}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{0}/first,{0}/first", "'first' names two bundles; write NAME="),
        ("a b={0}/first,{0}/second", "'a b' is no name for a URL"),
    ],
)
def test_a_name_that_cannot_be_used_is_an_error_with_a_remedy(
    folder: Path, text: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        bundles(text.format(folder))


def test_a_request_chooses_its_model_and_the_default_is_the_first(
    served: Served, folder: Path
) -> None:
    listed = served.request("GET", "/models").json["models"]
    assert [model["name"] for model in listed] == list(NAMES)
    ids = {model["name"]: model["model"] for model in listed}
    for name in NAMES:
        predictor = Predictor.load(folder / name, "cpu")
        expected = predictor.probabilities(predictor.preprocess(photo(1))[None])[0]
        answer = served.request("POST", f"/predict?model={name}", photo(1)).json
        assert answer["model"] == ids[name]
        actual = list(answer["predictions"][0]["probabilities"].values())
        np.testing.assert_allclose(actual, expected, atol=1e-5)
        assert served.request("GET", f"/model?model={name}").json["name"] == name
        explained = served.request(
            "POST", f"/explain?model={name}", photo(1), Accept="application/json"
        )
        assert explained.json["model"] == ids[name]
    assert served.predict(photo(1)).json["model"] == ids["first"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/predict"), ("POST", "/explain"), ("GET", "/model"), ("GET", "/examples")],
)
def test_an_unknown_model_is_a_problem_that_lists_the_known_ones(
    served: Served, method: str, path: str
) -> None:
    response = served.request(method, f"{path}?model=third", photo(1) if method == "POST" else None)
    assert response.status == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json["code"] == "unknown_model"
    assert response.json["detail"] == "'third' is not served; choose: first, second"


def test_metrics_tell_the_models_apart(served: Served) -> None:
    served.request("POST", "/predict?model=second", photo(2))
    text = served.request("GET", "/metrics").body.decode()
    assert 'anklealign_photos_total{model="first",predicted="neutral"}' in text
    counts = [
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith('anklealign_photos_total{model="second"')
    ]
    assert sum(counts) >= 1


def test_waiting_photos_of_two_models_get_their_own_predictions_in_batches(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [f"/predict?model={NAMES[seed % 2]}" for seed in range(8)]

    def predict(seed: int) -> list[float]:
        answer = served.request("POST", paths[seed], photo(seed)).json["predictions"][0]
        return list(answer["probabilities"].values())

    alone = [predict(seed) for seed in range(8)]
    sizes: list[tuple[int, int]] = []
    probabilities = Predictor.probabilities

    def counted(self: Predictor, pixels: Pixels) -> np.ndarray:
        sizes.append((pixels.shape[1], len(pixels)))
        return probabilities(self, pixels)

    monkeypatch.setattr(Predictor, "probabilities", counted)
    monkeypatch.setattr("service.batcher.GROW_SECONDS", 0.5)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(predict, range(8)))
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert {side for side, _ in sizes} == {48, 64}
    assert sum(count for _, count in sizes) == 8


def test_all_models_share_one_queue(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is flooded leaves no further places for the other one."""
    import threading  # noqa: PLC0415

    release = threading.Event()
    probabilities = Predictor.probabilities

    def blocked(self: Predictor, pixels: Pixels) -> np.ndarray:
        release.wait(20)
        return probabilities(self, pixels)

    monkeypatch.setattr(Predictor, "probabilities", blocked)
    with ThreadPoolExecutor(8) as pool:
        first = [
            pool.submit(served.request, "POST", "/predict?model=first", photo(k)) for k in range(8)
        ]
        waiting = served.application  # the gauge counts the photos of all models
        assert waiting is not None
        for _ in range(500):
            text = served.request("GET", "/metrics").body.decode()
            if "anklealign_photos_waiting 8.0" in text:
                break
        refused = served.request("POST", "/predict?model=second", photo(9))
        release.set()
        statuses = [future.result().status for future in first]
    assert (refused.status, refused.json["code"]) == (503, "busy")
    assert statuses == [200] * 8


def test_a_further_bundle_that_cannot_be_loaded_ends_the_start(folder: Path) -> None:
    settings = settings_for(folder, model=f"{folder / 'first'},{folder / 'nowhere'}")
    predictor, engine = app.load(settings)
    with pytest.raises(ValueError, match=r"nowhere/config\.json does not exist"):
        app.create(settings, predictor, engine)
