"""The table of licenses is up to date, and no package is under the GPL or AGPL alone."""

from email.message import Message

import pytest

from docs import licenses

ROWS = licenses.read_rows()


def test_the_table_has_the_license_of_every_installed_package():
    installed = licenses.installed_licenses()
    assert len(installed) > 100
    stale = {name: text for name, text in installed.items() if ROWS.get(name) != text}
    assert not stale, "run `python -m docs.licenses`"
    assert licenses.PAGE.read_text(encoding="utf-8") == licenses.page(ROWS)


def test_the_gpl_needs_an_argued_exception():
    copyleft = {name for name, text in ROWS.items() if licenses.COPYLEFT.search(text)}
    assert copyleft == licenses.EXCEPTIONS.keys(), "replace the package, or give a reason"


@pytest.mark.parametrize(
    ("text", "copyleft"),
    [("GPL-3.0-only", True), ("GNU Affero General Public License v3", True), ("AGPL-3.0", True),
     ("GNU General Public License v2 (GPLv2)", True), ("GPLv3", True), ("MIT", False),
     ("GNU Lesser General Public License v3 (LGPLv3)", False), ("LGPL-3.0-or-later", False)],
)  # fmt: skip
def test_copyleft_licenses_are_known(text, copyleft):
    assert bool(licenses.COPYLEFT.search(text)) is copyleft


def test_a_license_comes_from_the_expression_the_classifiers_or_the_text():
    metadata = Message()
    assert licenses.license_of(metadata) == "not declared"
    metadata["License"] = "Custom\nlong text"
    assert licenses.license_of(metadata) == "Custom"
    metadata["Classifier"] = "License :: OSI Approved :: MIT License"
    assert licenses.license_of(metadata) == "MIT License"
    metadata["License-Expression"] = "Apache-2.0"
    assert licenses.license_of(metadata) == "Apache-2.0"
