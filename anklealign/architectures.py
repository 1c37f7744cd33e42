"""Own networks, registered as timm models, and the one factory for every architecture.

Shapes: N photos, K classes, pixels (N, 3, H, W). Importing this module makes `anklealign_cnn` and
`anklealign_majority` timm names, so that `timm.create_model` and a bundle's `local-dir:` know them.
"""

import difflib
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from anklealign import files
from anklealign.params import Model

__all__: list[str] = []  # register_model adds the names of the architectures


class Cnn(nn.Module):
    """A plain convolutional network whose size and parts are configuration.

    Stages of 3 x 3 convolutions, each stage but the first halving the resolution once more than the
    stem did; then average pooling over a grid of places, dropout and a linear classifier. A grid of
    one place is global average pooling: few weights, but blind to where something stood, so that
    the left heel's tilt is not told from the right one's, whose meaning is the opposite.

    Args:
        num_classes: K; 0 leaves the classifier out.
        in_chans: Channels of a photo.
        drop_rate: Share of the pooled features dropped in training.
        widths: Channels of each stage.
        depth: Convolutions of each stage, or one number for all.
        stem_stride: Step of the very first convolution, 1 or 2.
        norm: Batch normalisation after each convolution.
        grid: Rows and columns of places whose averages the classifier sees.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        drop_rate: float = 0.0,
        widths: Sequence[int] = (24, 48, 96, 192),
        depth: int | Sequence[int] = 1,
        stem_stride: int = 2,
        norm: bool = True,
        grid: Sequence[int] = (1, 1),
    ) -> None:
        """Build the layers and initialise their weights."""
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.grid = (grid[0], grid[1])
        self.num_features = widths[-1]
        self.head_hidden_size = widths[-1] * grid[0] * grid[1]
        self.grad_checkpointing = False
        self.feature_info = []
        self.stages = nn.ModuleList()
        channels, reduction = in_chans, 1
        depths = [depth] * len(widths) if isinstance(depth, int) else depth
        for index, (width, convolutions) in enumerate(zip(widths, depths, strict=True)):
            layers: list[nn.Module] = []
            for layer in range(convolutions):
                first = layer == 0
                stride = (stem_stride if index == 0 else 2) if first else 1
                layers.append(nn.Conv2d(channels, width, 3, stride, 1, bias=not norm))
                layers += [nn.BatchNorm2d(width)] if norm else []
                layers.append(nn.ReLU(inplace=True))
                channels, reduction = width, reduction * stride
            self.stages.append(nn.Sequential(*layers))
            self.feature_info.append(
                {"num_chs": width, "reduction": reduction, "module": f"stages.{index}"}
            )
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise every weight: He et al. (2015) before a ReLU, a small normal at the end."""
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        if isinstance(self.head, nn.Linear):
            nn.init.normal_(self.head.weight, std=0.01)
            nn.init.zeros_(self.head.bias)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a fresh one for other classes."""
        if global_pool not in {None, "avg"}:
            raise ValueError(f"global_pool = {global_pool!r}: this network averages; leave it out")
        self.num_classes = num_classes
        self.head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return timm's patterns that sort parameters into layers, first to last."""
        return {"blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map: (N, 3, H, W) -> (N, C, h, w)."""
        for stage in self.stages:
            x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits, or what goes into the last layer: (N, C, h, w) -> (N, K) or (N, F)."""
        x = self.drop(pool(x, self.grid).flatten(1))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits: (N, 3, H, W) -> (N, K)."""
        return self.forward_head(self.forward_features(x))


def pool(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average over a grid of places: (N, C, h, w) -> (N, C, rows, columns).

    As torch's adaptive_avg_pool2d, whose backward pass has no deterministic form on a GPU.
    """

    def places(size: int, count: int) -> Tensor:
        weights = x.new_zeros(count, size)
        for i in range(count):
            first, last = i * size // count, -(-(i + 1) * size // count)
            weights[i, first:last] = 1 / (last - first)
        return weights

    rows, columns = places(x.shape[2], grid[0]), places(x.shape[3], grid[1])
    return torch.einsum("nchw,rh,kw->ncrk", x, rows, columns)


class Majority(nn.Module):
    """The same logits for every photo: the log of the classes' shares of the training photos.

    So its most likely class is the most frequent one, and its probabilities are the shares: the
    baseline that every score must beat, on the path that every other model takes.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        """Start from equal shares."""
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = in_chans
        self.logits = nn.Parameter(torch.zeros(num_classes), requires_grad=False)

    def set_counts(self, counts: Sequence[int]) -> None:
        """Take the classes' photo counts (K,), each above 0."""
        shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
        self.logits.data = shares.log().float()

    def get_classifier(self) -> nn.Module:
        """Return the module that answers: this one."""
        return self

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Start again from equal shares of other classes."""
        del global_pool  # part of timm's signature
        self.num_classes = num_classes
        self.logits = nn.Parameter(torch.zeros(num_classes), requires_grad=False)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the photo at an eighth of its side: (N, 3, H, W) -> (N, 3, H / 8, W / 8)."""
        return nn.functional.avg_pool2d(x, 8)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits that no photo changes: (N, 3, h, w) -> (N, K), or (N, 3)."""
        x = x.mean((2, 3))
        # Zero times the photo, so that an explanation's gradient exists and is zero.
        return x if pre_logits else self.logits + 0 * x.sum(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits: (N, 3, H, W) -> (N, K)."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {
        name: {
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "input_size": (3, 128, 128),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "first_conv": first_conv,
            "classifier": classifier,
        }
        for name, first_conv, classifier in [
            ("anklealign_cnn", "stages.0.0", "head"),
            ("anklealign_majority", None, None),
        ]
    }
)


@register_model
def anklealign_cnn(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ANN401 - timm's signature
    """Build a Cnn the timm way."""
    model: nn.Module = build_model_with_cfg(Cnn, "anklealign_cnn", pretrained, **kwargs)
    return model


@register_model
def anklealign_majority(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ANN401 - timm's signature
    """Build a Majority the timm way."""
    model: nn.Module = build_model_with_cfg(Majority, "anklealign_majority", pretrained, **kwargs)
    return model


def build(name: str, block: Model, classes: int) -> nn.Module:
    """Return a variant's network with K outputs, with its pretrained weights if it asks for them.

    Args:
        name: Of the block below `models` in params.yaml, for the errors.
        block: What to build.
        classes: K.

    Raises:
        ValueError: The architecture is unknown, its arguments do not fit, or its weights cannot be
            had: the file is missing, is another one than `weights_sha256`, does not hold this
            architecture's weights, or the hub cannot be reached.
    """
    where = f"params.yaml: models.{name}"
    arguments: dict[str, Any] = dict(block.arguments)
    config = _config(where, block.architecture)
    if config.get("fixed_input_size"):
        arguments.setdefault("img_size", block.image_size)
    random_state = torch.get_rng_state()
    try:
        model: nn.Module = timm.create_model(
            block.architecture, num_classes=classes, pretrained=False, **arguments
        )
    except Exception as error:  # noqa: BLE001 - timm's constructors raise what they please
        raise ValueError(
            f"{where}: {block.architecture} at {block.image_size} pixels with arguments "
            f"{json.dumps(arguments)} cannot be built: {_line(error)}; "
            "change arguments, image_size or architecture there"
        ) from None
    if not block.pretrained:
        return model
    overlay = {"file": str(_checked(where, block))} if block.weights else None
    torch.set_rng_state(random_state)
    try:
        pretrained: nn.Module = timm.create_model(
            block.architecture,
            num_classes=classes,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            **arguments,
        )
        problem = _missing(model, pretrained)
    except Exception as error:  # noqa: BLE001 - as above, and the hub's client adds its own
        problem = _line(error)
    if problem:
        source = (
            f"weights = {block.weights!r} does not fit {block.architecture}"
            if block.weights
            else f"the weights of {block.architecture} cannot be had from timm's hub"
        )
        raise ValueError(
            f"{where}: {source}: {problem}; give a file of its weights by weights: PATH and "
            "weights_sha256, or set pretrained: false to start from scratch"
        )
    _start_classifier(pretrained)
    return pretrained


def _start_classifier(model: nn.Module) -> None:
    """Let a new last layer on pretrained features start near nothing, whatever timm's default.

    The default of MobileNet and EfficientNet draws from -0.7 to 0.7 for two classes: over 1,280
    features that noise outweighs what a head can learn (ants/bees, frozen: 0.86 instead of 0.95).
    """
    for module in model.get_classifier().modules():  # type: ignore[operator]
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _missing(fresh: nn.Module, pretrained: nn.Module) -> str:
    """Say which weights were not loaded: timm leaves them at random silently when classes differ.

    Both models started from one random state, so what is still equal was never loaded. Vectors are
    left out: norms start as ones and zeros, which a file may hold too.
    """
    head = {id(p) for p in pretrained.get_classifier().parameters()}  # type: ignore[operator]
    started = dict(fresh.named_parameters())
    names = [
        name
        for name, weight in pretrained.named_parameters()
        if weight.ndim > 1 and id(weight) not in head and weight.equal(started[name])
    ]
    return f"they lack {len(names)} tensors, such as {names[0]}" if names else ""


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
            f"{where}.weights = {block.weights!r} is not there; put the file there, or remove "
            "weights and weights_sha256 to fetch timm's from its hub"
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


def freeze(model: nn.Module) -> None:
    """Let the classifier alone learn."""
    head = {id(p) for p in model.get_classifier().parameters()}  # type: ignore[operator]
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in head)


def parameters(model: nn.Module) -> int:
    """Return how many weights a model has, frozen ones included."""
    return sum(p.numel() for p in model.parameters())
