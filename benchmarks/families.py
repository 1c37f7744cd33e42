"""Run every family of timm's networks through what the pipeline asks of a network.

    python -m benchmarks.families               # all families, half an hour on one core
    python -m benchmarks.families cait levit    # some families
    python -m benchmarks.families --in-chans 1  # gray photos

A family is a module of timm with registered architectures. Of each, the member with the fewest
weights runs with random weights: build, one training step, attribution maps, the bundle saved and
loaded, ONNX export, and linear probe (freeze, and whether the features of the frozen backbone are
computed once). A step that fails prints its error; the later steps of the family run nevertheless.
Each family has a process of its own: a step in which it dies is reported as such, and the later
ones do not run. Exit status: 1 if a family that is built fails another step.
"""

import argparse
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from anklealign.cli import export
from anklealign.config.params import Model
from anklealign.explainability import attribution
from anklealign.inference import onnx_predictor
from anklealign.inference.onnx_predictor import OnnxPredictor
from anklealign.inference.predictor import Predictor
from anklealign.models import bundle, factory, inputs, networks
from anklealign.models.bundle import Bundle
from anklealign.models.description import Preprocessing

CLASSES = ("a", "b", "c")
STEPS = ("build", "train", "explain", "bundle", "export", "probe")
SECONDS = 1400  # of CPU time of a family: deepseek_vit, the largest, takes 815 on 2 busy cores
WALL_FACTOR = 20  # wall time for each second of CPU time: the machine may be busy
STORE_SIZE = 64  # px

# The member with the fewest weights of each family, as of timm 1.0; measured on the meta device.
SMALLEST = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "test_byobnet",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "test_convnext",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "test_efficientnet",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m_enc",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "test_mambaout",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "lcnet_035",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "vit_relpos_small_patch16_rpn_224",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41",
    "xcit": "xcit_nano_12_p16_224",
}


def families() -> list[str]:
    """Return the names of the families of the installed timm, without this project's networks."""
    own = networks.__name__.rpartition(".")[2]
    return [name for name in timm.list_modules() if timm.list_models(module=name) and name != own]


def smallest(family: str) -> str:
    """Return the smallest member of a family; of a family newer than the table, the first one."""
    members = timm.list_models(module=family)
    known = SMALLEST.get(family, "")
    return known if known in members else members[0]


def weights(architecture: str) -> int:
    """Return the number of weights of a network; none are allocated.

    Raises:
        Exception: timm cannot build it on the meta device.
    """
    with torch.device("meta"):
        model = timm.create_model(architecture)
    return sum(parameter.numel() for parameter in model.parameters())


