"""A step is what params.yaml says, and neither parts nor layers nor layout change what it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from anklealign.config.params import Augmentation, Model, Train
from anklealign.models import bundle, factory
from anklealign.training.sampling import Photos
from anklealign.training.trainer import Recipe, Trainer, pick_precision

CPU = torch.device("cpu")
SETTINGS = Train(
    device="cpu", precision="fp32", batch_size=8, patience=50, monitor="accuracy",
    label_smoothing=0.0, weight_decay=0.01,
    augmentation=Augmentation(
        crop=0.1, mirror=True, rotation=0.0, brightness=0.1, contrast=0.1, saturation=0.1
    ),
)  # fmt: skip
BLOCK = Model(
    "anklealign_cnn", image_size=32, epochs=4, learning_rate=0.01,
    arguments={"widths": (8, 16), "norm": False},
)  # fmt: skip


def photos(count: int = 20, seed: int = 0) -> Photos:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.integers(60, 120, (count, 32, 32, 3), np.uint8)
    for i, label in enumerate(labels):
        pixels[i, 10 * label : 10 * label + 10] += 100
    return Photos(pixels, np.arange(count), tuple(f"{i:012x}" for i in range(count)), labels)


def ready(block: Model = BLOCK, settings: Train = SETTINGS, train: Photos | None = None) -> Trainer:
    torch.manual_seed(0)
    built = replace(block, pretrained=False, frozen=False, last_blocks=0)
    model = factory.build("x", built, 2)
    recipe = Recipe(bundle.input_of(model, block.image_size), 2, block, settings, 1, CPU)
    return Trainer(model, train or photos(), photos(6, 1), recipe)


def after(epochs: int, block: Model = BLOCK, **changes: object) -> dict[str, torch.Tensor]:
    made = ready(block, replace(SETTINGS, **changes))
    for epoch in range(1, epochs + 1):
        made.run(epoch)
    return {name: t.clone() for name, t in made.model.state_dict().items()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_a_batch_in_parts_is_the_same_step() -> None:
    whole = after(2)
    for parts in (2, 3, 100):
        # AdamW divides by small numbers: the last digit of a sum may become the fifth of a weight.
        assert distance(after(2, accumulation=parts), whole) < 1e-4
    assert distance(after(2, batch_size=4), whole) > 1e-3


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb", "lion", "nadamw", "rmsproptf"])
def test_timm_s_optimizers_learn(optimizer: str) -> None:
    made = ready(replace(BLOCK, learning_rate=0.003), replace(SETTINGS, optimizer=optimizer))
    first = made.run(1)
    for epoch in (2, 3, 4):
        last = made.run(epoch)
    assert last < first


def test_an_optimizer_s_own_arguments_reach_it_and_wrong_ones_are_named() -> None:
    how = {"betas": (0.8, 0.98), "eps": 1e-6}
    made = ready(settings=replace(SETTINGS, optimizer_arguments=how))
    assert {key: made.optimiser.param_groups[0][key] for key in how} == how
    with pytest.raises(ValueError, match=r"'adamw' with optimizer_arguments .*'gamma'.* change"):
        ready(settings=replace(SETTINGS, optimizer_arguments={"gamma": 1.0}))


@pytest.mark.parametrize(
    ("optimizer", "argument"), [("adamw", {"momentum": 0.95}), ("sgd", {"betas": (0.9, 0.98)})]
)
def test_an_argument_that_the_optimizer_would_not_heed_is_refused(
    optimizer: str, argument: dict[str, float]
) -> None:
    how = replace(SETTINGS, optimizer=optimizer, optimizer_arguments=argument)
    with pytest.raises(ValueError, match=rf"'{optimizer}' with .*'{next(iter(argument))}'"):
        ready(settings=how)


def test_whole_numbers_and_names_reach_an_optimizer_as_they_are() -> None:
    how = {"ns_steps": 3, "adjust_lr_fn": "match_rms_adamw"}
    made = ready(settings=replace(SETTINGS, optimizer="muon", optimizer_arguments=how))
    assert {key: made.optimiser.param_groups[0][key] for key in how} == how
    assert np.isfinite(made.run(1))


def test_an_unknown_optimizer_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"train\.optimizer = 'adamv' .*choose one of: .*adamw"):
        ready(settings=replace(SETTINGS, optimizer="adamv"))


def rates(block: Model = BLOCK, **changes: object) -> list[float]:
    made = ready(replace(block, epochs=10), replace(SETTINGS, warmup=0.2, **changes))
    found = []
    for step in range(10 * made.steps_an_epoch):
        made.scheduler.step_update(step)
        found.append(made.optimiser.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("scheduler", ["cosine", "poly", "tanh", "wsd", "rsqrt", "constant"])
def test_every_schedule_warms_up_and_all_but_the_constant_end_near_nothing(scheduler: str) -> None:
    found = rates(scheduler=scheduler)
    assert len(found) == 30
    assert 0 < found[0] < found[3] < max(found)
    assert max(found) == pytest.approx(0.01, rel=0.15)
    assert found.index(max(found)) in {5, 6}
    if scheduler == "constant":
        assert found[-1] == pytest.approx(0.01)
    else:
        assert 0 < found[-1] < 0.002


def test_steps_in_the_rate_come_at_their_shares_of_the_run() -> None:
    found = rates(scheduler="multistep", decay_at=(0.5, 0.8), decay_rate=0.2)
    # timm's milestone m applies from step m - 1 on.
    assert found[6:14] == pytest.approx([0.01] * 8)
    assert found[14:23] == pytest.approx([0.002] * 9)
    assert found[23:] == pytest.approx([0.0004] * 7)


def test_layers_before_the_last_learn_slower_by_the_decay() -> None:
    made = ready(replace(BLOCK, layer_decay=0.5))
    made.scheduler.step_update(5)
    names = {id(p): name for name, p in made.model.named_parameters()}
    found = {
        names[id(p)]: group["lr"] / made.recipe.block.learning_rate
        for group in made.optimiser.param_groups
        for p in group["params"]
    }
    assert found["head.weight"] == pytest.approx(2 * found["stages.1.0.weight"])
    assert found["stages.1.0.weight"] == pytest.approx(2 * found["stages.0.0.weight"])


def test_biases_and_norms_are_spared_the_decay() -> None:
    made = ready(replace(BLOCK, arguments={"widths": (8, 16)}))
    spared = [g["params"] for g in made.optimiser.param_groups if g["weight_decay"] == 0]
    assert {p.ndim for group in spared for p in group} == {1}


def test_a_long_gradient_is_cut_to_its_limit() -> None:
    def moved(limit: float) -> float:
        made = ready(settings=replace(plain, clip_gradient=limit))
        before = made.model.head.weight.detach().clone()
        made.learn(next(made.batches(1)))
        return float((made.model.head.weight.detach() - before).norm())

    plain = replace(SETTINGS, optimizer="sgd", warmup=0.0, weight_decay=0.0)
    # One step of momentum is one step; Nesterov's looks 0.9 of one ahead.
    assert 0 < moved(1e-4) <= 1.9e-4 * BLOCK.learning_rate * 1.01
    assert moved(0.0) > 100 * moved(1e-4)


@pytest.mark.parametrize("everywhere", [False, True])
def test_batch_statistics_stay_where_they_are_told_to(everywhere: bool) -> None:
    block = replace(BLOCK, arguments={"widths": (8, 16)}, freeze_batch_norm=everywhere)
    made = ready(block)
    before = made.model.stages[0][1].running_mean.clone()
    weight = made.model.stages[0][1].weight.detach().clone()
    made.run(1)
    assert made.model.stages[0][1].running_mean.equal(before) == everywhere
    assert not made.model.stages[0][1].weight.equal(weight)


def test_the_last_blocks_learn_and_the_rest_keeps_weights_and_statistics() -> None:
    block = replace(
        BLOCK, arguments={"widths": (8, 16), "depth": 2}, pretrained=True, frozen=True,
        last_blocks=1,
    )  # fmt: skip
    made = ready(block)
    before = {name: t.clone() for name, t in made.model.state_dict().items()}
    made.run(1)
    changed = {n for n, t in made.model.state_dict().items() if not t.equal(before[n])}
    assert changed == {
        "head.weight", "head.bias", "stages.1.3.weight", "stages.1.4.weight", "stages.1.4.bias",
        "stages.1.4.running_mean", "stages.1.4.running_var", "stages.1.4.num_batches_tracked",
    }  # fmt: skip


def test_more_blocks_than_there_are_is_an_error() -> None:
    block = replace(BLOCK, pretrained=True, frozen=True, last_blocks=99)
    with pytest.raises(ValueError, match=r"last_blocks = 99, but the network has \d+; lower"):
        ready(block)


def test_weights_and_sampler_both_lift_a_rare_class() -> None:
    few = photos(20)
    rare = replace(few, labels=np.array([0] * 18 + [1] * 2))
    by_weights = ready(train=rare)
    assert by_weights.weights[-1] == pytest.approx(5.0)
    by_sampler = ready(settings=replace(SETTINGS, balance="sampler"), train=rare)
    shown = torch.cat([batch.targets for batch in by_sampler.batches(1)])
    assert shown.sum(0).tolist() == [10, 10]
    assert by_sampler.weights.tolist() == [1.0] * 20
    neither = ready(settings=replace(SETTINGS, balance="none"), train=rare)
    assert neither.weights.tolist() == [1.0] * 20


def test_what_annotators_said_is_what_is_learned() -> None:
    few = photos(8)
    soft = replace(few, soft=np.full((8, 2), 0.5))
    made = ready(replace(BLOCK, epochs=12), train=soft)
    for epoch in range(1, 13):
        made.run(epoch)
    with torch.no_grad():
        shares = torch.from_numpy(made.answers(made.validation)).softmax(1)
    assert (shares - 0.5).abs().max() < 0.1


def test_another_process_s_share_is_the_other_half_of_every_batch() -> None:
    made = ready()
    made.recipe = replace(made.recipe, world=replace(made.recipe.world, size=1))
    whole = [batch.x for batch in made.batches(1)]
    halves = []
    for rank in (0, 1):
        made.recipe = replace(made.recipe, world=replace(made.recipe.world, rank=rank, size=2))
        halves.append([batch.x for batch in made.batches(1)])
    for all_of_it, even, odd in zip(whole, *halves, strict=True):
        torch.testing.assert_close(all_of_it[0::2], even)
        torch.testing.assert_close(all_of_it[1::2], odd)


def test_the_shares_gradients_add_up_to_the_whole_s() -> None:
    def gradient(rank: int, size: int) -> torch.Tensor:
        made = ready(settings=replace(SETTINGS, optimizer="sgd", batch_size=7))
        made.recipe = replace(made.recipe, world=replace(made.recipe.world, rank=rank, size=size))
        made.learn(next(made.batches(1)))
        grads = [p.grad for p in made.model.parameters()]
        return torch.cat([grad.flatten() for grad in grads if grad is not None])

    # What DistributedDataParallel makes of them is the mean.
    shares = torch.stack([gradient(rank, 3) for rank in range(3)]).mean(0)
    torch.testing.assert_close(shares, gradient(0, 1), rtol=1e-4, atol=1e-6)


def test_a_process_without_a_photo_of_its_own_counts_for_nothing() -> None:
    made = ready(settings=replace(SETTINGS, batch_size=2), train=photos(4))
    made.recipe = replace(made.recipe, world=replace(made.recipe.world, rank=3, size=4))
    for batch in made.batches(1):
        assert len(batch.x) == 1
        assert batch.weights.tolist() == [0.0]
        assert batch.photos == 2


def test_precision_is_single_on_a_cpu_and_half_needs_a_gpu() -> None:
    assert pick_precision("auto", CPU) is torch.float32
    assert pick_precision("bf16", CPU) is torch.bfloat16
    with pytest.raises(ValueError, match=r"fp16.*choose auto"):
        pick_precision("fp16", CPU)


def test_a_state_taken_up_goes_on_bit_by_bit() -> None:
    block = replace(BLOCK, arguments={"widths": (8, 16), "drop_rate": 0.3})
    straight = ready(block)
    straight.model.to(memory_format=torch.channels_last)
    for epoch in (1, 2):
        straight.run(epoch)
    state = {
        key: {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in values.items()}
        for key, values in straight.state().items()
        if key != "optimiser"
    }
    moments = {
        n: {k: v.clone(memory_format=torch.contiguous_format) for k, v in values.items()}
        for n, values in straight.state()["optimiser"].items()
    }
    straight.run(3)
    torch.manual_seed(5)
    other = ready(block)
    other.model.to(memory_format=torch.channels_last)
    other.load(state | {"optimiser": moments}, 2)
    other.run(3)
    for name, tensor in straight.model.state_dict().items():
        assert other.model.state_dict()[name].equal(tensor), name
