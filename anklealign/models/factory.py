"""Build any network by its timm name, with its head and its pretrained weights.

Shapes: K classes.
"""

import difflib
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from anklealign.config.params import Model
from anklealign.models import weights
from anklealign.models.input_config import PHOTO_CHANNELS
from anklealign.models.networks import IMAGENET_CLASSES

ONEDNN_BLOCK = 16  # channels that oneDNN computes at a time with AVX-512, 8 with AVX2


def build(
    name: str, config: Model, classes: int, imagenet: Sequence[Sequence[int]] = ()
) -> nn.Module:
    """Return the network of a model config with K outputs, and its pretrained weights if set.

    Args:
        name: Key of the model config below `models` in params.yaml, for error messages.
        config: Architecture, head and weights.
        classes: K.
        imagenet: ImageNet class indices of each of the K classes, for `zero_shot` and
            `imagenet_head`.

    Raises:
        ValueError: The architecture is unknown, its arguments or its head do not fit, or its
            weights cannot be loaded: the file is missing, does not match `weights_sha256` or does
            not fit the architecture, or the hub cannot be reached.
    """
    where = f"params.yaml: models.{name}"
    if config.zero_shot and not imagenet:
        raise ValueError(
            f"{where}: zero_shot requires the ImageNet indices of each class, and this dataset "
            "defines none; add datasets.<name>.imagenet, or choose another model"
        )
    if config.arguments.get("in_chans", 3) not in PHOTO_CHANNELS:
        raise ValueError(
            f"{where}.arguments.in_chans = {config.arguments['in_chans']}: photos have three "
            "channels; use 3, or 1 for gray photos"
        )
    keep_imagenet_head = config.zero_shot or (config.imagenet_head and bool(imagenet))
    arguments: dict[str, Any] = dict(config.arguments)
    if _timm_config(where, config.architecture).get("fixed_input_size"):
        arguments.setdefault("img_size", config.image_size)
    outputs = IMAGENET_CLASSES if keep_imagenet_head else classes
    random_state = torch.get_rng_state()
    model = _create_random(where, config, arguments, outputs)
    if config.pretrained:
        torch.set_rng_state(random_state)
        model = _create_pretrained(
            where, config, arguments, outputs, random=model, whole=keep_imagenet_head
        )
    if config.new_head or config.zero_shot:
        model = _replace_head(where, model, config, arguments, classes=classes, imagenet=imagenet)
    if config.pretrained and not keep_imagenet_head:
        _init_classifier_small(model)
    elif config.pretrained and config.imagenet_head:
        _init_classifier_from_imagenet(where, model, imagenet)
    _check_output(where, model, config, classes)
    _avoid_overflow(model)
    return model


def _avoid_overflow(model: nn.Module) -> None:
    """Replace the stride of 1 x 1 convolutions of few channels by a slice of their input.

    oneDNN's gradient of the weights of such a layer is written past its buffer if the map is
    channels-last: the process aborts, or the gradient is wrong (uxlfoundation/oneDNN, issue 6035).
    The stems of FastViT, MobileOne and RepVGG have one.
    """
    for layer in model.modules():
        if (
            type(layer) is nn.Conv2d
            and layer.kernel_size == (1, 1)
            and layer.padding == (0, 0)
            and max(layer.stride) > 1
            and layer.in_channels < ONEDNN_BLOCK
        ):
            layer.register_forward_pre_hook(partial(_sliced, stride=layer.stride))
            layer.stride = (1, 1)


def _sliced(_: nn.Module, inputs: tuple[Tensor], stride: tuple[int, ...]) -> Tensor:
    """Return every n-th row and column: (N, C, H, W) -> (N, C, ceil(H / n), ceil(W / n))."""
    rows, columns = stride
    return inputs[0][:, :, ::rows, ::columns]


def _check_output(where: str, model: nn.Module, config: Model, classes: int) -> None:
    """Run the network once, before hours of training.

    Raises:
        ValueError: The network does not map photos to K logits.
    """
    channels = int(config.arguments.get("in_chans", 3))  # type: ignore[arg-type]
    x = torch.zeros(1, channels, config.image_size, config.image_size)
    try:
        with torch.no_grad():
            model.eval()
            output = model.forward_head(model.forward_features(x))  # type: ignore[operator]
        problem = "" if tuple(output.shape) == (1, classes) else f"its output is {output.shape}"
    except Exception as error:  # noqa: BLE001 - networks raise any exception type
        problem = _one_line(error)
    model.train()
    if problem:
        raise ValueError(
            f"{where}: {config.architecture} does not classify photos of {config.image_size} "
            f"pixels into {classes} classes: {problem}; change image_size or architecture there"
        )


