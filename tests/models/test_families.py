"""Every family of the installed timm trains, is explained, probed, saved, loaded and exported."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection

import pytest
import timm

from benchmarks import families

# Their random weights show no evidence: all features are some 1e-9, or all evidence is negative.
EMPTY_MAPS = {"inception_v4", "visformer"}


@pytest.mark.slow
@pytest.mark.parametrize("family", families.families())
@pytest.mark.parametrize("channels", [3, 1])
def test_a_family_passes_every_step_or_is_refused_before_training(
    family: str, channels: int
) -> None:
    outcome = families.run_apart(families.smallest(family), channels)
    if outcome["build"].startswith("refused"):
        assert "change" in outcome["build"]  # names the parameter to change
        return
    failed = {step: result for step, result in outcome.items() if not result.startswith("ok")}
    assert failed == ({"explain": "no evidence for any class"} if family in EMPTY_MAPS else {})


def test_the_table_has_every_family_and_only_members_of_it() -> None:
    assert set(families.SMALLEST) == set(families.families())
    for family, member in families.SMALLEST.items():
        assert member in timm.list_models(module=family)


@pytest.mark.slow
@pytest.mark.parametrize("family", families.families())
def test_the_table_has_the_smallest_member_of_a_family(family: str) -> None:
    counts = {}
    for member in timm.list_models(module=family):
        try:
            counts[member] = families.weights(member)
        except Exception:  # noqa: BLE001, S112 - some constructors need values, which meta has not
            continue
    chosen = families.smallest(family)
    if counts:
        assert families.weights(chosen) == min(counts.values())


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "anklealign_cnn"])
def test_a_network_of_one_channel_passes_every_step(architecture: str) -> None:
    outcome = families.run(architecture, in_chans=1)
    assert outcome == dict.fromkeys(families.STEPS, "ok")


def crash(_: str, __: int, connection: Connection, ___: int) -> None:
    connection.send(("build", "ok"))
    os.kill(os.getpid(), signal.SIGKILL)


def hang(_: str, __: int, connection: Connection, ___: int) -> None:
    connection.send(("build", "ok"))
    time.sleep(600)


@pytest.mark.parametrize(
    ("work", "result"),
    [(crash, "crashes on this CPU (SIGKILL)"), (hang, "takes more than 3 s")],
)
def test_a_process_that_dies_or_hangs_is_the_outcome_of_its_step(work, result, monkeypatch) -> None:
    monkeypatch.setattr(families, "_run_and_send", work)
    monkeypatch.setattr(families, "WALL_FACTOR", 1)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: FORK)
    outcome = families.run_apart("test_resnet", seconds=3)
    assert (outcome["build"], outcome["train"], outcome["export"]) == ("ok", result, "not run")


FORK = multiprocessing.get_context("fork")
