"""Every family of the installed timm trains, is explained, probed, saved and loaded."""

import pytest

from benchmarks import families


@pytest.mark.slow
@pytest.mark.parametrize("family", families.families())
def test_a_family_passes_every_step_or_is_refused_before_training(family: str) -> None:
    outcome = families.run(families.smallest(family))
    if outcome["build"] != "ok":
        assert "change" in outcome["build"]  # names the parameter to change
        return
    assert {step for step, result in outcome.items() if not result.startswith("ok")} == set()


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "anklealign_cnn"])
def test_a_network_of_one_channel_passes_every_step(architecture: str) -> None:
    outcome = families.run(architecture, in_chans=1)
    assert outcome == dict.fromkeys(families.STEPS, "ok")
