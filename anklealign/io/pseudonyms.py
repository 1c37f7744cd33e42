"""Keyed pseudonyms for the names of collectors, subjects and annotators in files that git keeps.

A pseudonym is the first 64 bits of an HMAC-SHA-256 (RFC 2104). Who has a list of names but not the
key can neither read nor check a name. The key is a file of the user outside of the project, which
is made when the first name needs it. The members of a team get the same pseudonyms if they copy it.
"""

import hashlib
import hmac
import os
import re
import secrets
from functools import cached_property
from pathlib import Path
from typing import Literal

KEY_VARIABLE = "PSEUDONYM_KEY_FILE"
KEY_BYTES = 32
# Words that describe a role and no person; other languages' words only cost readability.
ROLES = {
    "annotator", "camera", "cluster", "collector", "group", "hospital", "label", "lesion", "part",
    "participant", "patient", "person", "photographer", "rater", "reader", "sample", "scene",
    "site", "subject", "team", "unknown", "user", "volunteer",
}  # fmt: skip
CODE = re.compile(r"[0-9A-F]{6,}")  # hexadecimal, with or without digits
UNKEYED = re.compile(r"person-[0-9a-f]{8}")  # made from a name without a key (label_studio_export)


class Pseudonyms:
    """Replaces names: those that look personal (auto), all, or none."""

    def __init__(self, mode: Literal["auto", "all", "none"] = "auto") -> None:
        """Read no key yet."""
        self._mode = mode

    def name(self, name: str) -> str:
        """Return a name, or its pseudonym if it is to be replaced; '' stays."""
        if not name or self._mode == "none":
            return name
        if self._mode == "auto" and not looks_personal(name):
            return name
        digest = hmac.digest(self._key, name.encode("utf-8", "surrogatepass"), "sha256")
        return f"person-{digest.hex()[:16]}"

    def group(self, group: str) -> str:
        """Return a group (`person:collector/subject`) with the pseudonyms of its names."""
        kind, colon, rest = group.rpartition(":")
        if kind != "person":  # a photo's id, or a cluster of duplicates
            return group
        return kind + colon + "/".join(self.name(part) for part in rest.split("/"))

    def path(self, path: str, collector: str, group: str, photo: str) -> str:
        """Return the path of a photo; if it may have one of its names, its id instead."""
        if self.name(collector) == collector and self.group(group) == group:
            return path
        folder = f"{self.name(collector)}/" if collector else ""
        return f"{folder}{photo}{Path(path).suffix}"

    @cached_property
    def _key(self) -> bytes:
        """Return the key, which is made if there is none.

        Raises:
            OSError: The key cannot be read or written.
            ValueError: The file is too short for a key.
        """
        path = key_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
        else:
            key = secrets.token_bytes(KEY_BYTES)
            with os.fdopen(handle, "wb") as stream:
                stream.write(key)
            print(f"pseudonyms: new key in {path}; with a copy of it, others get the same names")
        if len(key) < KEY_BYTES:
            raise ValueError(f"{path} has {len(key)} bytes, and a key has {KEY_BYTES}; delete it")
        return hashlib.sha256(key).digest()


def key_path() -> Path:
    """Return the file of the key: $PSEUDONYM_KEY_FILE, or one in the user's configuration."""
    if path := os.environ.get(KEY_VARIABLE):
        return Path(path)
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "anklealign/pseudonym_key"


def looks_personal(name: str) -> bool:
    """Return True if a name may be that of a person, and False for a code such as 0E4GG3 or P12.

    An address, a word of three letters without digits next to it, or two such words with digits.
    Roles (patient, site, …) do not count.
    """
    if CODE.fullmatch(name):
        return False
    if "@" in name or UNKEYED.fullmatch(name):
        return True
    words = [word for word in re.findall(r"[^\W\d_]{3,}", name) if word.casefold() not in ROLES]
    return len(words) >= (2 if re.search(r"\d", name) else 1)
