"""The number of cores and OMP_NUM_THREADS change no byte of a fit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIT = """
import hashlib, sys
import numpy as np, torch
from dataclasses import replace
from anklealign.config import params
from anklealign.config.params import Model, Train
from anklealign.models import bundle, factory, inputs
from anklealign.training import loop
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import FitConfig

raw = params.read()
settings = replace(params.section(raw, "train", Train), device="cpu")
inputs.configure_cpu(int(sys.argv[1]) or settings.threads)
model_config = replace(params.section(raw, "models.grid_pool_cnn", Model), epochs=2)
rng = np.random.default_rng(0)
pixels = rng.integers(0, 256, (64, 128, 128, 3), np.uint8)
ids = tuple(f"{n:04}" for n in range(64))
photos = LabeledPhotos(pixels, np.arange(64), ids, np.arange(64) % 3)
with loop.reproducible(1):
    model = factory.build("x", model_config, 3)
    config = FitConfig(
        bundle.default_input(model, 96), 3, model_config, settings, 1, torch.device("cpu")
    )
    loop.fit(model, photos, photos, config)
state = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
logits = inputs.logits(model, pixels, np.arange(64), config.input_config, config.device)
print(hashlib.sha256(state + logits.tobytes()).hexdigest())
"""


def fit(cores: set[int], threads: int = 0, **environment: str) -> str:
    """Fit in a new process on some cores; return the hash of its weights and logits."""
    result = subprocess.run(
        [sys.executable, "-c", FIT, str(threads)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.split()[-1]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot limit cores")
def test_one_core_and_two_and_any_environment_give_the_same_bytes() -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("needs two cores")
    both = fit(set(cores[:2]))
    assert fit({cores[0]}) == both
    assert fit(set(cores[:2]), OMP_NUM_THREADS="1") == both
    assert fit({cores[1]}, OMP_NUM_THREADS="4", MKL_NUM_THREADS="1") == both
    # The number of threads is what matters: the test would not notice a fit that ignored it.
    assert fit(set(cores[:2]), threads=1) != both
