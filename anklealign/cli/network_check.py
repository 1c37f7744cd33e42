"""Build the selected networks once, to refuse before a run what train would refuse.

Nothing is downloaded: a network whose weights are on timm's hub is built with random ones.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from anklealign.config import params
from anklealign.config.params import Dataset, Model, Prepare, Train
from anklealign.explainability import attribution
from anklealign.models import bundle, factory, inputs, weights
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing
from anklealign.training import trainer
from anklealign.training.trainer import FitConfig


def errors(raw: Mapping[str, Any]) -> list[str]:
    """Return one line for each reason why train would refuse its device or a network."""
    settings = params.section(raw, "train", Train)
    try:
        device = inputs.pick_device(settings.device)
    except ValueError as error:
        return [f"params.yaml: train.{error}"]
    try:
        trainer.pick_precision(settings.precision, device)
    except ValueError as error:
        return [f"params.yaml: {error}"]
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and settings.num_processes > gpus:
        return [
            (
                f"params.yaml: train.num_processes = {settings.num_processes}: each needs a GPU, "
                f"and this machine has {gpus}; lower it, or set train.device: cpu"
            )
        ]
    dataset, prepare = params.dataset(raw)[1], params.section(raw, "prepare", Prepare)
    found = []
    for name, config in params.models(raw).items():
        try:
            _check(name, config, dataset, prepare, settings)
        except ValueError as error:
            where = "" if str(error).startswith("params.yaml") else f"params.yaml: models.{name}: "
            found.append(f"{where}{error}")
    return found


def _check(name: str, config: Model, dataset: Dataset, prepare: Prepare, settings: Train) -> None:
    """Build a network, explain a photo and prepare its fit.

    Raises:
        ValueError: One of them fails.
    """
    if config.ordinal_head and settings.loss == "bce":
        raise ValueError(
            "ordinal_head gives log probabilities, which train.loss = 'bce' cannot use; set "
            "train.loss: cross_entropy"
        )
    here = config.pretrained and weights.find_file(config) is not None
    imagenet = dataset.imagenet_indices()
    classes = tuple(dataset.classes)
    network = factory.build(name, config if here else _random(config), len(classes), imagenet)
    input_config = bundle.default_input(network, config.image_size)
    preprocessing = Preprocessing(prepare.size, dataset.fit, prepare.fill, prepare.max_megapixels)
    try:
        attribution.check(Bundle(classes, preprocessing, input_config, 1.0, 0.0, {}, model=network))
    except ValueError as error:
        raise ValueError(f"{config.architecture}: {error}; choose another architecture") from None
    fit = FitConfig(input_config, len(classes), config, settings, 0, torch.device("cpu"))
    if config.frozen:
        factory.freeze(network, config.unfreeze_last_n)
    head = trainer.separate_head(network, fit)
    fitted_head = config.logistic_regression and not (config.imagenet_head and imagenet)
    if fitted_head and not isinstance(head, nn.Linear):
        raise ValueError(
            f"logistic_regression needs a network that ends in one linear layer, but "
            f"{config.architecture} does not; use head_epochs, or epochs with frozen"
        )
    if config.epochs:
        trainer._make_optimizer(head or network, fit)  # noqa: SLF001 - as a fit makes it


def _random(config: Model) -> Model:
    """Return a config of the same network with random weights."""
    return Model(
        config.architecture,
        config.image_size,
        epochs=0,
        learning_rate=0.0,
        head_hidden_dim=config.head_hidden_dim,
        head_hidden_layers=config.head_hidden_layers,
        head_drop_rate=config.head_drop_rate,
        ordinal_head=config.ordinal_head,
        arguments=config.arguments,
    )
