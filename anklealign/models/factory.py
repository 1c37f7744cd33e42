"""The one factory for every architecture: timm's names, own networks, own heads, their weights.

Shapes: K classes.
"""

import difflib
import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from anklealign.config.params import Model
from anklealign.io import files
from anklealign.models.networks import IMAGENET_CLASSES


def build(
    name: str, block: Model, classes: int, imagenet: Sequence[Sequence[int]] = ()
) -> nn.Module:
    """Return a variant's network with K outputs, with its pretrained weights if it asks for them.

    Args:
        name: Of the block below `models` in params.yaml, for the errors.
        block: What to build.
        classes: K.
        imagenet: ImageNet's indices of each of the K classes, for `zero_shot` and `imagenet_head`.

    Raises:
        ValueError: The architecture is unknown, its arguments or its head do not fit, or its
            weights cannot be had: the file is missing, is another one than `weights_sha256`, does
            not hold this architecture's weights, or the hub cannot be reached.
    """
    where = f"params.yaml: models.{name}"
    if block.zero_shot and not imagenet:
        raise ValueError(
            f"{where}: zero_shot needs to know which of ImageNet's 1,000 classes each class is, "
            "and this dataset does not say; add datasets.<name>.imagenet, or choose another model"
        )
    arguments: dict[str, Any] = dict(block.arguments)
    from_imagenet = block.zero_shot or (block.imagenet_head and bool(imagenet))
    inner = IMAGENET_CLASSES if from_imagenet else classes
    config = _config(where, block.architecture)
    if config.get("fixed_input_size"):
        arguments.setdefault("img_size", block.image_size)
    random_state = torch.get_rng_state()
    try:
        model: nn.Module = timm.create_model(
            block.architecture, num_classes=inner, pretrained=False, **arguments
        )
    except Exception as error:  # noqa: BLE001 - timm's constructors raise what they please
        raise ValueError(
            f"{where}: {block.architecture} at {block.image_size} pixels with arguments "
            f"{json.dumps(arguments)} cannot be built: {_line(error)}; "
            "change arguments, image_size or architecture there"
        ) from None
    if not block.pretrained:
        return _with_head(where, model, block, classes, imagenet=imagenet, arguments=arguments)
    overlay = {"file": str(_checked(where, block))} if block.weights else None
    torch.set_rng_state(random_state)
    try:
        with _missing_keys() as keys:
            pretrained: nn.Module = timm.create_model(
                block.architecture,
                num_classes=inner,
                pretrained=True,
                pretrained_cfg_overlay=overlay,
                **arguments,
            )
        problem = _missing(model, pretrained, keys, whole=from_imagenet)
    except Exception as error:  # noqa: BLE001 - as above, and the hub's client adds its own
        problem = _line(error)
    if problem:
        other = "set pretrained: false to start from scratch"
        if from_imagenet:
            other = "leave zero_shot and imagenet_head out, which need ImageNet's classifier"
        source = (
            f"weights = {block.weights!r} does not fit {block.architecture}"
            if block.weights
            else f"the weights of {block.architecture} cannot be had from timm's hub"
        )
        raise ValueError(
            f"{where}: {source}: {problem}; give a file of its weights by weights: PATH and "
            f"weights_sha256, or {other}"
        )
    pretrained = _with_head(
        where, pretrained, block, classes, imagenet=imagenet, arguments=arguments
    )
    if not from_imagenet:
        _start_classifier(pretrained)
    elif block.imagenet_head:
        _take_classifier(where, pretrained, imagenet)
    return pretrained


def _with_head(
    where: str,
    model: nn.Module,
    block: Model,
    classes: int,
    *,
    imagenet: Sequence[Sequence[int]],
    arguments: dict[str, Any],
) -> nn.Module:
    """Return the network with the head that its block asks for, in a form that timm rebuilds."""
    if not (block.head_width or block.zero_shot):
        return model
    head = {"groups": imagenet} if block.zero_shot else {"width": block.head_width}
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    kept = ("mean", "std", "interpolation", "input_size", "fixed_input_size", "first_conv")
    try:
        other: nn.Module = timm.create_model(
            "anklealign_reheaded",
            backbone=block.architecture,
            num_classes=classes,
            pretrained_cfg_overlay={key: config[key] for key in kept if key in config},
            **head,
            **arguments,
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}; choose another architecture") from None
    state = model.state_dict()
    if block.zero_shot:  # the classifier became the first part of the new head
        last = model.get_classifier()  # type: ignore[operator]
        place = next(name for name, module in model.named_modules() if module is last)
        for name in last.state_dict():
            state[f"{place}.0.{name}"] = state.pop(f"{place}.{name}")
    wanted = other.state_dict()
    other.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)
    return other


