"""Merge batch normalization into convolutions, for inference only.

After training, a batch normalization scales and shifts each channel by constants. The weights and
the bias of the convolution before it can do the same (Jacob et al., Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference (2018), section 3.2), which saves a
pass over each feature map. On a CPU, convolutions of channels-last tensors are faster as well.
`python -m benchmarks.fusion` measures both.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from anklealign.models.input_config import InputConfig
from anklealign.models.inputs import full_precision

TOLERANCE = 1e-3  # of the largest logit; rounding changes a logit by some 1e-6 of it


def for_inference(model: nn.Module, config: InputConfig) -> nn.Module:
    """Return a copy of a network in which each batch normalization after a convolution is merged.

    Networks differ in how they connect their layers, so the pairs are those that one pass shows. If
    the copy has other outputs, such as for a convolution that computes its weights in its forward
    method, the network itself is returned.

    Args:
        model: Network in any mode; it is in evaluation mode afterward.
        config: Its input.
    """
    device = next(iter(model.state_dict().values()), torch.zeros(0)).device
    generator = torch.Generator().manual_seed(0)
    side = config.image_size
    x = torch.randn(1, config.channels, side, side, generator=generator).to(device)
    model.eval()
    with torch.no_grad(), full_precision():
        pairs = _pairs(model, x)
        if not pairs:
            return _channels_last(model, device)
        expected = model(x)
        merged = _merge(copy.deepcopy(model), pairs)
        found = _channels_last(merged, device)(x)
    same = found.shape == expected.shape and bool(
        (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    )
    return merged if same else _channels_last(model, device)


def _channels_last(model: nn.Module, device: torch.device) -> nn.Module:
    return model.to(memory_format=torch.channels_last) if device.type == "cpu" else model


def _pairs(model: nn.Module, x: Tensor) -> list[tuple[str, str]]:
    """Return the names of each convolution and the batch normalization that reads its output."""
    names = {module: name for name, module in model.named_modules()}
    # Outputs are kept until the end, so that no two of them share an identity.
    outputs: dict[int, tuple[Tensor, nn.Module]] = {}
    calls: list[nn.Module] = []
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def after_convolution(module: nn.Module, _: object, output: Tensor) -> None:
        calls.append(module)
        outputs[id(output)] = output, module

    def before_normalization(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls.append(module)
        if inputs and id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][1], module))

    hooks = []
    for module in names:
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_convolution))
        elif _mergeable(module):
            hooks.append(module.register_forward_pre_hook(before_normalization))
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [(names[a], names[b]) for a, b in pairs if calls.count(a) == calls.count(b) == 1]


def _mergeable(module: nn.Module) -> bool:
    """Return True for PyTorch's batch normalization, and timm's with an activation after it."""
    own = type(module) is nn.BatchNorm2d or (
        isinstance(module, nn.BatchNorm2d) and hasattr(module, "act") and hasattr(module, "drop")
    )
    return own and getattr(module, "running_var", None) is not None


def _merge(model: nn.Module, pairs: list[tuple[str, str]]) -> nn.Module:
    """Replace the pairs by convolutions, and by the activations of the batch normalizations."""
    for convolution, normalization in pairs:
        own, after = model.get_submodule(convolution), model.get_submodule(normalization)
        model.set_submodule(convolution, fuse_conv_bn_eval(own, after))  # type: ignore[type-var, arg-type]
        steps = [getattr(after, name) for name in ("drop", "act") if hasattr(after, name)]
        model.set_submodule(normalization, nn.Sequential(*steps))
    return model
