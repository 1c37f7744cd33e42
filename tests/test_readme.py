"""What the README says is there, is there."""

import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from anklealign.config import params

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [line[2:].split("  #")[0].strip() for line in lines if line.startswith("$ ")]


def test_every_file_of_the_tree_exists():
    (tree,) = [block for block in blocks("text") if "Makefile" in block]
    made = {"data/raw/<dataset>/", "data/prepared/", "data/clean/", "data/split/", "model/"}
    folder = ""
    checked = 0
    for line in tree.splitlines():
        names = [w for w in line.split("   ")[0].split() if "." in w or w.endswith("/")]
        names = names or [line.split()[0]]
        if not line.startswith(" "):
            folder = names[0] if names[0].endswith("/") and len(names) == 1 else ""
            paths = names
        else:
            paths = [folder + name for name in names]
        for path in paths:
            if path not in made:
                assert (ROOT / path).exists(), path
                checked += 1
    assert checked > 30
    # And no package is missing.
    packages = [p.parent.name for p in (ROOT / "anklealign").glob("*/__init__.py")]
    assert [name for name in packages if f"  {name}/" not in tree] == []


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_every_make_target_exists(command):
    done = subprocess.run(
        [*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_picture_of_the_page_exists():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file(), picture


def test_every_variant_of_the_table_is_one_of_params_yaml_and_none_is_left_out():
    (table,) = re.findall(r"\| variant \|.*?\n\n", README, flags=re.DOTALL)
    cells = " ".join(row.strip("| ").split("|")[0] for row in table.splitlines())
    named = re.findall(r"`([a-z0-9_]+)`", cells)
    assert sorted(named) == sorted(params.read(ROOT / "params.yaml")["models"])


def test_every_dataset_block_of_the_page_is_sound():
    raw = params.read(ROOT / "params.yaml")
    found = 0
    for block in blocks("yaml"):
        for name, values in YAML(typ="safe", pure=True).load(block).items():
            params.section({"datasets": {name: values}}, f"datasets.{name}", params.Dataset)
            assert name in raw["datasets"]
            found += 1
    assert found == 2


def test_no_placeholder_is_left():
    assert not re.search(r"^[A-Z]{4,}$|\b(BALANCED|SHARE|CEILING)\b", README, flags=re.MULTILINE)
