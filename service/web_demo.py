"""Write the page as a folder for any web space, with the model in the browser.

    anklealign export --web DIR [--model model]

The page is the one of the service; service/web/ has what takes the place of its API. The runtime is
onnxruntime-web, of which npm downloads the version in service/web/package-lock.json and checks its
hash: 14 MB of WebAssembly are not kept in git or in the package. The folder holds the network, the
text and the example photos of the bundle, its scores, and the features of up to 2,000 training
photos, by which it recognizes photos unlike them. Whoever can open the page can copy all of these.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnxruntime

from anklealign.cli import export
from anklealign.config import paths
from anklealign.inference.predictor import Predictor
from anklealign.io import files
from anklealign.models.novelty_detector import GENERAL_INPUT, NEIGHBORS
from service.app import INDEX, PAGE, fill_page
from service.catalog import ServedModel, serve_model

WEB = Path(__file__).parent / "web"
RUNTIME = {
    "ort.wasm.bundle.min.mjs": "ort.min.mjs",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
# Only files of the page's own origin are loaded, and a form cannot be sent.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' blob: data:; media-src blob:; base-uri 'none'; "
    "form-action 'none'"
)
MODEL_FILES = "model"
# What no visitor needs: training settings, versions and hashes of the data.
PRIVATE = {"record", "hashes", "engine", "device"}


def write_demo(model: Path, out: Path, metrics: Path = paths.METRICS) -> int:
    """Write the folder; return the exit status, 1 on an error.

    A folder that this command wrote earlier is replaced; another one is left as it is.
    """
    try:
        check_target(out)
        with replacing_folder(out) as folder:
            file = Path(MODEL_FILES, "model.onnx")
            if status := export.export_model(model, folder / file, out / file):
                return status
            own = serve_model("model", model, metrics, Predictor.load(model, "cpu"), "onnx")
            describe_model(own, folder / MODEL_FILES)
            copy_runtime(folder / "page/ort")
            copy_page(own, folder)
    except (ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in files.walk(out) if path.is_file()) / 1e6
    print(
        f"export: {out}, {size:.0f} MB for any web space; to try it: python -m http.server -d {out}"
    )
    return 0


def check_target(out: Path) -> None:
    """Raise ValueError if the folder holds anything but an earlier demo."""
    earlier = (out / MODEL_FILES / "model.json").is_file()
    if out.exists() and not earlier and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is no earlier export; choose a new folder")


@contextmanager
def replacing_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder, which replaces `out` if it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary) / "demo"
        folder.mkdir()
        yield folder
        if (folder / INDEX).is_file():
            shutil.rmtree(out, ignore_errors=True)
            folder.replace(out)


def copy_runtime(target: Path) -> None:
    """Download onnxruntime-web with npm, and copy what the page needs, with its licenses.

    Raises:
        ValueError: npm is not installed, or fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError("npm is not on the PATH; install Node.js, which has it")
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(WEB / name, Path(temporary) / name)
        command = [npm, "ci", "--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error"]
        done = subprocess.run(  # noqa: S603
            command, cwd=temporary, capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise ValueError(f"npm could not install onnxruntime-web: {lines[0]}")
        target.mkdir(parents=True)
        for source, name in RUNTIME.items():
            shutil.copyfile(
                Path(temporary, "node_modules/onnxruntime-web/dist", source), target / name
            )
    # npm's package has none; those of the Python package are of the same project.
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        shutil.copyfile(Path(onnxruntime.__file__).parent / name, target / name)


def describe_model(own: ServedModel, target: Path) -> None:
    """Write novelty.bin and model.json beside the exported networks."""
    content: dict[str, Any] = {
        "model": own.description.model_dump(exclude=PRIVATE),
        "examples": own.examples.examples,
    }
    detector = own.predictor.bundle.novelty
    if detector is not None:
        content["novelty"] = {
            "threshold": detector.threshold,
            "neighbors": min(NEIGHBORS, len(detector.references)),
            "input": asdict(GENERAL_INPUT),
        }
        with files.replacing(target / "novelty.bin") as path:
            path.write_bytes(detector.references.astype("<f2").tobytes())
    files.write_json(target / "model.json", content)


def copy_page(model: ServedModel, folder: Path) -> None:
    """Copy the service's page, with the modules of service/web/ in place of its API."""
    for source in (PAGE, WEB):
        for file in sorted(source.glob("*")):
            if file.name != INDEX and not file.name.startswith("package"):
                shutil.copyfile(file, folder / "page" / file.name)
    text = fill_page((PAGE / INDEX).read_text(encoding="utf-8"), model.description)
    meta = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    head = '<meta charset="utf-8">'
    files.write_text(folder / INDEX, text.replace(head, f"{head}\n  {meta}", 1))
