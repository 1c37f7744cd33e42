"""Compare ways to fine-tune a small pretrained network, over folds of sets of photos.

    python -m benchmarks.fine_tuning ants_bees=DIR flowers=DIR --photos 300 --folds 2

The network is `lite0` of params.yaml. Each fold in turn is test, the next one validation, and the
rest is train; every technique is one change to `lite0` and runs through the project's own stages.
EMA, mixup, cutmix and TrivialAugment are subclasses of the project's `Trainer`. A row has the mean
over sets and folds, and the mean difference to `lite0` with its standard error over sets and folds.
A positive difference of the accuracy and a negative one of the log loss are better. The
ensemble is `lite0` with the seed of params.yaml and the next two; `lite0, another seed` is the
second of them alone, and shows how much of a difference is luck.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import pandas as pd
import torch
from ruamel.yaml import YAML
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms.v2 import TrivialAugmentWide

from anklealign.config import paths
from anklealign.models.input_config import Floats
from anklealign.training import loop
from anklealign.training.augmentation import Draws
from anklealign.training.sampling import LabeledPhotos
from anklealign.training.trainer import Batch, Trainer
from benchmarks import auto
from benchmarks.seeds import run_quietly
from stages import clean, prepare, split, train

BASELINE = "lite0"
SECOND_SEED = "lite0, another seed"
EMA_DECAY = 0.95  # the mean of some 20 steps; a fold of 300 photos has 24 in four epochs
SEEDS = (2, 3)  # of the ensemble, besides the seed of params.yaml


class Ema(Trainer):
    """Validate, and keep, an exponential moving average of the weights."""

    average: AveragedModel | None = None
    current: dict[str, Tensor] | None = None  # weights of the last step

    def start_epoch(self, epoch: int) -> None:
        """Continue from the weights of the last step."""
        if self.current is not None:
            self.learner.load_state_dict(self.current)
        super().start_epoch(epoch)

    def step(self) -> None:
        """Update the weights, and their average."""
        super().step()
        if self.average is None:
            update = get_ema_multi_avg_fn(EMA_DECAY)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.learner, multi_avg_fn=update, use_buffers=True)
        self.average.update_parameters(self.learner)

    def predict(self, photos: LabeledPhotos) -> Floats:
        """Return the logits of the average, which `History` then copies: (N, K)."""
        if self.average is not None:
            self.current = {k: v.clone() for k, v in self.learner.state_dict().items()}
            self.learner.load_state_dict(self.average.module.state_dict())
        return super().predict(photos)


class Mixup(Trainer):
    """Mix each batch with itself in reverse, by a share from Beta(0.2, 0.2)."""

    alpha: ClassVar[float] = 0.2

    def mix(self, x: Tensor, share: float, _rng: np.random.Generator) -> tuple[Tensor, float]:
        """Return the mixed photos (B, 3, H, H), and the share of the first of each pair."""
        return x * share + x.flip(0) * (1 - share), share

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield mixed batches."""
        rng = np.random.default_rng([self.config.seed, epoch])
        for batch in super().batches(epoch):
            x, share = self.mix(batch.x, float(rng.beta(self.alpha, self.alpha)), rng)
            targets = batch.targets * share + batch.targets.flip(0) * (1 - share)
            yield replace(batch, x=x, targets=targets)


