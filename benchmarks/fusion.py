"""Measure what merging batch normalizations saves (anklealign/models/fusion.py).

    python -m benchmarks.fusion                      # a minute on 2 cores
    python -m benchmarks.fusion resnet50 densenet121 --image-size 160
    python -m benchmarks.fusion --return-memory      # as without `inputs.configure_cpu`

CPU time per photo of a network as it is trained, with channels-last tensors, and merged as well:
of uint8 pixels to logits in batches of 16, with 2 threads, the least of several runs that take
turns. Random weights do not change the time.
"""

import argparse
import copy
import time

import numpy as np
import timm
import torch
from torch import nn

from anklealign.models import fusion, inputs
from anklealign.models.bundle import default_input
from anklealign.models.input_config import CHUNK, InputConfig

CPU = torch.device("cpu")
NETWORKS = ("tf_efficientnet_lite0", "mobilenetv2_100", "mobilenetv3_small_100", "resnet18")


def main() -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description="CPU time of merged batch normalizations")
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="timm names")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--return-memory", action="store_true", help="return freed memory to the system"
    )
    options = parser.parse_args()
    torch.set_num_threads(2)
    if not options.return_memory:
        inputs.configure_cpu(2)
    print("| network | as trained, ms | channels last, ms | merged, ms | merged / as trained |")
    print("|---|--:|--:|--:|--:|")
    for name in options.networks:
        model = timm.create_model(name, num_classes=3).eval()
        config = default_input(model, options.image_size)
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        networks = (model, last, fusion.for_inference(copy.deepcopy(model), config))
        times = np.array(
            [[_seconds(own, config) for own in networks] for _ in range(options.runs)]
        ).min(0)
        cells = " | ".join(f"{1000 * value:.1f}" for value in times)
        print(f"| `{name}` | {cells} | {times[2] / times[0]:.2f} |", flush=True)


def _seconds(model: nn.Module, config: InputConfig) -> float:
    """Return the CPU seconds of a photo."""
    pixels = np.random.default_rng(0).integers(0, 256, (CHUNK, 256, 256, 3), np.uint8)
    start = time.process_time()
    inputs.logits(model, pixels, np.arange(len(pixels)), config, CPU)
    return (time.process_time() - start) / len(pixels)


if __name__ == "__main__":
    main()