def _start_classifier(model: nn.Module) -> None:
    """Let a new last layer on pretrained features start near nothing, whatever timm's default.

    The default of MobileNet and EfficientNet draws from -0.7 to 0.7 for two classes: over 1,280
    features that noise outweighs what a head can learn (ants/bees, frozen: 0.86 instead of 0.95).
    """
    layers = [
        module
        for module in model.get_classifier().modules()  # type: ignore[operator]
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    for layer in layers[-1:]:
        nn.init.trunc_normal_(layer.weight, std=0.01)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _take_classifier(where: str, model: nn.Module, imagenet: Sequence[Sequence[int]]) -> None:
    """Let a new last layer start as ImageNet's: for each of K classes the mean of its rows there.

    Wortsman et al., Robust fine-tuning of zero-shot models (2022), start from such a head too.

    Raises:
        ValueError: The network does not end in one linear layer.
    """
    last = model.get_classifier()  # type: ignore[operator]
    if not isinstance(last, nn.Linear):
        raise ValueError(
            f"{where}: it ends in {type(last).__name__} and not in one linear layer and takes no "
            "imagenet_head; leave that out"
        )
    model.reset_classifier(len(imagenet))  # type: ignore[operator]
    new = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        for k, indices in enumerate(imagenet):
            new.weight[k] = last.weight[list(indices)].mean(0)
            new.bias[k] = last.bias[list(indices)].mean()


@contextmanager
def _missing_keys() -> Iterator[list[str]]:
    """Yield what load_state_dict found missing in here; timm only logs it when classes differ."""
    keys: list[str] = []
    plain = nn.Module.load_state_dict

    def noting(module: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - PyTorch's
        found = plain(module, *args, **kwargs)
        keys.extend(found.missing_keys)
        return found

    nn.Module.load_state_dict = noting  # type: ignore[method-assign, assignment]
    try:
        yield keys
    finally:
        nn.Module.load_state_dict = plain  # type: ignore[method-assign]


def _missing(fresh: nn.Module, pretrained: nn.Module, keys: list[str], *, whole: bool) -> str:
    """Say which weights were not loaded; the classifier's may be, unless the `whole` is wanted.

    Besides `keys`, for loaders of an architecture's own: both models started from one random state,
    so what is still equal was never loaded. Vectors are left out there: norms start as ones and
    zeros, which a file may hold too.
    """
    head = set() if whole else _head(pretrained)
    started = dict(fresh.named_parameters())
    spared = {name for name, weight in pretrained.named_parameters() if id(weight) in head}
    same = {
        name
        for name, weight in pretrained.named_parameters()
        if weight.ndim > 1 and weight.equal(started[name])
    }
    lost = [n for n in pretrained.state_dict() if n in same.union(keys) - spared]
    return f"they lack {len(lost)} tensors, such as {lost[0]}" if lost else ""


def _config(where: str, architecture: str) -> dict[str, Any]:
    base, _, tag = architecture.partition(".")
    if not timm.is_model(base):
        near = difflib.get_close_matches(base, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() has the names"
        raise ValueError(f"{where}.architecture = {architecture!r} is no name of timm's; {hint}")
    try:
        config = timm.get_pretrained_cfg(architecture)
    except RuntimeError:
        known = ", ".join(timm.list_pretrained(f"{base}.*")) or base
        raise ValueError(
            f"{where}.architecture = {architecture!r}: timm has no weights tagged {tag!r}; "
            f"choose one of: {known}"
        ) from None
    return asdict(config) if config else {}


def _checked(where: str, block: Model) -> Path:
    path = Path(str(block.weights))
    if not path.is_file():
        raise ValueError(
            f"{where}.weights = {block.weights!r} is not there; put the file there (for queued "
            "runs and colleagues `dvc add` it too), or remove weights and weights_sha256 to fetch "
            "timm's from its hub"
        )
    found = files.sha256(path)
    if found != block.weights_sha256:
        raise ValueError(
            f"{where}.weights = {block.weights!r} has sha256 {found}, but weights_sha256 says "
            f"{block.weights_sha256}; put the right file there, or write its sha256 there"
        )
    return path


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    short = textwrap.shorten(text, 160, placeholder=" …")
    return f"{type(error).__name__}: {short}" if text else type(error).__name__


def freeze(model: nn.Module, last_blocks: int = 0) -> None:
    """Let the head alone learn, or with it the last blocks, as timm counts a network's layers.

    A layer of a norm alone is no block, but learns with the one before it.

    Raises:
        ValueError: The network has fewer blocks.
    """
    head = _head(model)
    layers = timm.models.group_parameters(model, model.group_matcher(), reverse=True)  # type: ignore[operator]
    blocks = sorted(
        {layers[n] for n, p in model.named_parameters() if id(p) not in head and p.ndim > 1}
    )
    if last_blocks > len(blocks):
        raise ValueError(
            f"last_blocks = {last_blocks}, but the network has {len(blocks)}; lower it, or set "
            "frozen: false to train all of it"
        )
    first = blocks[-last_blocks] if last_blocks else math.inf
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) in head or layers[name] >= first)


def hold_batch_norm(model: nn.Module, *, everywhere: bool) -> None:
    """Put batch norms whose weights are frozen, or all, into answering mode: statistics stay."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - as timm finds them
            learns = any(p.requires_grad for p in module.parameters())
            if everywhere or not learns:
                module.eval()


def _head(model: nn.Module) -> set[int]:
    return {id(p) for p in model.get_classifier().parameters()}  # type: ignore[operator]


def parameters(model: nn.Module) -> int:
    """Return how many weights a model has, frozen ones included."""
    return sum(p.numel() for p in model.parameters())
