"""Define this project's networks and heads, and register them with timm.

Shapes: N photos, K classes, pixels (N, 3, H, W), C channels, h x w the feature map, F features.
Importing this module registers `anklealign_cnn`, `anklealign_majority` and `anklealign_reheaded`,
so that `timm.create_model` accepts these names and loads bundles that use them.
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
    """A plain convolutional network of configurable size.

    Stages of 3 x 3 convolutions, then average pooling over a grid of cells, dropout and a linear
    classifier. The first stage reduces the resolution by `stem_stride`, each later one by 2. A
    grid of one cell is global average pooling. It has few weights but discards position, so the
    network cannot distinguish the tilt of the left heel from that of the right, whose meaning is
    the opposite.

    Args:
        num_classes: K; 0 omits the classifier.
        in_chans: Number of input channels.
        drop_rate: Dropout probability of the pooled features.
        widths: Channels of each stage.
        depth: Convolutions of each stage, or one number for all stages.
        stem_stride: Stride of the first convolution, 1 or 2.
        norm: Add batch normalization after each convolution.
        pool: Reduce the resolution by max pooling instead of strided convolutions.
        grid: Rows and columns of the pooling grid.
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
        """Build the layers and initialize their weights."""
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
        """Initialize convolutions by He et al. (2015) and the classifier by a normal of 0.01."""
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
        """Return the classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one with `num_classes` outputs."""
        if global_pool not in {None, "avg"}:
            raise ValueError(
                f"global_pool = {global_pool!r}: this network supports only avg; omit it"
            )
        self.num_classes = num_classes
        self.head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return the patterns by which timm groups parameters into layers."""
        return {"blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map: (N, 3, H, W) -> (N, C, h, w)."""
        for stage in self.stages:
            x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits, or the classifier's input: (N, C, h, w) -> (N, K) or (N, F)."""
        x = self.drop(grid_average_pool(x, self.grid).flatten(1))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits: (N, 3, H, W) -> (N, K)."""
        return self.forward_head(self.forward_features(x))


def grid_average_pool(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average over the cells of a grid: (N, C, h, w) -> (N, C, rows, columns).

    Equal to torch's adaptive_avg_pool2d, whose backward pass is not deterministic on a GPU.
    """

    def cell_weights(size: int, count: int) -> Tensor:
        weights = x.new_zeros(count, size)
        for i in range(count):
            first, last = i * size // count, -(-(i + 1) * size // count)
            weights[i, first:last] = 1 / (last - first)
        return weights

    rows, columns = cell_weights(x.shape[2], grid[0]), cell_weights(x.shape[3], grid[1])
    return torch.einsum("nchw,rh,kw->ncrk", x, rows, columns)