class Cutmix(Mixup):
    """Paste a square of the reversed batch, of a share from Beta(1, 1) of the area."""

    alpha = 1.0

    def mix(self, x: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
        """Return the photos with the square of the other, and the share of the first of each."""
        size = x.shape[-1]
        side = round(size * (1 - share) ** 0.5)
        top, left = rng.integers(size - side + 1, size=2)
        down, across = slice(top, top + side), slice(left, left + side)
        mixed = x.clone()
        mixed[..., down, across] = x.flip(0)[..., down, across]
        return mixed, 1 - (side / size) ** 2


class ColorOnly(TrivialAugmentWide):  # type: ignore[misc]
    """TrivialAugment (https://arxiv.org/abs/2103.10158) without its changes of geometry."""

    _AUGMENTATION_SPACE: ClassVar = {
        key: value
        for key, value in TrivialAugmentWide._AUGMENTATION_SPACE.items()  # noqa: SLF001
        if not key.startswith(("Shear", "Translate", "Rotate"))
    }


class TrivialAugment(Trainer):
    """Change the color of every photo by one random operation of a random strength."""

    def _to_input(self, crops: Tensor, draws: Draws) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(int(draws[0, 0] * 2**31))
            changed = torch.stack([ColorOnly()(crop) for crop in crops])
        return super()._to_input(changed, draws)


@dataclass(frozen=True)
class Change:
    """Changed keys of the model config and of `train`, and the trainer."""

    model: Mapping[str, object] = field(default_factory=dict)
    train: Mapping[str, object] = field(default_factory=dict)
    trainer: type[Trainer] = Trainer


TECHNIQUES = {
    BASELINE: Change(),
    SECOND_SEED: Change(train={"seed": SEEDS[0]}),
    "one learning rate for all layers": Change(model={"layer_decay": 1.0}),
    "label smoothing 0.1": Change(train={"label_smoothing": 0.1}),
    "EMA of the weights": Change(trainer=Ema),
    "mixup": Change(trainer=Mixup),
    "cutmix": Change(trainer=Cutmix),
    "TrivialAugment, colors only": Change(trainer=TrivialAugment),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="techniques of fine-tuning a pretrained network")
    parser.add_argument("data", nargs="+", metavar="NAME=DIR", help="a folder of class folders")
    parser.add_argument("--photos", type=int, default=300, help="random photos of each set")
    parser.add_argument("--image-size", type=int, default=128, help="px")
    parser.add_argument("--folds", type=int, default=2, help="folds that are tested, of five")
    options = parser.parse_args()
    options.models = [BASELINE]
    rows = []
    for item in options.data:
        name, _, folder = item.partition("=")
        with tempfile.TemporaryDirectory(prefix="fine-tuning-") as work:
            auto.copy_photos(Path(folder).resolve(), Path(work, "data/raw", name), options)
            os.chdir(work)
            rows += compare(name, options)
            os.chdir(auto.ROOT)
    print_table(pd.DataFrame(rows))


def compare(name: str, options: argparse.Namespace) -> list[dict[str, object]]:
    """Return the scores of each technique on each fold of a set."""
    auto.write_params(name, options, BASELINE, 0)
    run_quietly(prepare.main)
    run_quietly(clean.main)
    rows: list[dict[str, object]] = []
    for fold in range(options.folds):
        auto.write_params(name, options, BASELINE, fold)
        run_quietly(split.main)
        tables = {
            technique: predict(name, options, fold, change)
            for technique, change in TECHNIQUES.items()
        }
        last = predict(name, options, fold, Change(train={"seed": SEEDS[-1]}))
        members = [tables[BASELINE], tables[SECOND_SEED], last]
        tables["ensemble of three seeds"] = sum(members[1:], members[0]) / len(members)
        for technique, table in tables.items():
            rows.append({"set": name, "fold": fold, "technique": technique} | scores(table))
        print(f"{name}, fold {fold}", flush=True)
    return rows


def predict(name: str, options: argparse.Namespace, fold: int, change: Change) -> pd.DataFrame:
    """Train one variant; return its calibrated probabilities of the test photos, (N, K) by id."""
    auto.write_params(name, options, BASELINE, fold)
    yaml = YAML(typ="safe", pure=True)
    raw = yaml.load(Path("params.yaml").read_text(encoding="utf-8"))
    raw["models"][BASELINE] |= change.model
    raw["train"] |= change.train
    with Path("params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(raw, stream)
    with mock.patch.object(loop, "Trainer", change.trainer):
        run_quietly(train.main)
    table = pd.read_csv(paths.REPEATS, dtype={"id": str}).set_index("id").sort_index()
    return table.filter(regex="^p_")


def scores(table: pd.DataFrame) -> dict[str, float]:
    """Return accuracy and log loss of probabilities, (N, K) by id."""
    labels = pd.read_csv(paths.SPLIT / "photos.csv", dtype={"id": str}).set_index("id").label
    classes = [str(column).removeprefix("p_") for column in table]
    actual = labels[table.index].map(classes.index).to_numpy()
    values = table.to_numpy()
    chosen = values[np.arange(len(actual)), actual]
    return {
        "accuracy": float((values.argmax(1) == actual).mean()),
        "log loss": float(-np.log(np.maximum(chosen, 1e-6)).mean()),
    }


def print_table(table: pd.DataFrame) -> None:
    """Print the mean scores, and the differences to the baseline over sets and folds."""
    print("| technique | accuracy | difference | log loss | difference |\n|---|---|---|---|---|")
    wide = table.pivot_table(index=["set", "fold"], columns="technique")
    for name in dict.fromkeys(table.technique):
        cells = []
        for score in ("accuracy", "log loss"):
            difference = wide[score][name] - wide[score][BASELINE]
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            mean = wide[score][name].mean()
            cells += [f"{mean:.3f}", f"{difference.mean():+.3f} ± {error:.3f}"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
