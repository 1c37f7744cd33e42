"""README.md and docs/ describe what exists."""

import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from anklealign.config import params
from anklealign.ingest.layouts import LAYOUTS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)

# Folders that a run creates.
CREATED = {"data/raw/<dataset>/", "data/prepared/", "data/clean/", "data/split/", "model/"}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [line[2:].split("  #")[0].strip() for line in lines if line.startswith("$ ")]


def test_every_path_of_the_tree_exists_and_no_package_is_missing():
    (tree,) = [block for block in blocks("text") if block.startswith("Makefile  ")]
    folder = ""
    checked = 0
    for line in tree.splitlines():
        names = [w for w in line.split("   ")[0].split() if "." in w or w.endswith("/")]
        names = names or [line.split()[0]]
        if line.startswith(" "):
            paths = [folder + name for name in names]
        else:
            folder = names[0]
            paths = names
        for path in paths:
            if path not in CREATED:
                assert (ROOT / path).exists(), path
                checked += 1
    assert checked > 25
    packages = [p.parent.name for p in (ROOT / "anklealign").glob("*/__init__.py")]
    assert [name for name in packages if f"  {name}/" not in tree] == []


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_every_make_target_exists(command):
    done = subprocess.run(
        [*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_exists(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    for target in targets:
        # GitHub's pages of the workflows are beside the files of a branch.
        if "://" not in target and not target.startswith("../../actions/"):
            assert (page.parent / target).is_file(), target


def test_every_test_and_benchmark_that_a_page_names_exists():
    paths = re.findall(r"\b(?:tests|benchmarks|synthetic|anklealign)/[\w/]+\.py\b", TEXT)
    modules = re.findall(r"python -m ((?:benchmarks|synthetic|stages|service)\.?\w*)", TEXT)
    assert len(paths) > 5
    assert len(modules) > 5
    for path in [*paths, *(f"{module.replace('.', '/')}.py" for module in modules)]:
        assert (ROOT / path).is_file(), path


def test_every_model_of_params_yaml_is_in_the_table_and_no_other():
    (table,) = re.findall(r"\| variant \|.*?\n\n", TEXT, flags=re.DOTALL)
    cells = " ".join(row.strip("| ").split("|")[0] for row in table.splitlines())
    named = re.findall(r"`([a-z0-9_]+)`", cells)
    assert sorted(named) == sorted(params.read(ROOT / "params.yaml")["models"])


def test_every_dataset_config_of_the_pages_is_valid():
    checked = set()
    for block in blocks("yaml"):
        for name, values in YAML(typ="safe", pure=True).load(block).items():
            params.section({"datasets": {name: values}}, f"datasets.{name}", params.Dataset)
            checked.add(values["layout"])
    assert checked == set(LAYOUTS)


def test_the_readme_fits_on_few_screens():
    assert len(README.splitlines()) <= 220


def test_no_placeholder_remains():
    assert not re.search(r"^[A-Z]{4,}$|\b(BALANCED|SHARE|CEILING)\b", README, flags=re.MULTILINE)
