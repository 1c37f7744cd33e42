"""A training step follows params.yaml, whatever the micro-batches, processes and memory layout."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anklealign.config.params import Augmentation, Model, Train
from anklealign.models import bundle, factory
from anklealign.training import checkpoints
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import Batch, FitConfig, Trainer, pick_precision

CPU = torch.device("cpu")
SETTINGS = Train(
    device="cpu", precision="fp32", batch_size=8, patience=50, monitor="accuracy",
    label_smoothing=0.0, weight_decay=0.01,
    augmentation=Augmentation(
        random_crop=0.1, horizontal_flip=True, rotation=0.0, brightness=0.1, contrast=0.1,
        saturation=0.1,
    ),
)  # fmt: skip
MODEL_CONFIG = Model(
    "anklealign_cnn", image_size=32, epochs=4, learning_rate=0.01,
    arguments={"widths": (8, 16), "norm": False},
)  # fmt: skip


def photos(count: int = 20, seed: int = 0) -> LabeledPhotos:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.integers(60, 120, (count, 32, 32, 3), np.uint8)
    for i, label in enumerate(labels):
        pixels[i, 10 * label : 10 * label + 10] += 100
    return LabeledPhotos(pixels, np.arange(count), tuple(f"{i:012x}" for i in range(count)), labels)


def make_trainer(
    model_config: Model = MODEL_CONFIG,
    settings: Train = SETTINGS,
    train: LabeledPhotos | None = None,
) -> Trainer:
    torch.manual_seed(0)
    built = replace(model_config, pretrained=False, frozen=False, unfreeze_last_n=0)
    model = factory.build("x", built, 2)
    config = FitConfig(
        bundle.default_input(model, model_config.image_size), 2, model_config, settings, 1, CPU
    )
    return Trainer(model, train or photos(), photos(6, 1), config)


def take_step(trainer: Trainer, batch: Batch) -> torch.Tensor:
    """Take a step as `loop.fit` does; return the loss."""
    trainer.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros(())
    for micro_batch in batch.split(trainer.config.train_config.gradient_accumulation_steps):
        with trainer.gradient_sync(micro_batch):
            loss = trainer.loss(trainer.forward(micro_batch.x), micro_batch)
            trainer.backward(loss)
        total += loss.detach()
    trainer.step()
    return total


def run_epoch(trainer: Trainer, epoch: int) -> float:
    trainer.start_epoch(epoch)
    batches = [(take_step(trainer, batch), batch.num_photos) for batch in trainer.batches(epoch)]
    return sum(float(loss) * size for loss, size in batches) / sum(size for _, size in batches)


def after(
    epochs: int, model_config: Model = MODEL_CONFIG, **changes: object
) -> dict[str, torch.Tensor]:
    trainer = make_trainer(model_config, replace(SETTINGS, **changes))
    for epoch in range(1, epochs + 1):
        run_epoch(trainer, epoch)
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_gradient_accumulation_gives_the_same_step() -> None:
    whole = after(2)
    for parts in (2, 3, 100):
        # AdamW divides by small numbers: the last digit of a sum may become the fifth of a weight.
        assert distance(after(2, gradient_accumulation_steps=parts), whole) < 1e-4
    assert distance(after(2, batch_size=4), whole) > 1e-3


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb", "lion", "nadamw", "rmsproptf"])
def test_optimizers_of_timm_reduce_the_loss(optimizer: str) -> None:
    trainer = make_trainer(
        replace(MODEL_CONFIG, learning_rate=0.003), replace(SETTINGS, optimizer=optimizer)
    )
    first = run_epoch(trainer, 1)
    for epoch in (2, 3, 4):
        last = run_epoch(trainer, epoch)
    assert last < first


def test_optimizer_arguments_are_applied_and_wrong_ones_are_reported() -> None:
    how = {"betas": (0.8, 0.98), "eps": 1e-6}
    trainer = make_trainer(settings=replace(SETTINGS, optimizer_arguments=how))
    assert {key: trainer.optimizer.param_groups[0][key] for key in how} == how
    with pytest.raises(ValueError, match=r"'adamw' with optimizer_arguments .*'gamma'.* change"):
        make_trainer(settings=replace(SETTINGS, optimizer_arguments={"gamma": 1.0}))


@pytest.mark.parametrize(
    ("optimizer", "argument"), [("adamw", {"momentum": 0.95}), ("sgd", {"betas": (0.9, 0.98)})]
)
def test_an_argument_the_optimizer_does_not_accept_is_an_error(
    optimizer: str, argument: dict[str, float]
) -> None:
    how = replace(SETTINGS, optimizer=optimizer, optimizer_arguments=argument)
    with pytest.raises(ValueError, match=rf"'{optimizer}' with .*'{next(iter(argument))}'"):
        make_trainer(settings=how)


def test_integer_and_string_arguments_reach_the_optimizer_unchanged() -> None:
    how = {"ns_steps": 3, "adjust_lr_fn": "match_rms_adamw"}
    trainer = make_trainer(settings=replace(SETTINGS, optimizer="muon", optimizer_arguments=how))
    assert {key: trainer.optimizer.param_groups[0][key] for key in how} == how
    assert np.isfinite(run_epoch(trainer, 1))


def test_an_unknown_optimizer_is_reported_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"train\.optimizer = 'adamv' .*choose one of: .*adamw"):
        make_trainer(settings=replace(SETTINGS, optimizer="adamv"))


def rates(model_config: Model = MODEL_CONFIG, **changes: object) -> list[float]:
    trainer = make_trainer(
        replace(model_config, epochs=10), replace(SETTINGS, warmup=0.2, **changes)
    )
    found = []
    for step in range(10 * trainer.steps_per_epoch):
        trainer.scheduler.step_update(step)
        found.append(trainer.optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("scheduler", ["cosine", "poly", "constant"])
def test_every_schedule_warms_up_and_all_but_constant_decay_to_near_zero(scheduler: str) -> None:
    found = rates(scheduler=scheduler)
    assert len(found) == 30
    assert 0 < found[0] < found[3] < max(found)
    assert max(found) == pytest.approx(0.01, rel=0.15)
    assert found.index(max(found)) in {5, 6}
    if scheduler == "constant":
        assert found[-1] == pytest.approx(0.01)
    else:
        assert 0 < found[-1] < 0.002


def test_multistep_decays_at_its_shares_of_the_run() -> None:
    found = rates(scheduler="multistep", decay_at=(0.5, 0.8), decay_rate=0.2)
    # timm's milestone m applies from step m - 1 on.
    assert found[6:14] == pytest.approx([0.01] * 8)
    assert found[14:23] == pytest.approx([0.002] * 9)
    assert found[23:] == pytest.approx([0.0004] * 7)


def test_layer_decay_lowers_the_rate_of_earlier_layers() -> None:
    trainer = make_trainer(replace(MODEL_CONFIG, layer_decay=0.5))
    trainer.scheduler.step_update(5)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    found = {
        names[id(p)]: group["lr"] / trainer.config.model_config.learning_rate
        for group in trainer.optimizer.param_groups
        for p in group["params"]
    }
    assert found["head.weight"] == pytest.approx(2 * found["stages.1.0.weight"])
    assert found["stages.1.0.weight"] == pytest.approx(2 * found["stages.0.0.weight"])


def test_biases_and_norms_have_no_weight_decay() -> None:
    trainer = make_trainer(replace(MODEL_CONFIG, arguments={"widths": (8, 16)}))
    spared = [g["params"] for g in trainer.optimizer.param_groups if g["weight_decay"] == 0]
    assert {p.ndim for group in spared for p in group} == {1}


def test_a_long_gradient_is_clipped_to_max_grad_norm() -> None:
    def moved(limit: float) -> float:
        trainer = make_trainer(settings=replace(plain, max_grad_norm=limit))
        before = trainer.model.head.weight.detach().clone()
        take_step(trainer, next(trainer.batches(1)))
        return float((trainer.model.head.weight.detach() - before).norm())

    plain = replace(SETTINGS, optimizer="sgd", warmup=0.0, weight_decay=0.0)
    # One step of momentum is one step; Nesterov's looks 0.9 of one ahead.
    assert 0 < moved(1e-4) <= 1.9e-4 * MODEL_CONFIG.learning_rate * 1.01
    assert moved(0.0) > 100 * moved(1e-4)


@pytest.mark.parametrize("everywhere", [False, True])
def test_freeze_batch_norm_keeps_batch_statistics(everywhere: bool) -> None:
    model_config = replace(
        MODEL_CONFIG, arguments={"widths": (8, 16)}, freeze_batch_norm=everywhere
    )
    trainer = make_trainer(model_config)
    before = trainer.model.stages[0][1].running_mean.clone()
    weight = trainer.model.stages[0][1].weight.detach().clone()
    run_epoch(trainer, 1)
    assert trainer.model.stages[0][1].running_mean.equal(before) == everywhere
    assert not trainer.model.stages[0][1].weight.equal(weight)


def test_unfreeze_last_n_trains_the_last_blocks_only() -> None:
    model_config = replace(
        MODEL_CONFIG, arguments={"widths": (8, 16), "depth": 2}, pretrained=True, frozen=True,
        unfreeze_last_n=1,
    )  # fmt: skip
    trainer = make_trainer(model_config)
    before = {name: t.clone() for name, t in trainer.model.state_dict().items()}
    run_epoch(trainer, 1)
    changed = {n for n, t in trainer.model.state_dict().items() if not t.equal(before[n])}
    assert changed == {
        "head.weight", "head.bias", "stages.1.3.weight", "stages.1.4.weight", "stages.1.4.bias",
        "stages.1.4.running_mean", "stages.1.4.running_var", "stages.1.4.num_batches_tracked",
    }  # fmt: skip


def test_unfreezing_more_blocks_than_the_network_has_is_an_error() -> None:
    model_config = replace(MODEL_CONFIG, pretrained=True, frozen=True, unfreeze_last_n=99)
    with pytest.raises(
        ValueError, match=r"unfreeze_last_n = 99, but the network has \d+ blocks; lower"
    ):
        make_trainer(model_config)


def test_loss_weights_and_sampler_both_balance_a_rare_class() -> None:
    few = photos(20)
    rare = replace(few, labels=np.array([0] * 18 + [1] * 2))
    by_weights = make_trainer(train=rare)
    assert by_weights.weights[-1] == pytest.approx(5.0)
    by_sampler = make_trainer(settings=replace(SETTINGS, class_balancing="sampler"), train=rare)
    shown = torch.cat([batch.targets for batch in by_sampler.batches(1)])
    assert shown.sum(0).tolist() == [10, 10]
    assert by_sampler.weights.tolist() == [1.0] * 20
    neither = make_trainer(settings=replace(SETTINGS, class_balancing="none"), train=rare)
    assert neither.weights.tolist() == [1.0] * 20


def test_soft_labels_are_learned() -> None:
    few = photos(8)
    soft = replace(few, soft=np.full((8, 2), 0.5))
    trainer = make_trainer(replace(MODEL_CONFIG, epochs=12), train=soft)
    for epoch in range(1, 13):
        run_epoch(trainer, epoch)
    with torch.no_grad():
        shares = torch.from_numpy(trainer.predict(trainer.val)).softmax(1)
    assert (shares - 0.5).abs().max() < 0.1


def test_two_processes_get_disjoint_halves_of_every_batch() -> None:
    trainer = make_trainer()
    trainer.config = replace(
        trainer.config, process_group=replace(trainer.config.process_group, size=1)
    )
    whole = [batch.x for batch in trainer.batches(1)]
    halves = []
    for rank in (0, 1):
        trainer.config = replace(
            trainer.config, process_group=replace(trainer.config.process_group, rank=rank, size=2)
        )
        halves.append([batch.x for batch in trainer.batches(1)])
    for all_of_it, even, odd in zip(whole, *halves, strict=True):
        torch.testing.assert_close(all_of_it[0::2], even)
        torch.testing.assert_close(all_of_it[1::2], odd)


def test_the_mean_gradient_over_shards_is_the_gradient_of_the_batch() -> None:
    def gradient(rank: int, size: int) -> torch.Tensor:
        trainer = make_trainer(settings=replace(SETTINGS, optimizer="sgd", batch_size=7))
        trainer.config = replace(
            trainer.config,
            process_group=replace(trainer.config.process_group, rank=rank, size=size),
        )
        take_step(trainer, next(trainer.batches(1)))
        grads = [p.grad for p in trainer.model.parameters()]
        return torch.cat([grad.flatten() for grad in grads if grad is not None])

    # What DistributedDataParallel makes of them is the mean.
    shares = torch.stack([gradient(rank, 3) for rank in range(3)]).mean(0)
    torch.testing.assert_close(shares, gradient(0, 1), rtol=1e-4, atol=1e-6)


def test_an_empty_shard_is_filled_by_a_photo_of_weight_zero() -> None:
    trainer = make_trainer(settings=replace(SETTINGS, batch_size=2), train=photos(4))
    trainer.config = replace(
        trainer.config, process_group=replace(trainer.config.process_group, rank=3, size=4)
    )
    for batch in trainer.batches(1):
        assert len(batch.x) == 1
        assert batch.weights.tolist() == [0.0]
        assert batch.num_photos == 2


def test_auto_precision_is_fp32_on_a_cpu_and_fp16_needs_a_gpu() -> None:
    assert pick_precision("auto", CPU) is torch.float32
    assert pick_precision("bf16", CPU) is torch.bfloat16
    with pytest.raises(ValueError, match=r"fp16.*choose auto"):
        pick_precision("fp16", CPU)


def test_a_restored_state_continues_bit_by_bit(tmp_path: Path) -> None:
    model_config = replace(MODEL_CONFIG, arguments={"widths": (8, 16), "drop_rate": 0.3})
    uninterrupted = make_trainer(model_config)
    uninterrupted.model.to(memory_format=torch.channels_last)
    for epoch in (1, 2):
        run_epoch(uninterrupted, epoch)
    checkpoints.save(tmp_path / "state.pt", uninterrupted.state_dict())
    run_epoch(uninterrupted, 3)
    torch.manual_seed(5)
    resumed = make_trainer(model_config)
    resumed.model.to(memory_format=torch.channels_last)
    resumed.load_state_dict(checkpoints.load(tmp_path / "state.pt"), 2)
    run_epoch(resumed, 3)
    for name, tensor in uninterrupted.model.state_dict().items():
        assert resumed.model.state_dict()[name].equal(tensor), name
