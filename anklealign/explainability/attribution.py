"""Compute attribution maps of a model's predictions: Grad-CAM, attention rollout, attention heads.

Shapes: N photos, S the store's side, K classes, C channels, h x w the feature map, T tokens,
A attention heads, L layers.

| method | networks | shows | source |
|---|---|---|---|
| grad_cam | all | evidence for a class | [1], [2] |
| rollout | transformers | information flow into the prediction, independent of the class | [3] |
| attention | transformers | attention of each head of the last layer | [4] |

The target layer is fixed: grad_cam reads the features that timm's forward_features passes to
forward_head. On a convolutional map the gradient is used per position instead of averaged over the
map [2]. Both are equal for a network with global average pooling. A head that depends on position
(`grid`, or VGG's) gives a feature a different sign on the left leg than on the right, which
averaging would cancel. If the head reads only the class token, the other tokens of the last layer
have no gradient; grad_cam then uses the tokens that enter the last block. For networks that pass
no map to their head, it uses the last block whose output is a map (`_layer_cam`).

Fused attention kernels never form the attention matrix, so they are disabled on the model while
its attention is read. A block without a readable matrix raises an error.

[1] Selvaraju et al., Grad-CAM (2017). [2] Draelos and Carin, HiResCAM (2020). [3] Abnar and
Zuidema, Quantifying Attention Flow in Transformers (2020). [4] Caron et al., DINO (2021).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from anklealign.io.pixel_store import Pixels
from anklealign.models.bundle import Bundle, check_rebuild
from anklealign.models.input_config import CHUNK, Integers
from anklealign.models.inputs import full_precision, to_input

Maps = npt.NDArray[np.float32]
Method = Literal["grad_cam", "rollout"]

MIN_SIDE = 4  # of a layer's map that still shows places
MAX_PREFIX = 5  # tokens before those of the patches: class, distillation and four registers
PIXEL_CELLS = 16  # per side, over which evidence of single pixels is averaged


def heat_maps(
    bundle: Bundle,
    pixels_nhwc: Pixels,
    classes: Integers,
    method: Method | None = None,
    device: torch.device | None = None,
) -> Maps:
    """Return a heat map of each photo: uint8 (N, S, S, 3), (N,) -> (N, S, S), scaled to 0 to 1.

    A photo without evidence for the class has a map of zeros.

    Args:
        bundle: Model and its input config.
        pixels_nhwc: Photos as in the pixel store.
        classes: (N,) index of the class to explain; ignored by rollout.
        method: grad_cam by default.
        device: Device of the model; the CPU by default.

    Raises:
        ValueError: The method is rollout and the network has no readable attention.
    """
    compute = _rollout if method == "rollout" else _grad_cam
    return _scaled_maps(bundle, pixels_nhwc, classes, device, compute)[:, 0]


def attention_maps(bundle: Bundle, pixels_nhwc: Pixels, device: torch.device | None = None) -> Maps:
    """Return the attention of each head of the last layer: (N, S, S, 3) -> (N, A, S, S) in 0 to 1.

    Raises:
        ValueError: The network has no readable attention.
    """
    classes = np.zeros(len(pixels_nhwc), np.int64)
    return _scaled_maps(bundle, pixels_nhwc, classes, device, _last_heads)


def has_attention(model: nn.Module) -> bool:
    """Return True if rollout and attention_maps can read the network's attention."""
    return bool(_attention_drops(model))


def check(bundle: Bundle) -> None:
    """Explain one photo and rebuild the network, before hours of training.

    Raises:
        ValueError: The network cannot be explained, or not be loaded after training.
    """
    training, size = bundle.model.training, bundle.preprocessing.size
    try:
        heat_maps(bundle, np.full((1, size, size, 3), 128, np.uint8), np.zeros(1, np.int64))
    except Exception as error:  # networks raise any exception type
        raise ValueError(f"it cannot be explained: {error!r}") from error
    finally:
        bundle.model.train(training)
        bundle.model.zero_grad()
    check_rebuild(bundle)