def _timm_config(where: str, architecture: str) -> dict[str, Any]:
    """Return timm's pretrained config of an architecture, empty where timm has none.

    Raises:
        ValueError: timm has no such architecture, or no such weights tag.
    """
    base, _, tag = architecture.partition(".")
    if not timm.is_model(base):
        similar = difflib.get_close_matches(base, timm.list_models(), n=3)
        hint = (
            f"did you mean {' or '.join(similar)}?"
            if similar
            else "see timm.list_models() for the valid names"
        )
        raise ValueError(f"{where}.architecture = {architecture!r} is not a timm model; {hint}")
    try:
        config = timm.get_pretrained_cfg(architecture)
    except RuntimeError:
        known = ", ".join(timm.list_pretrained(f"{base}.*")) or base
        raise ValueError(
            f"{where}.architecture = {architecture!r}: timm has no weights tagged {tag!r}; "
            f"choose one of: {known}"
        ) from None
    return asdict(config) if config else {}


def _create_random(
    where: str, config: Model, arguments: Mapping[str, Any], outputs: int
) -> nn.Module:
    """Return the network with random weights.

    Raises:
        ValueError: timm cannot build it with these arguments.
    """
    try:
        model: nn.Module = timm.create_model(
            config.architecture, num_classes=outputs, pretrained=False, **arguments
        )
    except Exception as error:  # noqa: BLE001 - timm's constructors raise any exception type
        raise ValueError(
            f"{where}: {config.architecture} at {config.image_size} pixels with arguments "
            f"{json.dumps(arguments)} cannot be built: {_one_line(error)}; "
            "change arguments, image_size or architecture there"
        ) from None
    return model


def _create_pretrained(
    where: str,
    config: Model,
    arguments: Mapping[str, Any],
    outputs: int,
    *,
    random: nn.Module,
    whole: bool,
) -> nn.Module:
    """Return the network with the weights of a file, or of timm's hub without one.

    Args:
        where: Position in params.yaml, for error messages.
        config: Architecture and weights.
        arguments: Arguments of the architecture.
        outputs: Number of logits.
        random: The same network with random weights drawn from the current random state.
        whole: Require the classifier's weights too.

    Raises:
        ValueError: The weights cannot be loaded, or lack tensors of the network.
    """
    path = weights.checked_file(where, config)
    if path is None and (problem := weights.missing(config)):
        raise ValueError(f"{where}: {problem}, or set pretrained: false to train from scratch")
    overlay: dict[str, Any] | None = None
    try:
        if path and weights.package_of(config):
            overlay = {"state_dict": _renamed_tensors(config.architecture, path)}
        elif path:
            overlay = {"file": str(path)}
        with _record_missing_keys() as keys:
            pretrained: nn.Module = timm.create_model(
                config.architecture,
                num_classes=outputs,
                pretrained=True,
                pretrained_cfg_overlay=overlay,
                **arguments,
            )
        # timm keeps what it loaded from; tensors do not belong in a config.
        pretrained.pretrained_cfg.pop("state_dict", None)  # type: ignore[operator, union-attr]
        missing = _missing_tensors(random, pretrained, keys, whole=whole)
        if not missing:
            return pretrained
        problem = f"{len(missing)} tensors are missing, such as {missing[0]}"
    except Exception as error:  # noqa: BLE001 - as above, and the hub's client adds its own
        problem = _one_line(error)
    source = (
        f"weights = {config.weights!r} does not fit {config.architecture}"
        if path
        else f"the weights of {config.architecture} cannot be downloaded from timm's hub"
    )
    alternative = (
        "remove zero_shot and imagenet_head, which need ImageNet's classifier"
        if whole
        else "set pretrained: false to train from scratch"
    )
    raise ValueError(
        f"{where}: {source}: {problem}; set weights: PATH and weights_sha256 to a file of its "
        f"weights, or {alternative}"
    )