def run_apart(architecture: str, in_chans: int = 3, seconds: int = SECONDS) -> dict[str, str]:
    """Return the outcome of each step, of a process of its own that may die or hang.

    Args:
        architecture: timm name.
        in_chans: Input channels of the network.
        seconds: CPU time after which the process is ended.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run_and_send, args=(architecture, in_chans, theirs, seconds))
    process.start()
    theirs.close()
    outcome = dict.fromkeys(STEPS, "not run")
    deadline = time.monotonic() + WALL_FACTOR * seconds
    problem = ""
    while True:
        if not ours.poll(max(0.0, deadline - time.monotonic())):
            process.kill()
            problem = f"takes more than {WALL_FACTOR * seconds} s"
            break
        try:
            step, result = ours.recv()
        except EOFError:
            break
        outcome[step] = result
    process.join()
    if process.exitcode and not problem:
        code = process.exitcode
        problem = f"crashes on this CPU ({signal.Signals(-code).name if code < 0 else code})"
        if code == -signal.SIGXCPU:
            problem = f"takes more than {seconds} s of CPU time"
    step = next((name for name in STEPS if outcome[name] == "not run"), "")
    return outcome | ({step: problem} if problem and step else {})


def _run_and_send(architecture: str, in_chans: int, connection: Connection, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    run(architecture, in_chans, lambda step, result: connection.send((step, result)))


def run(
    architecture: str,
    in_chans: int = 3,
    report: Callable[[str, str], None] = lambda *_: None,
) -> dict[str, str]:
    """Return the outcome of each step: ok, or what failed.

    Args:
        architecture: timm name.
        in_chans: Input channels of the network.
        report: Called with each step and its outcome.
    """
    torch.manual_seed(1)
    outcome = dict.fromkeys(STEPS, "not run")
    size = int(timm.get_pretrained_cfg(architecture).input_size[1])  # type: ignore[union-attr]
    arguments: dict[str, int | float | str | bool | tuple[int, ...]] = (
        {} if in_chans == 3 else {"in_chans": in_chans}
    )
    config = Model(architecture, size, epochs=1, learning_rate=1e-4, arguments=arguments)
    preprocessing = Preprocessing(STORE_SIZE, "letterbox", 114, 80)
    try:
        model = factory.build("custom", config, len(CLASSES))
        input_config = bundle.default_input(model, size)
        trained = Bundle(CLASSES, preprocessing, input_config, 1.0, 0.5, {}, model=model)
        attribution.check(trained)
    except ValueError as error:
        report("build", f"refused: {error}")
        return outcome | {"build": f"refused: {error}"}
    pixels = np.random.default_rng(3).integers(0, 256, (2, STORE_SIZE, STORE_SIZE, 3), np.uint8)
    steps: dict[str, Callable[[], str]] = {
        "build": lambda: "ok",
        "train": partial(train, trained, pixels),
        "explain": partial(explain, trained, pixels),
        "bundle": partial(save_and_load, trained, pixels),
        "export": partial(export_to_onnx, trained, pixels),
        "probe": partial(probe, trained, pixels),  # freezes the model
    }
    for name, step in steps.items():
        try:
            outcome[name] = step()
        except Exception as error:  # noqa: BLE001 - the outcome is what this measures
            outcome[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        report(name, outcome[name])
    return outcome


def train(trained: Bundle, pixels: np.ndarray) -> str:
    """Take one step of gradient descent; the loss and all weights must stay finite."""
    model = trained.model.train()
    x = inputs.to_input(pixels, trained.input_config, torch.device("cpu"))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    loss = nn.functional.cross_entropy(model(x), torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    finite = all(bool(p.isfinite().all()) for p in model.parameters())
    return "ok" if bool(loss.isfinite()) and finite else "not finite"


def explain(trained: Bundle, pixels: np.ndarray) -> str:
    """Compute the maps of each class; they must be finite and show evidence for one of them."""
    maps = np.stack(
        [attribution.heat_maps(trained, pixels, np.full(len(pixels), k)) for k in range(3)]
    )
    if not np.isfinite(maps).all() or maps.min() < 0 or maps.max() > 1 + 1e-6:
        return "maps outside 0 to 1"
    varied = (maps.std((2, 3)) > 0).any(0).all()
    return "ok" if varied else "no evidence for any class"


def save_and_load(trained: Bundle, pixels: np.ndarray) -> str:
    """Save the bundle and load it; the logits must be the same."""
    rows, device = np.arange(len(pixels)), torch.device("cpu")
    before = inputs.logits(trained.model, pixels, rows, trained.input_config, device)
    with tempfile.TemporaryDirectory() as folder:
        bundle.save(Path(folder), trained)
        loaded = bundle.load(Path(folder))
    after = inputs.logits(loaded.model, pixels, rows, loaded.input_config, device)
    return "ok" if np.allclose(before, after, atol=1e-4) else "other logits"


def export_to_onnx(trained: Bundle, pixels: np.ndarray) -> str:
    """Export the network; the probabilities must be those of PyTorch, or it says that it cannot."""
    try:
        session = onnx_predictor.open_session(export.exported(trained).SerializeToString())
        reference = Predictor(trained, torch.device("cpu"))
        export.compare(reference, OnnxPredictor(trained, lambda: reference, session), pixels)
    except ValueError as error:
        if "serve with PyTorch" not in str(error):
            raise
        return f"ok, refused: {' '.join(str(error).split())[:120]}"
    return "ok"


def probe(trained: Bundle, pixels: np.ndarray) -> str:
    """Freeze all but the head, and train it on features where the network has them."""
    model = trained.model
    factory.freeze(model)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    heads = {id(p) for head in factory.classifiers(model) for p in head.parameters()}
    if not names or any(id(p) not in heads for p in model.parameters() if p.requires_grad):
        return f"trains {names[:3]}"
    device = torch.device("cpu")
    x = inputs.to_input(pixels, trained.input_config, device)
    head = factory.classifier_of_features(model, x)
    if head is None:
        model(x).sum().backward()
        return "ok, whole network"
    rows = np.arange(len(pixels))
    features = inputs.features(model, pixels, rows, trained.input_config, device)
    head(features).sum().backward()
    return "ok"


def main() -> int:
    """Print the outcome of each family and the number that passes each step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("families", nargs="*")
    parser.add_argument("--in-chans", type=int, default=3, help="input channels, 1 or 3")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="CPU time of a family")
    options = parser.parse_args()
    passed = dict.fromkeys(STEPS, 0)
    failed = 0
    names = options.families or families()
    print(f"| family | member | {' | '.join(STEPS)} |\n|{' --- |' * (2 + len(STEPS))}")
    remarks = []
    for family in names:
        outcome = run_apart(smallest(family), options.in_chans, options.seconds)
        cells = [result.partition(" ")[0].rstrip(",:") for result in outcome.values()]
        cells = [cell if cell in {"ok", "refused"} else "-" for cell in cells]
        print(f"| {family} | `{smallest(family)}` | {' | '.join(cells)} |", flush=True)
        for step, result in outcome.items():
            passed[step] += result.startswith("ok")
            if result not in {"ok", "not run"}:
                remarks.append(f"- {family}, {step}: {result}")
        failed += not outcome["build"].startswith("refused") and any(
            not result.startswith("ok") for result in outcome.values()
        )
    print("", *remarks, sep="\n")
    counts = ", ".join(f"{step} {count}" for step, count in passed.items())
    print(f"\n{len(names)} families, {failed} fail; ok: {counts}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