def _scaled_maps(
    bundle: Bundle,
    pixels_nhwc: Pixels,
    classes: Integers,
    device: torch.device | None,
    compute: Callable[[nn.Module, Tensor, Tensor], Tensor],
) -> Maps:
    """Return maps (N, A, S, S) in 0 to 1, given a function that returns raw maps (n, A, h, w)."""
    device = device or torch.device("cpu")
    size = pixels_nhwc.shape[1]
    model = bundle.model.eval()
    chunks = []
    with full_precision():
        starts = range(0, len(pixels_nhwc), CHUNK)
        single = len(starts) == 1  # as in the service
        bar = tqdm(starts, "heat maps", unit="batch", delay=1, leave=False, disable=single or None)
        for start in bar:
            x = to_input(pixels_nhwc[start : start + CHUNK], bundle.input_config, device)
            target = torch.tensor(classes[start : start + CHUNK], device=device)
            maps = compute(model, x, target).detach().float().cpu()
            # Scale after the upsampling, so that the maximum is 1 at every size.
            maps = nn.functional.interpolate(maps, (size, size), mode="bilinear").clamp(min=0)
            maximum = maps.amax((2, 3), keepdim=True)
            scaled = torch.where(maximum > 0, maps / maximum.clamp(min=1e-30), maps)
            chunks.append(scaled.numpy())
    if not chunks:
        return np.zeros((0, 1, size, size), np.float32)
    return np.concatenate(chunks)