def _renamed_tensors(architecture: str, path: Path) -> dict[str, Tensor]:
    """Return the tensors of another implementation's file by timm's names, matched in order.

    Raises:
        ValueError: The tensors differ in number or shape.
    """
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    expected = _tensor_shapes(architecture)
    if list(expected.values()) != [tensor.shape for tensor in tensors.values()]:
        raise ValueError(f"its {len(tensors)} tensors do not have the shapes of {architecture}")
    return dict(zip(expected, tensors.values(), strict=True))


@cache
def _tensor_shapes(architecture: str) -> dict[str, torch.Size]:
    """Return the names and shapes of an architecture's tensors; building one takes a second."""
    with torch.device("meta"):
        network: nn.Module = timm.create_model(architecture)
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@contextmanager
def _record_missing_keys() -> Iterator[list[str]]:
    """Yield a list that collects the missing keys of every load_state_dict in this context.

    timm only logs missing keys when the number of classes differs, and creates the model and loads
    its weights in one call, so no hook can be registered on the model in between; PyTorch has no
    global hook for load_state_dict. Creating the model with pretrained=False and loading the file
    here would need timm's private code that renames keys, adapts the first layer and the position
    embeddings, and reads .npz files.
    """
    keys: list[str] = []
    original = nn.Module.load_state_dict

    def recording(module: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - PyTorch's
        result = original(module, *args, **kwargs)
        keys.extend(result.missing_keys)
        return result

    nn.Module.load_state_dict = recording  # type: ignore[method-assign, assignment]
    try:
        yield keys
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]


def _missing_tensors(
    random: nn.Module, pretrained: nn.Module, keys: Sequence[str], *, whole: bool
) -> list[str]:
    """Return the names of the tensors that were not loaded.

    The classifier's are included only if `whole`. Some architectures have a loader of their own
    that reports no `keys`. Both networks start from one random state, so a tensor that is equal in
    both was not loaded. Vectors are not compared: norms start as ones and zeros, and a file may
    hold the same values.
    """
    head = set() if whole else _classifier_ids(pretrained)
    initial = dict(random.named_parameters())
    optional = {name for name, weight in pretrained.named_parameters() if id(weight) in head}
    unchanged = {
        name
        for name, weight in pretrained.named_parameters()
        if weight.ndim > 1 and weight.equal(initial[name])
    }
    return [n for n in pretrained.state_dict() if n in unchanged.union(keys) - optional]


def _replace_head(
    where: str,
    model: nn.Module,
    config: Model,
    arguments: Mapping[str, Any],
    *,
    classes: int,
    imagenet: Sequence[Sequence[int]],
) -> nn.Module:
    """Return the network with the config's head and its weights, in a form that timm can rebuild.

    Raises:
        ValueError: The network does not end in one linear layer.
    """
    # Only what differs from the default, as it becomes part of the bundle's config.
    options: dict[str, Any] = {
        "hidden_dim": config.head_hidden_dim,
        "hidden_layers": config.head_hidden_layers if config.head_hidden_layers > 1 else 0,
        "head_drop": config.head_drop_rate,
        "ordinal": config.ordinal_head,
    }
    head = {key: value for key, value in options.items() if value}
    if config.zero_shot:
        head = {"groups": imagenet}
    timm_config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    kept = ("mean", "std", "interpolation", "input_size", "fixed_input_size", "first_conv")
    try:
        reheaded: nn.Module = timm.create_model(
            "anklealign_reheaded",
            backbone=config.architecture,
            num_classes=classes,
            pretrained_cfg_overlay={key: timm_config[key] for key in kept if key in timm_config},
            **head,
            **arguments,
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}; choose another architecture") from None
    state = model.state_dict()
    if config.zero_shot:  # the classifier becomes the first layer of the new head
        last = model.get_classifier()  # type: ignore[operator]
        prefix = next(name for name, module in model.named_modules() if module is last)
        for name in last.state_dict():
            state[f"{prefix}.0.{name}"] = state.pop(f"{prefix}.{name}")
    expected = reheaded.state_dict()
    reheaded.load_state_dict({k: v for k, v in state.items() if k in expected}, strict=False)
    return reheaded


