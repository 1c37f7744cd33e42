"""Where in a photo a model looked: heat maps, and how far they can be trusted.

Shapes: N photos, S the store's side, K classes, h x w the feature map, T tokens, A heads.

| method | for | shows | source |
|---|---|---|---|
| grad_cam | every network | what speaks for a class | [1], [2] |
| rollout | transformers | what the answer can have seen, whatever the class | [3] |
| attention | transformers | what each head of the last layer attends to | [4] |

No layer is to be chosen: grad_cam reads what timm's forward_features hands to forward_head. On a
convolutional map the gradient is taken at each place rather than averaged over the map [2]: the two
are the same for a network that averages its whole map, while a head that knows places (`grid`, or
VGG's) gives one feature another sign on the left leg than on the right, which an average cancels.
Where the head reads the class token alone, whose neighbours in that layer have no gradient, the
tokens are those that enter the last block.

Attention is read with fused attention switched off on this model while it is read, since fused
kernels never form the matrix; a block that shows none is an error, never an empty map.

[1] Selvaraju et al., Grad-CAM (2017). [2] Draelos and Carin, HiResCAM (2020). [3] Abnar and
Zuidema, Quantifying Attention Flow in Transformers (2020). [4] Caron et al., DINO (2021).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from torch import Tensor, nn
from tqdm import tqdm

from anklealign.io.pixel_store import Pixels
from anklealign.models.bundle import Bundle
from anklealign.models.inputs import CHUNK, Integers, full_precision, whole

Maps = npt.NDArray[np.float32]
Method = Literal["grad_cam", "rollout"]


def heat_maps(
    bundle: Bundle,
    pixels_nhwc: Pixels,
    classes: Integers,
    method: Method | None = None,
    device: torch.device | None = None,
) -> Maps:
    """Return a heat map each: uint8 (N, S, S, 3), (N,) -> (N, S, S) in 0 to 1, 1 the hottest place.

    A photo in which nothing speaks for the class has a map of zeros.

    Args:
        bundle: The model and its input.
        pixels_nhwc: Photos as the store holds them.
        classes: Index of the class to explain; rollout does not know classes.
        method: grad_cam where left out.
        device: Where the model is; the CPU where left out.

    Raises:
        ValueError: rollout of a network without attention.
    """
    raw = _rollout if method == "rollout" else _grad_cam
    return _each(bundle, pixels_nhwc, classes, device, raw)[:, 0]


def attention_maps(bundle: Bundle, pixels_nhwc: Pixels, device: torch.device | None = None) -> Maps:
    """Return what each head of the last layer attends to: (N, S, S, 3) -> (N, A, S, S) in 0 to 1.

    Raises:
        ValueError: The network has no attention.
    """
    return _each(bundle, pixels_nhwc, np.zeros(len(pixels_nhwc), np.int64), device, _last_heads)


def has_attention(model: nn.Module) -> bool:
    """Tell whether a network's attention can be read, for rollout and attention_maps."""
    return bool(_attention_drops(model))


def _each(
    bundle: Bundle,
    pixels_nhwc: Pixels,
    classes: Integers,
    device: torch.device | None,
    raw: Callable[[nn.Module, Tensor, Tensor], Tensor],
) -> Maps:
    """Return maps (N, A, S, S) of raw ones, (n, A, h, w), made a chunk at a time."""
    device = device or torch.device("cpu")
    size = pixels_nhwc.shape[1]
    model = bundle.model.eval()
    found = []
    with full_precision():
        starts = range(0, len(pixels_nhwc), CHUNK)
        alone = len(starts) == 1  # as in the service
        bar = tqdm(starts, "heat maps", unit="batch", delay=1, leave=False, disable=alone or None)
        for start in bar:
            x = whole(pixels_nhwc[start : start + CHUNK], bundle.network_input, device)
            chosen = torch.tensor(classes[start : start + CHUNK], device=device)
            maps = raw(model, x, chosen).detach().float().cpu()
            # Up first and scaled then, so that the hottest pixel is 1 at every size.
            maps = nn.functional.interpolate(maps, (size, size), mode="bilinear").clamp(min=0)
            most = maps.amax((2, 3), keepdim=True)
            found.append(torch.where(most > 0, maps / most.clamp(min=1e-30), maps).numpy())
    if not found:
        return np.zeros((0, 1, size, size), np.float32)
    return np.concatenate(found)