def _grad_cam(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Return the evidence for each photo's class: (N, 3, H, H), (N,) -> (N, 1, h, w)."""
    with torch.enable_grad(), _record_last_block_inputs(model) as block_inputs:
        # The photo requires a gradient, so that layers of a frozen backbone have one too.
        features: Tensor = model.forward_features(x.requires_grad_())  # type: ignore[operator]
        logits: Tensor = model.forward_head(features)  # type: ignore[operator]
        score = logits.gather(1, classes[:, None]).sum()
        if not _is_map(model, features):
            return _layer_cam(model, x, classes)
        gradient = _gradient(score, features)
        if features.ndim == 3 and block_inputs and not gradient[:, _prefix_tokens(model) :].any():
            features = block_inputs[-1]
            if not _is_map(model, features):
                return _layer_cam(model, x, classes)
            gradient = _gradient(score, features)
    if features.ndim == 4:
        if _channels_last(model, features):
            features, gradient = (t.permute(0, 3, 1, 2) for t in (features, gradient))
        return (features * gradient).sum(1, keepdim=True)
    prefix = _prefix_tokens(model)
    weights = gradient[:, prefix:].mean(1, keepdim=True)
    return _to_grid(model, (features[:, prefix:] * weights).sum(-1))[:, None]


def _is_map(model: nn.Module, features: object) -> bool:
    """Return True for a feature map (N, C, h, w) or (N, h, w, C), or tokens (N, T, C) of a grid."""
    if not isinstance(features, Tensor) or features.ndim not in {3, 4}:
        return False
    return features.ndim == 4 or _grid(model, features.shape[1] - _prefix_tokens(model)) is not None


def _layer_cam(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Return the evidence at the last layer that keeps the places of the photo.

    For networks that pass something else than a map to their head: several scales (CoaT, CrossViT),
    or tokens after layers of class attention, which give no gradient to patches (CaiT, XCiT, VOLO).
    The layer is the last block with a square map and a gradient; maps of several scales are added,
    as evidence is in units of the logit. Without any, it is the photo: gradient times input.
    """
    outputs: list[list[Tensor]] = [[x]]

    def record(_: nn.Module, __: object, output: object) -> None:
        several = isinstance(output, tuple | list)
        tensors = list(output) if several else [output]  # type: ignore[call-overload]
        maps = [t for t in tensors if isinstance(t, Tensor) and _channel_axis(t, len(x))]
        if maps:
            outputs.append(maps)

    # Blocks only: a leaf may hold attention matrices, which are square, too.
    hooks = [m.register_forward_hook(record) for m in model.modules() if list(m.children())]
    try:
        with torch.enable_grad():
            features = model.forward_features(x)  # type: ignore[operator]
            score = model.forward_head(features).gather(1, classes[:, None]).sum()  # type: ignore[operator]
    finally:
        for hook in hooks:
            hook.remove()
    for maps in reversed(outputs):
        evidence = [_evidence(score, tensor, len(x)) for tensor in maps]
        if any(bool(each.any()) for each in evidence):
            break
    finest = max(each.shape[-1] for each in evidence)
    grids = [nn.functional.interpolate(each, (finest, finest)) for each in evidence]
    total = torch.stack(grids).sum(0)
    # Single pixels are noise; the others are the patches of the network.
    return nn.functional.adaptive_avg_pool2d(total, PIXEL_CELLS) if maps[0] is x else total


def _evidence(score: Tensor, tensor: Tensor, photos: int) -> Tensor:
    """Return gradient times value of a map, summed over its channels: (N, 1, h, w)."""
    product = (_gradient(score, tensor) * tensor).detach()
    if tensor.ndim == 4:
        return product.sum(_channel_axis(tensor, photos), keepdim=True).reshape(
            photos, 1, *_side(tensor)
        )
    side = math.isqrt(tensor.shape[1])
    return product[:, -side * side :].sum(-1).reshape(photos, 1, side, side)


def _side(tensor: Tensor) -> tuple[int, int]:
    """Return height and width of a map (N, C, h, w) or (N, h, w, C)."""
    shape = tensor.shape
    return (shape[2], shape[3]) if _channel_axis(tensor, shape[0]) == 1 else (shape[1], shape[2])


def _channel_axis(tensor: Tensor, photos: int) -> int | None:
    """Return the channel axis of a square map of the photos, or None for another tensor.

    Tokens may have up to `MAX_PREFIX` others before the patches.
    """
    shape = tensor.shape
    if not tensor.is_floating_point() or tensor.ndim not in {3, 4} or shape[0] != photos:
        return None
    if tensor.ndim == 3:
        side = math.isqrt(shape[1])
        return 2 if side >= MIN_SIDE and shape[1] - side * side <= MAX_PREFIX else None
    if shape[2] == shape[3] >= MIN_SIDE:
        return 1
    return 3 if shape[1] == shape[2] >= MIN_SIDE else None


def _gradient(score: Tensor, features: Tensor) -> Tensor:
    """Return the gradient of the score with respect to the features, zeros if it is independent."""
    (gradient,) = torch.autograd.grad(score, features, retain_graph=True, allow_unused=True)
    return torch.zeros_like(features) if gradient is None else gradient


def _channels_last(model: nn.Module, features: Tensor) -> bool:
    """Return True if a 4-dimensional feature map is (N, h, w, C), as in Swin."""
    channels = int(model.num_features)  # type: ignore[arg-type]
    return features.shape[1] != channels and features.shape[-1] == channels


@contextmanager
def _record_last_block_inputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list that collects the input tokens of a transformer's last block."""
    block_inputs: list[Tensor] = []
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
        yield block_inputs
        return
    hook = blocks[-1].register_forward_pre_hook(lambda _, args: block_inputs.append(args[0]))
    try:
        yield block_inputs
    finally:
        hook.remove()


def _prefix_tokens(model: nn.Module) -> int:
    """Return the number of tokens before the patch tokens, such as the class token."""
    return int(getattr(model, "num_prefix_tokens", 0))


def _to_grid(model: nn.Module, tokens: Tensor) -> Tensor:
    """Reshape patch tokens to the photo's grid: (..., h w) -> (..., h, w)."""
    grid = _grid(model, tokens.shape[-1])
    if grid is None:
        raise ValueError(
            f"{type(model).__name__}: {tokens.shape[-1]} tokens are no grid; use grad_cam"
        )
    return tokens.reshape(*tokens.shape[:-1], *grid)


def _grid(model: nn.Module, count: int) -> tuple[int, int] | None:
    """Return rows and columns of a number of patch tokens; None if they form no grid."""
    grid = tuple(getattr(getattr(model, "patch_embed", None), "grid_size", None) or ())
    if len(grid) == 2 and grid[0] * grid[1] == count:
        return grid[0], grid[1]
    side = math.isqrt(max(count, 0))
    return (side, side) if side * side == count and side else None


def _attention_drops(model: nn.Module) -> list[nn.Module]:
    """Return the attention dropout modules of a plain vision transformer, in order.

    Their outputs are the attention matrices. Empty if the network has no readable attention.
    """
    if not isinstance(getattr(model, "blocks", None), nn.Sequential | nn.ModuleList):
        return []
    layers = [getattr(block, "attn", None) for block in model.blocks]  # type: ignore[union-attr]
    drops = [getattr(layer, "attn_drop", None) for layer in layers]
    modules = [drop for drop in drops if isinstance(drop, nn.Module)]
    # With windows or pooling between the layers, the matrices cannot be multiplied.
    return modules if len(modules) == len(layers) and hasattr(model, "patch_embed") else []


def _attention(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return each layer's attention matrix after the softmax: (N, 3, H, H) -> L of (N, A, T, T).

    Raises:
        ValueError: The attention of a layer cannot be read.
    """
    drops = _attention_drops(model)
    if not drops:
        raise ValueError(
            f"{type(model).__name__} has no readable attention; use the method grad_cam"
        )
    matrices: list[Tensor] = []
    hooks = [d.register_forward_hook(lambda _, __, output: matrices.append(output)) for d in drops]
    fused = [(m, m.fused_attn) for m in model.modules() if hasattr(m, "fused_attn")]
    try:
        for module, _ in fused:
            module.fused_attn = False  # type: ignore[assignment]
        with torch.no_grad():
            model.forward_features(x)  # type: ignore[operator]
    finally:
        for hook in hooks:
            hook.remove()
        for module, before in fused:
            module.fused_attn = before
    square = all(m.ndim == 4 and m.shape[-1] == m.shape[-2] for m in matrices)
    if len(matrices) != len(drops) or not square:
        raise ValueError(
            f"{type(model).__name__} exposed {len(matrices)} of {len(drops)} attention matrices; "
            "use the method grad_cam"
        )
    return matrices


def _rollout(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    """Return the attention flow from each patch to the prediction: (N, 3, H, H) -> (N, 1, h, w)."""
    layers = _attention(model, x)
    tokens = layers[0].shape[-1]
    identity = torch.eye(tokens, device=x.device)
    flow = identity.expand(len(x), tokens, tokens)
    for matrix in layers:
        flow = (0.5 * matrix.mean(1) + 0.5 * identity) @ flow
    return _patch_attention(model, flow)[:, None]


def _last_heads(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    """Return the attention of the last layer's heads: (N, 3, H, H) -> (N, A, h, w)."""
    return _patch_attention(model, _attention(model, x)[-1])


def _patch_attention(model: nn.Module, matrix: Tensor) -> Tensor:
    """Return the attention of the head's tokens to each patch: (..., T, T) -> (..., h, w).

    The head's tokens are the class token, or all patches if the head averages them.
    """
    prefix = _prefix_tokens(model)
    class_token = prefix and getattr(model, "global_pool", "token") == "token"
    rows = (matrix[..., 0, :] if class_token else matrix[..., prefix:, :].mean(-2))[..., prefix:]
    # Attention is always above 0; subtract the minimum so that the map starts at 0.
    return _to_grid(model, rows - rows.amin(-1, keepdim=True))
