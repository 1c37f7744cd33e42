"""Own networks and own heads, registered as timm models.

Shapes: N photos, K classes, pixels (N, 3, H, W). Importing this module makes `anklealign_cnn`,
`anklealign_majority` and `anklealign_reheaded` timm names, so that `timm.create_model` and a
bundle's `local-dir:` know them.
"""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

__all__: list[str] = []  # register_model adds the names of the architectures

IMAGENET_CLASSES = 1000


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
        pool: Halve the resolution by the largest of four neighbours instead of by a step of 2.
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
        pool: bool = False,
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
                step = 1 if pool else stride
                layers.append(nn.Conv2d(channels, width, 3, step, 1, bias=not norm))
                layers += [nn.BatchNorm2d(width)] if norm else []
                layers.append(nn.ReLU(inplace=True))
                layers += [nn.MaxPool2d(stride)] if pool and stride > 1 else []
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
        x = self.drop(average(x, self.grid).flatten(1))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits: (N, 3, H, W) -> (N, K)."""
        return self.forward_head(self.forward_features(x))


def average(x: Tensor, grid: tuple[int, int]) -> Tensor:
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


class Merge(nn.Module):
    """ImageNet's logits into those of the classes that a table maps: (N, 1000) -> (N, K).

    A class's probability is the sum of its ImageNet classes', so its logit is their log-sum-exp.
    What the table leaves out, a bullfrog, counts for no class.
    """

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        """Keep the K classes' indices."""
        super().__init__()
        self.groups = [list(group) for group in groups]

    def forward(self, x: Tensor) -> Tensor:
        """Return the merged logits: (N, 1000) -> (N, K)."""
        return torch.stack([x[:, group].logsumexp(1) for group in self.groups], 1)


def _reheaded(
    backbone: str,
    num_classes: int,
    *,
    width: int = 0,
    groups: Sequence[Sequence[int]] = (),
    **arguments: Any,  # noqa: ANN401 - the backbone's
) -> nn.Module:
    """Return a timm model with another head: a hidden layer of `width`, or groups of ImageNet's.

    Raises:
        ValueError: The model does not end in one linear layer.
    """
    inner = IMAGENET_CLASSES if groups else num_classes
    model: nn.Module = timm.create_model(backbone, num_classes=inner, **arguments)
    last = model.get_classifier()  # type: ignore[operator]
    if not isinstance(last, nn.Linear):
        raise ValueError(
            f"{backbone} ends in {type(last).__name__} and not in one linear layer, so it takes no "
            "head_width and no zero_shot"
        )
    head: list[nn.Module] = [last, Merge(groups)]
    if not groups:
        head = [nn.Linear(last.in_features, width), nn.GELU(), nn.Linear(width, num_classes)]
    place = next(name for name, module in model.named_modules() if module is last)
    parent, _, child = place.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Sequential(*head))
    model.num_classes = num_classes  # type: ignore[assignment]
    return model


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
            ("anklealign_reheaded", None, None),
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


@register_model
def anklealign_reheaded(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ANN401 - timm's signature
    """Build a timm model with a head of this project's the timm way."""
    model: nn.Module = build_model_with_cfg(_reheaded, "anklealign_reheaded", pretrained, **kwargs)
    return model
