"""Schemathesis hooks that generate valid photos, which JSON Schema cannot describe."""

import schemathesis
from hypothesis import strategies as st

from tests.service.conftest import photo

PHOTOS = st.sampled_from([photo(0), photo(1, kind="PNG"), photo(2, kind="WEBP")])

schemathesis.openapi.format("binary", PHOTOS)
for name in ("image/jpeg", "image/png", "image/webp", "image/heic", "application/octet-stream"):
    schemathesis.openapi.media_type(name, PHOTOS)