def _init_classifier_small(model: nn.Module) -> None:
    """Initialize the last layer close to zero, independent of timm's default.

    The default of MobileNet and EfficientNet draws from -0.7 to 0.7 for two classes. Over 1,280
    features this noise outweighs what a head can learn (ants/bees, frozen: accuracy 0.86 instead
    of 0.95).
    """
    for head in classifiers(model):
        layers = [m for m in head.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        for layer in layers[-1:]:
            nn.init.trunc_normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _init_classifier_from_imagenet(
    where: str, model: nn.Module, imagenet: Sequence[Sequence[int]]
) -> None:
    """Replace the ImageNet classifier by one of K classes.

    Each row is the mean of the class's ImageNet rows. Wortsman et al., Robust fine-tuning of
    zero-shot models (2022), also start from such a head.

    Raises:
        ValueError: The network does not end in one linear layer.
    """
    last = model.get_classifier()  # type: ignore[operator]
    if not isinstance(last, nn.Linear):
        raise ValueError(
            f"{where}: imagenet_head requires a network that ends in one linear layer, but this "
            f"one ends in {type(last).__name__}; remove imagenet_head"
        )
    model.reset_classifier(len(imagenet))  # type: ignore[operator]
    classifier = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        for k, indices in enumerate(imagenet):
            classifier.weight[k] = last.weight[list(indices)].mean(0)
            classifier.bias[k] = last.bias[list(indices)].mean()


def _one_line(error: Exception) -> str:
    """Return an exception's type and message, at most 160 characters of it."""
    text = " ".join(str(error).split())
    short = textwrap.shorten(text, 160, placeholder=" …")
    return f"{type(error).__name__}: {short}" if text else type(error).__name__


def freeze(model: nn.Module, unfreeze_last_n: int = 0) -> None:
    """Freeze all weights but those of the classifier and of the last blocks.

    Blocks are the layers that timm's `group_matcher` defines. A layer that holds only a norm does
    not count as a block; it is unfrozen together with the block before it.

    Args:
        model: A timm model.
        unfreeze_last_n: Number of last blocks to train.

    Raises:
        ValueError: The network has fewer blocks, or timm defines none of it.
    """
    head = _classifier_ids(model)
    layers: dict[str, int] = {}
    first = math.inf
    if unfreeze_last_n:
        if not hasattr(model, "group_matcher"):
            raise ValueError(
                f"unfreeze_last_n = {unfreeze_last_n}, but timm defines no blocks of "
                f"{type(model).__name__}; set it to 0, or frozen: false to train all weights"
            )
        layers = timm.models.group_parameters(model, model.group_matcher(), reverse=True)  # type: ignore[operator]
        blocks = sorted(
            {layers[n] for n, p in model.named_parameters() if id(p) not in head and p.ndim > 1}
        )
        if unfreeze_last_n > len(blocks):
            raise ValueError(
                f"unfreeze_last_n = {unfreeze_last_n}, but the network has {len(blocks)} blocks; "
                "lower it, or set frozen: false to train all of them"
            )
        first = blocks[-unfreeze_last_n]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) in head or layers.get(name, -1) >= first)


def freeze_batch_norm(model: nn.Module, *, everywhere: bool) -> None:
    """Put batch norms into evaluation mode, which freezes their running statistics.

    Args:
        model: In training mode.
        everywhere: Include batch norms with trainable weights.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - as timm finds them
            trainable = any(p.requires_grad for p in module.parameters())
            if everywhere or not trainable:
                module.eval()


def classifiers(model: nn.Module) -> list[nn.Module]:
    """Return the classifier of a timm model, or both of a distilled one."""
    heads = model.get_classifier()  # type: ignore[operator]
    return list(heads) if isinstance(heads, tuple | list | nn.ModuleList) else [heads]


def classifier_of_features(model: nn.Module, x: Tensor) -> nn.Module | None:
    """Return the classifier, if it maps the features of `inputs.features` to the logits.

    Two-headed networks average over two classifiers, and a few others change the features before or
    after theirs; of these, return None.

    Args:
        model: A timm model.
        x: An input of the network, to compare both ways, (N, 3, H, H).
    """
    heads = classifiers(model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            pooled = model.forward_head(model.forward_features(x), pre_logits=True)  # type: ignore[operator]
            equal = len(heads) == 1 and torch.allclose(heads[0](pooled), model(x), 1e-3, 1e-5)
    except Exception:  # noqa: BLE001 - any error means that the classifier needs something else
        equal = False
    model.train(training)
    return heads[0] if equal else None


def _classifier_ids(model: nn.Module) -> set[int]:
    """Return the ids of the classifier's parameters."""
    return {id(p) for head in classifiers(model) for p in head.parameters()}


def count_parameters(model: nn.Module) -> int:
    """Return the number of a model's parameters, including frozen ones."""
    return sum(p.numel() for p in model.parameters())
