"""The site builds, its reference pages are those of the code, and its commands exist."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from dvc.cli.parser import get_main_parser
from playwright.sync_api import sync_playwright
from ruamel.yaml import YAML

from anklealign.cli.main import app
from anklealign.config import params
from anklealign.io import results
from anklealign.metrics import scores
from anklealign.models import bundle
from docs import reference
from tests.models.test_bundle import made

ROOT = Path(__file__).resolve().parents[1]
METRICS = ROOT / "docs/reference/metrics.md"
COMMANDS = typer.main.get_command(app).commands
# Documented keys that the committed run does not have, each with the reason.
CONDITIONAL = {
    "scores.mcc": "classes without an order",
    "notes.": "photos that are converted",
    "label_corrections.": "data/label_corrections.csv with rows for the dataset",
    "predefined": "predefined splits",
    "consensus.": "split.test: consensus",
    "operating_point.": "operating_point in the dataset config",
    "label_reliability.": "label_reliability in the dataset config",
    "shortcuts.warnings.": "an attribute that comes near the model",
    "human_baseline.accuracy.ci_": "10 groups and more with votes",
    "human_baseline.model_accuracy.ci_": "10 groups and more with votes",
    "human_baseline.model_gain.ci_": "10 groups and more with votes",
}


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def console_lines(text: str = "", *, ordered: bool = False) -> list[str]:
    """Return the commands of all console blocks of a page, or of all pages: one a side of `&&`."""
    text = text or "\n".join(page.read_text(encoding="utf-8") for page in pages())
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    commands = [part.strip() for line in lines for part in line[2:].split(" #")[0].split("&&")]
    return commands if ordered else sorted(set(commands))


# --- Reference pages --------------------------------------------------------------------------


@pytest.mark.parametrize("name", reference.pages())
def test_a_generated_page_is_current(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    committed = (ROOT / "docs/reference" / name).read_text(encoding="utf-8")
    assert committed == reference.pages()[name], "run `python -m docs.reference`"


def test_every_parameter_has_a_meaning():
    text = (ROOT / "docs/reference/params.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert [row for row in rows if not row.strip("| ").split(" | ")[-1].strip()] == []


def test_every_reason_code_of_the_code_is_on_the_page():
    text = (ROOT / "docs/reference/reasons.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    prepare, clean = (
        results.read_details(ROOT / f"metrics/details/{stage}.json")
        for stage in ("prepare", "clean")
    )
    used = set(clean["reasons"])
    for key, counts in prepare.items():
        if key.startswith("skipped"):
            used |= counts.keys() - {"total"}
    assert len(used) > 25
    assert used <= documented


def documented_keys() -> dict[str, list[str]]:
    """Return the keys that metrics.md documents for each file."""
    keys: dict[str, list[str]] = {}
    file, first = "", ""
    for line in METRICS.read_text(encoding="utf-8").splitlines():
        if named := re.findall(r"`metrics/(?:details/)?(\w+)\.json`", line):
            file = named[0]
        if not line.startswith("|"):
            first = ""
            continue
        cells = re.split(r"(?<!\\)\|", line.strip("| "))
        if not first:
            first = cells[0].strip()
        elif first == "key":
            keys.setdefault(file, []).extend(re.findall(r"`([^`]+)`", cells[0]))
    return keys


def pattern(key: str) -> re.Pattern[str]:
    """Return the pattern of a documented key, whose placeholders stand for any name."""
    names = "|".join([*scores.OVERALL, *scores.FURTHER, *scores.PER_CLASS])
    text = re.escape(key).replace("<score>", f"(?:{names})")
    return re.compile(re.sub(r"<\w+>", ".+", text))


def leaves(value, prefix=""):
    """Return the dotted keys of all values."""
    if isinstance(value, dict) and value:
        return [key for name, v in value.items() for key in leaves(v, f"{prefix}{name}.")]
    return [prefix[:-1]]


@pytest.mark.parametrize("file", ["scores", *results.STAGES])
def test_metrics_and_their_page_have_the_same_keys(file):
    if file == "scores":
        actual = leaves(json.loads((ROOT / "metrics/scores.json").read_text(encoding="utf-8")))
    else:
        actual = leaves(results.read_details(ROOT / f"metrics/details/{file}.json"))
    documented = {key: pattern(key) for key in documented_keys()[file]}
    missing = [key for key in actual if not any(p.fullmatch(key) for p in documented.values())]
    assert missing == [], "document them in docs/reference/metrics.md"
    unused = [key for key, p in documented.items() if not any(map(p.fullmatch, actual))]
    assert [key for key in unused if not key.startswith(tuple(CONDITIONAL))] == []


def test_every_score_has_a_formula():
    text = METRICS.read_text(encoding="utf-8")
    (table,) = re.findall(r"\| score \| formula.*?\n\n", text, flags=re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)
    assert sorted(rows) == sorted([*scores.OVERALL, *scores.FURTHER])


# --- Commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [c for c in console_lines() if "anklealign " in c])
def test_every_anklealign_command_has_these_options(command):
    # The folder of a clone may be named like the command.
    words = shlex.split(command)
    if words[0] != "anklealign":
        pytest.skip("not the command")
    COMMANDS[words[1]].make_context(words[1], words[2:])


@pytest.mark.parametrize("command", [c for c in console_lines() if c.startswith("dvc ")])
def test_every_dvc_command_has_these_options_and_parameters(command):
    arguments = get_main_parser().parse_args(shlex.split(command)[1:])
    raw = params.read(ROOT / "params.yaml")
    for setting in getattr(arguments, "set_param", None) or []:
        key, _, value = setting.partition("=")
        section = raw
        for name in key.split("."):
            assert name in section, f"{key} is no key of params.yaml"
            section = section[name]
        if key == "model":
            assert set(value.split(",")) <= raw["models"].keys()


@pytest.mark.parametrize("command", [c for c in console_lines() if c.startswith("curl ")])
def test_every_address_of_a_curl_command_is_one_of_the_service(command):
    (path,) = re.findall(r"http://localhost:8000(/\S+)", command)
    assert f'"{path}"' in (ROOT / "service/routes.py").read_text(encoding="utf-8")


def test_the_other_commands_name_what_exists():
    services = YAML(typ="safe").load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    checked = 0
    for command in console_lines():
        words = command.split()
        if words[:2] == ["docker", "compose"]:
            assert words[-1] in services["services"], command
        elif words[0] == "python":
            module = words[1] == "-m" and words[2].replace(".", "/") + ".py"
            assert (ROOT / (module or words[1])).is_file(), command
        elif words[0] in {"torchrun", "gto"}:
            assert shutil.which(words[0], path=str(Path(sys.executable).parent)), command
        else:
            known = {"make", "git", "anklealign", "dvc", "curl", ".", "cd", "cp", "pip", "ray",
                     "duckdb", "kubectl"}  # fmt: skip
            assert words[0] in known, f"{command}: test commands of this kind"
            continue
        checked += 1
    assert checked >= 5


# --- Notebook ---------------------------------------------------------------------------------


def test_the_notebook_runs_in_a_kernel(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    bundle.save(tmp_path / "model", made())
    folder = tmp_path / "examples"
    shutil.copytree(ROOT / "examples/photos", folder / "photos")
    (folder / "photos/broken.jpg").write_text("no photo")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(ROOT / "examples/notebook.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "clear the outputs before you commit"
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=where).execute()
    outputs = [output for cell in cells for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "broken.jpg: left out (not_an_image)" in printed
    assert "3 photos of 256 px" in printed
    assert printed.count("%)") == 3
    (figure,) = [output for output in outputs if output.output_type == "display_data"]
    assert len(figure.data["image/png"]) > 50_000  # three photos with heat maps, base64


# --- Site -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_loads_nothing_from_the_network(site):
    html = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert len(html) > 20
    loaded = r"<(?:script|img|iframe|source)[^>]+src=[\"']?(?:https?:)?//[^\s\"'>]+"
    linked = r"<link[^>]+(?:stylesheet|preconnect|icon)[^>]+href=[\"']?(?:https?:)?//[^\s\"'>]+"
    for path, text in html.items():
        assert re.findall(loaded, text) + re.findall(linked, text) == [], path.name
    assert "Return calibrated probabilities" in html[site / "reference/api.html"]


def test_the_search_works_from_a_file_and_a_phone_needs_no_sideways_scrolling(site):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=arguments) as browser,
    ):
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("leakage_residual")
        page.wait_for_selector(".md-search-result__item a[href*='reference/params.html']")
        page.set_viewport_size({"width": 390, "height": 844})
        for name in ("index", "faq", "reference/params", "reference/metrics", "model-zoo"):
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob", "about"}
