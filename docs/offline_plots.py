"""Make the pages of `dvc plots show` and `dvc plots diff` readable without a network.

    python -m docs.offline_plots          # once, with a network; needs npm

DVC's page loads Vega from a content delivery network. This script downloads the same versions with
npm (BSD-3-Clause, 0.8 MB), and writes a page template that contains them to
.dvc/tmp/offline_plots.html, which git ignores. It sets the template in .dvc/config.local.
"""

import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from dvc_render.html import PAGE_HTML
from dvc_render.vega import VegaRenderer

from anklealign.io.files import write_text

TEMPLATE = Path(".dvc/tmp/offline_plots.html")


def scripts(folder: Path) -> list[str]:
    """Download the scripts that DVC's page loads to a folder, and return their texts in order."""
    packages = re.findall(r"npm/([\w-]+@[\d.]+)", VegaRenderer.SCRIPTS)
    subprocess.run(["npm", "pack", "--silent", *packages], cwd=folder, check=True)  # noqa: S603, S607
    texts = []
    for package in packages:
        name, _, version = package.partition("@")
        with tarfile.open(folder / f"{name}-{version}.tgz") as archive:
            archive.extract(f"package/build/{name}.min.js", folder, filter="data")
        texts.append((folder / f"package/build/{name}.min.js").read_text(encoding="utf-8"))
    return texts


def main() -> None:
    """Write the template and set it for this clone."""
    with tempfile.TemporaryDirectory() as folder:
        texts = scripts(Path(folder))
    # In a string, "</script" would end the element.
    safe = [text.replace("</script", r"<\/script") for text in texts]
    elements = "\n".join(f"<script>{text}</script>" for text in safe)
    write_text(TEMPLATE, PAGE_HTML.replace("{scripts}", elements))
    name = TEMPLATE.relative_to(".dvc").as_posix()
    command = ["dvc", "config", "--local", "plots.html_template", name]
    subprocess.run(command, check=True)  # noqa: S603
    print(f"{TEMPLATE}: set for this clone in .dvc/config.local")


if __name__ == "__main__":
    main()
