"""A fit as a person follows it: what it will take before, a bar, and a line an epoch."""

from pathlib import Path

from torch import nn
from tqdm import tqdm

from anklealign.models import factory
from anklealign.training import loop, resource_estimates
from anklealign.training.loop import Epoch, Fit
from anklealign.training.sampling import Photos, even_parts
from anklealign.training.trainer import Recipe, pick_precision


def fit(
    name: str,
    model: nn.Module,
    train: Photos,
    validation: Photos,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
) -> Fit:
    """Fit under a progress bar, with a printed line an epoch and what it will take before.

    As fitting.fit, whose errors it raises; only the first of several processes prints.
    """
    if recipe.world.rank:
        return loop.fit(model, train, validation, recipe, checkpoint=checkpoint)
    epochs = recipe.block.epochs
    an_epoch = len(even_parts(len(train.rows), recipe.settings.batch_size))
    print(
        f"train: {name} with {factory.parameters(model):,} parameters on "
        f"{len(train.rows)} photos, {len(validation.rows)} for validation, on {recipe.device}"
        + (f" in {recipe.world.size} processes" if recipe.world.size > 1 else "")
    )
    if epochs:
        print(f"train: {expected_memory(model, recipe)}")
    if checkpoint is not None and checkpoint.is_file():
        print(f"train: goes on from {checkpoint}")
    elif recipe.block.head_epochs:
        print(f"train: first the head alone, for up to {recipe.block.head_epochs} epochs")
    clock, done = resource_estimates.Clock(), 0
    with tqdm(total=epochs * an_epoch, unit="step", desc=name, disable=None, leave=False) as bar:

        def report(epoch: Epoch | None) -> None:
            nonlocal done
            before = done
            if epoch is None:
                done += 1
                each = clock.tick()
                if each is not None:
                    left = resource_estimates.in_words(each * (epochs * an_epoch - done))
                    tqdm.write(f"train: at most {left} to go, and validation")
            else:
                done = epoch.epoch * an_epoch
                tqdm.write(
                    f"epoch {epoch.epoch:3d} of {epochs}  train loss {epoch.train_loss:.3f}  "
                    f"val loss {epoch.val_loss:.3f}  accuracy {epoch.val_accuracy:.3f}  "
                    f"balanced {epoch.val_balanced_accuracy:.3f}  macro F1 {epoch.val_macro_f1:.3f}"
                )
            bar.update(done - before)

        return loop.fit(model, train, validation, recipe, report, checkpoint=checkpoint)


def expected_memory(model: nn.Module, recipe: Recipe) -> str:
    """Say what a process is expected to take for the network."""
    try:
        return f"some {expected_bytes(model, recipe) / 2**20:,.0f} MiB of memory a process"
    except Exception as error:  # noqa: BLE001 - no estimate is worth a fit
        return f"how much memory it takes cannot be said ({type(error).__name__})"


def expected_bytes(model: nn.Module, recipe: Recipe) -> int:
    """Return the bytes that a process is expected to take for the network."""
    settings, block = recipe.settings, recipe.block
    if block.frozen:
        factory.freeze(model, block.last_blocks)
    learner = model.get_classifier() if block.head_alone else model  # type: ignore[operator]
    photos_at_once = -(-settings.batch_size // (recipe.world.size * settings.accumulation))
    precision = pick_precision(settings.precision, recipe.device)
    return resource_estimates.memory(
        model, learner, block.image_size, photos_at_once, precision.itemsize
    )
