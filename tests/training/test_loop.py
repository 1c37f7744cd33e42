"""A fit learns, keeps the best epoch, freezes the right weights and is reproducible."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from anklealign.config.params import Augmentation, Model, Train
from anklealign.metrics.scores import (
    FURTHER,
    LOWER_IS_BETTER,
    OVERALL,
    further_scores,
    point_scores,
)
from anklealign.models import bundle, calibration, factory
from anklealign.models.inputs import logits
from anklealign.training import loop
from anklealign.training.history import FitResult
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import FitConfig, pick_precision

CPU = torch.device("cpu")
SETTINGS = Train(
    device="cpu", precision="fp32", batch_size=8, patience=50, monitor="accuracy",
    label_smoothing=0.0, weight_decay=0.01,
    augmentation=Augmentation(
        random_crop=0.0, horizontal_flip=False, rotation=0.0, brightness=0.0, contrast=0.0,
        saturation=0.0,
    ),
)  # fmt: skip
MODEL_CONFIG = Model(
    "anklealign_cnn", image_size=32, epochs=4, learning_rate=0.01, arguments={"widths": (8, 16)}
)


def photos(count: int = 24, classes: int = 2, seed: int = 0) -> LabeledPhotos:
    """Return noise that is a little brighter at the top or at the bottom, or in between."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = rng.integers(60, 120, (count, 32, 32, 3), np.uint8)
    for i, label in enumerate(labels):
        pixels[i, 10 * label : 10 * label + 10] += 100
    ids = tuple(f"{i:012x}" for i in range(count))
    return LabeledPhotos(pixels, np.arange(count), ids, labels)


def fitted(
    model_config: Model = MODEL_CONFIG,
    settings: Train = SETTINGS,
    train: LabeledPhotos | None = None,
    change: Callable[[nn.Module], None] = lambda _: None,
) -> tuple[nn.Module, FitResult]:
    with loop.reproducible(1):
        # The pretrained weights of the own network are nowhere: any will do.
        plain = replace(
            model_config,
            pretrained=False,
            frozen=False,
            head_epochs=0,
            head_learning_rate=0.0,
            imagenet_head=False,
        )
        model = factory.build("x", plain, 2)
        change(model)
        recipe = FitConfig(
            bundle.default_input(model, model_config.image_size), 2, model_config, settings, 1, CPU
        )
        fit = loop.fit(model, train or photos(), photos(12, seed=1), recipe)
    return model, fit


def weights(model: nn.Module) -> dict[str, bytes]:
    return {name: t.numpy().tobytes() for name, t in model.state_dict().items()}


def test_a_network_fits_separable_photos() -> None:
    _, fit = fitted(replace(MODEL_CONFIG, epochs=12))
    assert fit.records[-1].train_loss < 0.2
    assert fit.best_score == 1.0


def test_two_fits_of_one_seed_have_the_same_bytes_whatever_the_global_seed() -> None:
    augmented = replace(
        SETTINGS, augmentation=Augmentation(
            random_crop=0.2, horizontal_flip=True, rotation=0.0, brightness=0.2, contrast=0.2,
            saturation=0.2,
        ),
    )  # fmt: skip
    model_config = replace(MODEL_CONFIG, arguments={"widths": (8, 16), "drop_rate": 0.2})
    torch.manual_seed(5)
    one, first = fitted(model_config, augmented)
    torch.manual_seed(6)
    other, second = fitted(model_config, augmented)
    assert weights(one) == weights(other)
    assert first == second


def test_the_best_epoch_s_weights_are_kept() -> None:
    # So high a rate makes scores jump, so that the last epoch is not the best.
    model, fit = fitted(replace(MODEL_CONFIG, epochs=8, learning_rate=0.3))
    scores = [epoch.val_accuracy for epoch in fit.records]
    validation = photos(12, seed=1)
    predicted = logits(
        model, validation.pixels, validation.rows, bundle.default_input(model, 32), CPU
    )
    assert fit.best_score == max(scores) == scores[fit.best_epoch - 1]
    assert (predicted.argmax(1) == validation.labels).mean() == fit.best_score


