"""What only a GPU can show; mostly skipped without one. Figures: python -m benchmarks.gpu."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anklealign.inference.predictor import Predictor
from anklealign.models import bundle
from anklealign.training import loop
from anklealign.training.trainer import pick_precision
from benchmarks import gpu
from benchmarks.speed import take_step, write_store

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
CUDA = torch.device("cuda", 0)


@pytest.fixture
def run(tmp_path: Path) -> gpu.Run:
    data = write_store(tmp_path, 64)
    return gpu.Run(
        CUDA, small=True, models=["grid_pool_cnn"], deadline=float("inf"), data=data,
        folder=tmp_path, out=tmp_path / "gpu.json",
    )  # fmt: skip


@pytest.mark.parametrize("model", gpu.MODELS)
def test_each_variant_measured_is_valid_with_random_weights(run: gpu.Run, model: str) -> None:
    config = run.variant(model)
    assert (config.weights, config.pretrained, config.frozen) == (None, False, False)


@pytest.mark.parametrize("before", [True, False])
def test_deterministic_fits_avoid_memory_efficient_attention(before: bool) -> None:
    enabled = torch.backends.cuda.mem_efficient_sdp_enabled
    initially = enabled()
    torch.backends.cuda.enable_mem_efficient_sdp(before)
    try:
        with loop.reproducible(1):
            assert not enabled()
        assert enabled() is before
        with loop.reproducible(1, deterministic=False):
            assert enabled() is before
    finally:
        torch.backends.cuda.enable_mem_efficient_sdp(initially)


@needs_gpu
def test_auto_is_bfloat16_where_the_gpu_has_it() -> None:
    major, _ = torch.cuda.get_device_capability()
    assert pick_precision("auto", CUDA) is (torch.bfloat16 if major >= 8 else torch.float32)
    assert pick_precision("fp16", CUDA) is torch.float16


@needs_gpu
@pytest.mark.parametrize("model", ["grid_pool_cnn", "mobilenet_v2", "vit_small"])
def test_fits_have_equal_bytes_also_when_interrupted(run: gpu.Run, model: str) -> None:
    run.models[:] = [model]
    rows = list(gpu.measure_bytes(run))
    assert [row["precision"] for row in rows] == ["fp32", "bf16", "fp16"]
    assert all(row["ok"] for row in rows), rows


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_no_part_of_a_training_step_waits_for_the_gpu(
    run: gpu.Run, precision: str, clip: float
) -> None:
    settings = gpu.settings_with(precision=precision, batch_size=16, max_grad_norm=clip)
    settings = replace(settings, augmentation=replace(settings.augmentation, rotation=10, shear=5))
    trainer = gpu.make_trainer(run, run.variant("grid_pool_cnn"), settings)
    with loop.reproducible(1):
        for epoch in (1, 2):  # the first selects kernels
            trainer.start_epoch(epoch)
            torch.cuda.set_sync_debug_mode("error" if epoch == 2 else "default")
            try:
                for batch in trainer.batches(epoch):
                    take_step(trainer, batch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert trainer.steps_taken == 8


@needs_gpu
def test_the_optimizer_is_fused_unless_told_otherwise(run: gpu.Run) -> None:
    config = run.variant("grid_pool_cnn")
    for optimizer, arguments, fused in [
        ("adamw", {}, True), ("sgd", {}, True), ("adamw", {"fused": False}, False),
        ("adamw", {"foreach": True}, False), ("lamb", {}, None),
    ]:  # fmt: skip
        settings = gpu.settings_with(optimizer=optimizer, optimizer_arguments=arguments)
        trainer = gpu.make_trainer(run, config, settings)
        assert trainer.optimizer.param_groups[0].get("fused") == fused


@needs_gpu
@pytest.mark.slow
def test_two_processes_with_synchronized_batch_norm_fit_like_one(run: gpu.Run) -> None:
    rows = list(gpu.measure_sync(run))
    assert {row["synchronized"] for row in rows} == {True, False}
    assert all(row["ok"] for row in rows), rows


@needs_gpu
def test_evaluation_equals_the_cpu_s(run: gpu.Run) -> None:
    run.models[:] = ["grid_pool_cnn", "vit_small"]
    rows = list(gpu.measure_agreement(run))
    assert [row["model"] for row in rows] == run.models
    assert all(row["ok"] for row in rows), rows


@needs_gpu
def test_a_model_fitted_on_a_gpu_predicts_alike_on_both(run: gpu.Run, tmp_path: Path) -> None:
    settings = gpu.settings_with(batch_size=16)
    config = gpu.build(run, run.variant("grid_pool_cnn"), settings)
    _, model = gpu.fit(run, config, tmp_path / "checkpoint.pt")
    made = replace(gpu.untrained(config.model_config), model=model)
    bundle.save(tmp_path / "model", made)
    answers = [
        Predictor.load(tmp_path / "model", device).probabilities(run.data.pixels)
        for device in ("cpu", "cuda", "auto")
    ]
    np.testing.assert_allclose(answers[1], answers[0], atol=gpu.PROBABILITY_TOLERANCE)
    np.testing.assert_array_equal(answers[1], answers[2])
    assert np.ptp(answers[0][:, 0]) > 10 * gpu.PROBABILITY_TOLERANCE


@needs_gpu
def test_a_bundle_fitted_on_a_gpu_exports(run: gpu.Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from anklealign.cli import export  # noqa: PLC0415 - needs the packages of the service

    config = gpu.build(run, run.variant("grid_pool_cnn"), gpu.settings_with(batch_size=16))
    _, model = gpu.fit(run, config, tmp_path / "checkpoint.pt")
    bundle.save(tmp_path / "model", replace(gpu.untrained(config.model_config), model=model))
    assert export.export_model(tmp_path / "model", tmp_path / "model.onnx") == 0
    assert (tmp_path / "model.onnx").is_file()


@needs_gpu
def test_the_service_answers_from_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    from tests.service.conftest import photo, save_bundle, serving, settings_for  # noqa: PLC0415

    save_bundle(tmp_path / "model")
    answers = []
    for device in ("cpu", "cuda"):
        with serving(settings_for(tmp_path / "model", device=device)) as served:
            response = served.predict(photo(1))
            assert response.status == 200, response.body
            answers.append(response.json)
    for one, other in zip(probabilities_in(answers[0]), probabilities_in(answers[1]), strict=True):
        assert one == pytest.approx(other, abs=gpu.PROBABILITY_TOLERANCE)


def probabilities_in(answer: object) -> list[float]:
    """Return all numbers in 0 to 1 of a response, in order."""
    if isinstance(answer, dict):
        return [number for value in answer.values() for number in probabilities_in(value)]
    if isinstance(answer, list):
        return [number for value in answer for number in probabilities_in(value)]
    return [answer] if isinstance(answer, float) and 0 <= answer <= 1 else []


@needs_gpu
def test_an_out_of_memory_error_of_a_real_gpu_names_the_settings(run: gpu.Run) -> None:
    config = gpu.build(run, run.variant("grid_pool_cnn"), gpu.settings_with(batch_size=16))
    torch.cuda.set_per_process_memory_fraction(1e-6)
    torch.cuda.empty_cache()
    try:
        with (
            pytest.raises(ValueError, match=r"cuda.* ran out of memory with train.batch_size = 16"),
            loop._explain_out_of_memory(config),
        ):
            torch.zeros(2**28, device=CUDA)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