class Majority(nn.Module):
    """Majority baseline: the same logits for every photo.

    The logits are the log of the class shares in the training split. The predicted class is
    therefore the most frequent one, and the probabilities are the shares.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        """Initialize with equal class shares."""
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = in_chans
        self.logits = nn.Parameter(torch.zeros(num_classes), requires_grad=False)

    def set_counts(self, counts: Sequence[int]) -> None:
        """Set the class shares from the photo counts (K,), each above 0."""
        shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
        self.logits.data = shares.log().float()

    def get_classifier(self) -> nn.Module:
        """Return this module, which has no separate classifier."""
        return self

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Reset to equal shares of `num_classes` classes."""
        del global_pool  # part of timm's signature
        self.num_classes = num_classes
        self.logits = nn.Parameter(torch.zeros(num_classes), requires_grad=False)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the photo downscaled by 8: (N, 3, H, W) -> (N, 3, H / 8, W / 8)."""
        return nn.functional.avg_pool2d(x, 8)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the constant logits: (N, 3, h, w) -> (N, K), or (N, 3)."""
        x = x.mean((2, 3))
        # Add zero times the photo, so that the gradient of an attribution map exists and is zero.
        return x if pre_logits else self.logits + 0 * x.sum(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits: (N, 3, H, W) -> (N, K)."""
        return self.forward_head(self.forward_features(x))


class MergeClasses(nn.Module):
    """Merge ImageNet logits into those of K classes by a table: (N, 1000) -> (N, K).

    A class's probability is the sum of the probabilities of its ImageNet classes, so its logit is
    their log-sum-exp. ImageNet classes outside the table, such as bullfrog, are ignored.
    """

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        """Store the ImageNet indices of each of the K classes."""
        super().__init__()
        self.groups = [list(group) for group in groups]

    def forward(self, x: Tensor) -> Tensor:
        """Return the merged logits: (N, 1000) -> (N, K)."""
        return torch.stack([x[:, group].logsumexp(1) for group in self.groups], 1)


class CumulativeLink(nn.Module):
    """Turn one score into the log probabilities of K ordered classes: (N, 1) -> (N, K).

    The proportional odds model (McCullagh, Regression Models for Ordinal Data (1980)): the
    probability of a class at or below class k is the sigmoid of the k-th cut point minus the score.
    Cut points ascend, because each adds a positive step to the one before it.
    """

    def __init__(self, num_classes: int) -> None:
        """Place the cut points so that equal scores of 0 give equally frequent classes."""
        super().__init__()
        shares = torch.arange(1, num_classes) / num_classes
        cuts = shares.logit()
        steps = cuts.diff()
        self.first = nn.Parameter(cuts[:1].clone())
        self.steps = nn.Parameter(steps.expm1().log())  # the inverse of softplus

    def forward(self, x: Tensor) -> Tensor:
        """Return the log probabilities: (N, 1) -> (N, K)."""
        steps = nn.functional.softplus(self.steps)
        cuts = torch.cat([self.first, self.first + steps.cumsum(0)])
        below = cuts - x  # (N, K - 1)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which cannot underflow.
        inner = (-(-steps).expm1()).log()
        at_most = nn.functional.pad(nn.functional.logsigmoid(below), (0, 1))
        above = nn.functional.pad(nn.functional.logsigmoid(-below), (1, 0))
        return at_most + above + nn.functional.pad(inner, (1, 1))


def _head(
    features: int, classes: int, hidden_dim: int, hidden_layers: int, drop: float, *, ordinal: bool
) -> list[nn.Module]:
    """Return the layers of a head: dropout before each linear layer, GELU after hidden ones."""
    layers: list[nn.Module] = []
    for _ in range(hidden_layers if hidden_dim else 0):
        layers += [nn.Dropout(drop)] if drop else []
        layers += [nn.Linear(features, hidden_dim), nn.GELU()]
        features = hidden_dim
    layers += [nn.Dropout(drop)] if drop else []
    layers.append(nn.Linear(features, 1 if ordinal else classes))
    return [*layers, CumulativeLink(classes)] if ordinal else layers


def _reheaded(
    backbone: str,
    num_classes: int,
    *,
    hidden_dim: int = 0,
    hidden_layers: int = 1,
    head_drop: float = 0.0,
    ordinal: bool = False,
    groups: Sequence[Sequence[int]] = (),
    **arguments: Any,  # noqa: ANN401 - the backbone's
) -> nn.Module:
    """Return a timm model with a different head.

    Args:
        backbone: timm name.
        num_classes: K.
        hidden_dim: Width of the hidden layers before the classifier; 0 for none.
        hidden_layers: Number of hidden layers.
        head_drop: Dropout probability before each layer of the head.
        ordinal: End in a `CumulativeLink`.
        groups: ImageNet indices of each class, to merge the ImageNet logits instead.
        **arguments: Arguments of the backbone.

    Raises:
        ValueError: The model does not end in one linear layer.
    """
    outputs = IMAGENET_CLASSES if groups else num_classes
    model: nn.Module = timm.create_model(backbone, num_classes=outputs, **arguments)
    last = model.get_classifier()  # type: ignore[operator]
    if not isinstance(last, nn.Linear):
        raise ValueError(
            f"{backbone} ends in {type(last).__name__}, but head_hidden_dim, head_drop_rate, "
            "ordinal_head and zero_shot require a network that ends in one linear layer"
        )
    head: list[nn.Module] = [last, MergeClasses(groups)]
    if not groups:
        head = _head(
            last.in_features, num_classes, hidden_dim, hidden_layers, head_drop, ordinal=ordinal
        )
    path = next(name for name, module in model.named_modules() if module is last)
    parent, _, child = path.rpartition(".")
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
    """Create a `Cnn`, by timm's entry point convention."""
    model: nn.Module = build_model_with_cfg(Cnn, "anklealign_cnn", pretrained, **kwargs)
    return model


@register_model
def anklealign_majority(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ANN401 - timm's signature
    """Create a `Majority`, by timm's entry point convention."""
    model: nn.Module = build_model_with_cfg(Majority, "anklealign_majority", pretrained, **kwargs)
    return model


@register_model
def anklealign_reheaded(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ANN401 - timm's signature
    """Create a timm model with a different head, by timm's entry point convention."""
    model: nn.Module = build_model_with_cfg(_reheaded, "anklealign_reheaded", pretrained, **kwargs)
    return model