@pytest.mark.parametrize("monitor", [*OVERALL, *FURTHER])
def test_every_score_of_evaluate_can_be_monitored(monitor: str) -> None:
    # So high a rate makes scores jump.
    model, fit = fitted(
        replace(MODEL_CONFIG, epochs=6, learning_rate=0.3), replace(SETTINGS, monitor=monitor)
    )
    values = [epoch.monitored for epoch in fit.records]
    assert fit.best_score == (min(values) if monitor in LOWER_IS_BETTER else max(values))
    validation = photos(12, seed=1)
    predicted = logits(
        model, validation.pixels, validation.rows, bundle.default_input(model, 32), CPU
    )
    found = calibration.probabilities(predicted, 1.0)
    scores = point_scores(validation.labels, found) | further_scores(validation.labels, found)
    assert fit.best_score == pytest.approx(scores[monitor], abs=1e-9)


def test_early_stopping_after_patience_epochs_without_improvement() -> None:
    _, fit = fitted(
        replace(MODEL_CONFIG, epochs=40, learning_rate=0.3), replace(SETTINGS, patience=3)
    )
    assert len(fit.records) == fit.best_epoch + 3 < 40


@pytest.mark.parametrize(
    "model_config", [MODEL_CONFIG, Model("anklealign_majority", 32, epochs=0, learning_rate=0.0)]
)
def test_no_epochs_change_nothing(model_config: Model) -> None:
    before: dict[str, bytes] = {}
    model, fit = fitted(
        replace(model_config, epochs=0), change=lambda model: before.update(weights(model))
    )
    assert weights(model) == before
    assert fit == FitResult((), 0, None)


def test_a_frozen_backbone_keeps_weights_and_batch_statistics() -> None:
    model_config = replace(MODEL_CONFIG, pretrained=True, frozen=True)
    before: dict[str, bytes] = {}
    model, _ = fitted(model_config, change=lambda model: before.update(weights(model)))
    after = weights(model)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"head.weight", "head.bias"}


def test_head_epochs_fit_the_head_as_if_frozen_and_it_is_kept_if_nothing_is_better() -> None:
    alone, frozen = fitted(replace(MODEL_CONFIG, pretrained=True, frozen=True, epochs=6))
    (best,) = [epoch for epoch in frozen.records if epoch.epoch == frozen.best_epoch]
    # So high a rate that the epoch after the head's own is worse.
    model_config = replace(
        MODEL_CONFIG,
        pretrained=True,
        head_epochs=6,
        head_learning_rate=0.01,
        epochs=1,
        learning_rate=1.0,
    )
    model, fit = fitted(model_config)
    assert [epoch.epoch for epoch in fit.records] == [0, 1]
    assert fit.records[0] == replace(best, epoch=0)
    assert (fit.best_epoch, fit.best_score) == (0, frozen.best_score)
    assert fit.epochs == 1
    assert weights(model) == weights(alone)
    assert all(p.requires_grad for p in model.parameters())


def test_the_initial_network_with_imagenet_head_is_kept_if_nothing_is_better() -> None:
    start = replace(MODEL_CONFIG, epochs=1, learning_rate=1.0)
    before: dict[str, bytes] = {}
    as_it_starts = replace(start, pretrained=True, imagenet_head=True)
    settings = replace(SETTINGS, monitor="log_loss")
    model, fit = fitted(as_it_starts, settings, change=lambda m: before.update(weights(m)))
    assert [epoch.epoch for epoch in fit.records] == [0, 1]
    assert fit.best_epoch == 0
    assert weights(model) == before
    shown = photos()
    found = logits(model, shown.pixels, shown.rows, bundle.default_input(model, 32), CPU)
    each = torch.nn.functional.cross_entropy(torch.tensor(found), torch.tensor(shown.labels))
    assert fit.records[0].train_loss == pytest.approx(float(each))
    _, other = fitted(as_it_starts, replace(settings, loss="bce"))
    assert other.records[0].train_loss > 1.5 * float(each)
    _, better = fitted(replace(as_it_starts, learning_rate=0.01, epochs=6), settings)
    assert better.best_epoch > 0


