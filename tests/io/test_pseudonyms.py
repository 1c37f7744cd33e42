"""Pseudonyms replace names of persons, not codes, and need their key."""

import stat
from pathlib import Path

import pytest

from anklealign.io import pixel_store
from anklealign.io.pseudonyms import Pseudonyms, key_path, looks_personal

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def key(tmp_path, monkeypatch):
    monkeypatch.setenv("PSEUDONYM_KEY_FILE", str(tmp_path / "config/key"))
    return tmp_path / "config/key"


@pytest.mark.parametrize(
    "name", ["anna", "Anna Kovács", "john.smith", "a@b.org", "kovacs_anna_1990", "ANNA",
             "person-1a2b3c4d", "Jürgen", "山田太郎"]
)  # fmt: skip
def test_names_look_personal(name):
    assert looks_personal(name)
    assert Pseudonyms().name(name).startswith("person-")
    assert Pseudonyms("none").name(name) == name


@pytest.mark.parametrize(
    "name", ["", "0E4GG3", "P12", "subject_01", "patient-7", "HAM_0000118", "01", "#3", "BECFAB",
             "site_b", "bfbq54", "cluster:8f4a44e2e3d4", "12"]
)  # fmt: skip
def test_codes_stay(name, key):
    assert Pseudonyms().name(name) == name
    assert not key.exists()  # no name needs it


def test_all_replaces_codes_too():
    assert Pseudonyms("all").name("P12") != "P12"
    assert Pseudonyms("all").name("") == ""


def test_pseudonyms_depend_on_the_key_and_only_its_owner_may_read_it(key, monkeypatch, capsys):
    first = Pseudonyms().name("anna")
    assert "new key" in capsys.readouterr().out
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert Pseudonyms().name("anna") == first  # read again
    assert len(first) == len("person-") + 16
    monkeypatch.setenv("PSEUDONYM_KEY_FILE", str(key.with_name("other")))
    assert Pseudonyms().name("anna") != first
    key.with_name("other").write_bytes(b"short")
    with pytest.raises(ValueError, match="5 bytes"):
        Pseudonyms().name("anna")


def test_the_default_key_lies_in_the_configuration_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("PSEUDONYM_KEY_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert key_path() == tmp_path / "anklealign/pseudonym_key"


def test_groups_and_paths_lose_their_names():
    names = Pseudonyms()
    anna = names.name("anna")
    assert names.group("person:anna/03") == f"person:{anna}/03"
    assert names.group("person:0E4GG3/anna") == f"person:0E4GG3/{anna}"
    for kept in ("6c836a0a3ad5", "cluster:38a76a0dfbfc", "person:0E4GG3/01"):
        assert names.group(kept) == kept
    path = names.path("anna/anna_03.jpg", "anna", "person:anna/03", "0123456789ab")
    assert path == f"{anna}/0123456789ab.jpg"
    assert names.path("x/a.jpg", "0E4GG3", "person:0E4GG3/01", "0") == "x/a.jpg"
    assert names.path("a/anna.png", "", "person:anna", "0123") == "0123.png"


def test_the_committed_predictions_have_no_name():
    table = pixel_store.read_table(ROOT / "plots/evaluate/predictions.csv")
    names = Pseudonyms()
    assert list(table.collector.map(names.name)) == list(table.collector)
    assert list(table.group.map(names.group)) == list(table.group)
