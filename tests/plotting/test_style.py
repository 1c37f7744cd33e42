"""Figures are deterministic."""

from PIL import Image

from anklealign.plotting import style


def test_figures_are_deterministic(tmp_path):
    for name in ("one.png", "two.png"):
        drawn = style.new(3, 2)
        drawn.subplots().barh([0, 1], [1, 2], label="bars")
        style.save(drawn, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert "Software" not in picture.info