def test_broken_weights_are_reported_before_the_first_epoch() -> None:
    def broken(model: nn.Module) -> None:
        model.get_classifier().weight.data.fill_(float("nan"))

    with pytest.raises(ValueError, match=r"not finite before the first epoch: its weights"):
        fitted(replace(MODEL_CONFIG, pretrained=True, imagenet_head=True), change=broken)


def test_all_weights_change_after_head_epochs() -> None:
    settings = replace(SETTINGS, monitor="log_loss")
    model_config = replace(MODEL_CONFIG, pretrained=True, head_epochs=6, head_learning_rate=0.01)
    alone, _ = fitted(replace(MODEL_CONFIG, pretrained=True, frozen=True, epochs=6), settings)
    model, fit = fitted(model_config, settings)
    assert fit.best_epoch > 0
    before, after = weights(alone), weights(model)
    assert all(before[n] != after[n] for n, p in model.named_parameters() if p.requires_grad)


def test_a_loss_that_is_not_finite_reports_epoch_batch_rate_and_remedy() -> None:
    def spoil(model: nn.Module) -> None:
        model.head.bias.data.fill_(float("nan"))

    with pytest.raises(ValueError, match=r"nan in epoch 1, batch 1, .* rate of .*learning_rate"):
        fitted(change=spoil)


def test_an_error_while_fitting_the_head_refers_to_its_own_learning_rate() -> None:
    model_config = replace(MODEL_CONFIG, pretrained=True, head_epochs=3, head_learning_rate=1e38)
    with pytest.raises(
        ValueError, match=r"while fitting the head: .* a tenth of head_learning_rate"
    ):
        fitted(model_config)
    with pytest.raises(ValueError, match=r"^params\.yaml: train\.optimizer = 'adamv'"):
        fitted(replace(model_config, head_learning_rate=0.01), replace(SETTINGS, optimizer="adamv"))


def test_weights_broken_by_the_last_step_are_reported_in_validation() -> None:
    model_config = replace(MODEL_CONFIG, epochs=1, learning_rate=1e20)
    with pytest.raises(ValueError, match=r"validation loss .* after epoch 1, .*; try a tenth"):
        fitted(model_config, replace(SETTINGS, batch_size=64))


def test_an_out_of_memory_error_lists_the_settings_to_change() -> None:
    def starve(model: nn.Module) -> None:
        def forward(_: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError

        model.forward = forward

    with pytest.raises(
        ValueError,
        match=r"train\.batch_size = 8 and image_size = 32; raise train\.gradient_accumulation",
    ):
        fitted(change=starve)


def test_auto_precision_is_fp32_on_a_cpu_and_fp16_needs_a_gpu() -> None:
    assert pick_precision("auto", CPU) is torch.float32
    assert pick_precision("bf16", CPU) is torch.bfloat16
    with pytest.raises(ValueError, match=r"fp16.*choose auto"):
        pick_precision("fp16", CPU)


def test_bfloat16_fits_too() -> None:
    _, fit = fitted(replace(MODEL_CONFIG, epochs=12), replace(SETTINGS, precision="bf16"))
    assert fit.best_score == 1.0


@pytest.mark.parametrize("count", [2, 3, 9])
def test_few_photos_make_no_batch_of_one(count: int) -> None:
    _, fit = fitted(replace(MODEL_CONFIG, epochs=1), replace(SETTINGS, batch_size=2), photos(count))
    assert np.isfinite(fit.records[0].train_loss)