def _grad_cam(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Return what speaks for each photo's class: (N, 3, H, H), (N,) -> (N, 1, h, w)."""
    with torch.enable_grad(), _entering_last_block(model) as entered:
        # A frozen backbone has no gradient of its own; that of the photo reaches every layer.
        features: Tensor = model.forward_features(x.requires_grad_())  # type: ignore[operator]
        logits: Tensor = model.forward_head(features)  # type: ignore[operator]
        score = logits.gather(1, classes[:, None]).sum()
        gradient = _gradient(score, features)
        if features.ndim == 3 and entered and not gradient[:, _prefix(model) :].any():
            features = entered[-1]
            gradient = _gradient(score, features)
    if features.ndim == 4:
        if _channels_last(model, features):
            features, gradient = (t.permute(0, 3, 1, 2) for t in (features, gradient))
        return (features * gradient).sum(1, keepdim=True)
    prefix = _prefix(model)
    weights = gradient[:, prefix:].mean(1, keepdim=True)
    return _to_grid(model, (features[:, prefix:] * weights).sum(-1))[:, None]


def _gradient(score: Tensor, features: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(score, features, retain_graph=True, allow_unused=True)
    return torch.zeros_like(features) if found is None else found


def _channels_last(model: nn.Module, features: Tensor) -> bool:
    """Tell whether a 4-dimensional feature map is (N, h, w, C), as Swin's is."""
    channels = int(model.num_features)  # type: ignore[arg-type]
    return features.shape[1] != channels and features.shape[-1] == channels


@contextmanager
def _entering_last_block(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the tokens that enter a transformer's last block, with their gradient."""
    entered: list[Tensor] = []
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
        yield entered
        return
    hook = blocks[-1].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    try:
        yield entered
    finally:
        hook.remove()


def _prefix(model: nn.Module) -> int:
    return int(getattr(model, "num_prefix_tokens", 0))


def _to_grid(model: nn.Module, tokens: Tensor) -> Tensor:
    """Lay patch tokens out as the photo lies: (..., h w) -> (..., h, w)."""
    count = tokens.shape[-1]
    grid = tuple(getattr(getattr(model, "patch_embed", None), "grid_size", None) or ())
    if len(grid) != 2 or grid[0] * grid[1] != count:
        side = round(count**0.5)
        grid = (side, side)
    return tokens.reshape(*tokens.shape[:-1], *grid)


def _attention_drops(model: nn.Module) -> list[nn.Module]:
    """Return the modules that a plain vision transformer's attention matrices pass, in order."""
    if not isinstance(getattr(model, "blocks", None), nn.Sequential | nn.ModuleList):
        return []
    layers = [getattr(block, "attn", None) for block in model.blocks]  # type: ignore[union-attr]
    drops = [getattr(layer, "attn_drop", None) for layer in layers]
    found = [drop for drop in drops if isinstance(drop, nn.Module)]
    # Windows or pools between the layers make matrices that cannot be multiplied.
    return found if len(found) == len(layers) and hasattr(model, "patch_embed") else []


def _attention(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return each layer's attention after its softmax: (N, 3, H, H) -> L times (N, A, T, T).

    Raises:
        ValueError: A layer shows none.
    """
    drops = _attention_drops(model)
    if not drops:
        raise ValueError(
            f"{type(model).__name__} has no attention that can be read; choose the method grad_cam"
        )
    seen: list[Tensor] = []
    hooks = [d.register_forward_hook(lambda _, __, out: seen.append(out)) for d in drops]
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
    square = all(m.ndim == 4 and m.shape[-1] == m.shape[-2] for m in seen)
    if len(seen) != len(drops) or not square:
        raise ValueError(
            f"{type(model).__name__} showed {len(seen)} of {len(drops)} attention matrices; choose "
            "the method grad_cam"
        )
    return seen


def _rollout(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    """Return how much of each place the answer can hold: (N, 3, H, H) -> (N, 1, h, w)."""
    layers = _attention(model, x)
    tokens = layers[0].shape[-1]
    identity = torch.eye(tokens, device=x.device)
    flow = identity.expand(len(x), tokens, tokens)
    for matrix in layers:
        flow = (0.5 * matrix.mean(1) + 0.5 * identity) @ flow
    return _seen_from_answer(model, flow)[:, None]


def _last_heads(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
    """Return the last layer's heads: (N, 3, H, H) -> (N, A, h, w)."""
    return _seen_from_answer(model, _attention(model, x)[-1])


def _seen_from_answer(model: nn.Module, matrix: Tensor) -> Tensor:
    """Return the patches as the head's tokens see them: (..., T, T) -> (..., h, w).

    Those are the class token, or all patches where the head averages them.
    """
    prefix = _prefix(model)
    token = prefix and getattr(model, "global_pool", "token") == "token"
    rows = (matrix[..., 0, :] if token else matrix[..., prefix:, :].mean(-2))[..., prefix:]
    # Attention is nowhere 0: from the least attended place on, so that a map has a cold end.
    return _to_grid(model, rows - rows.amin(-1, keepdim=True))


def overlay(pixels: Pixels, heat: Maps, strength: float = 0.55) -> Pixels:
    """Lay a heat map over its photo: uint8 (H, W, 3), (H, W) in 0 to 1 -> uint8 (H, W, 3).

    The colder a place, the more of the photo shows; where nothing speaks it is the photo itself.
    """
    colours = colormaps["inferno"](heat)[..., :3] * 255
    alpha = (strength * heat)[..., None]
    mixed: Pixels = np.rint((1 - alpha) * pixels + alpha * colours).astype(np.uint8)
    return mixed
