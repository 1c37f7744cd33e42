import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from anklealign.cleaning import image_quality
from anklealign.cleaning.image_quality import ImageQuality
from anklealign.io import decode, pixel_store
from anklealign.similarity.borders import PhotoPixels

LIMITS = {
    "too_small": 64,
    "aspect": 4.0,
    "dark": 45,
    "bright": 190,
    "low_contrast": 48,
    "blurred": 0.7,
}


def scene(seed: int = 0, side: int = 768) -> Image.Image:
    """Sharp patches of many sizes, as photos have them."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (side, side * 3 // 4), (120, 110, 100))
    for size in (12, 24, 48):
        patch = rng.integers(20, 230, (size * 3 // 4, size, 3), dtype=np.uint8)
        layer = Image.fromarray(patch).resize(picture.size, Image.Resampling.NEAREST)
        picture = Image.blend(picture, layer, 0.45)
    return picture


def measured(picture: Image.Image, compression: int = 90, fit: str = "letterbox") -> ImageQuality:
    """Return the scores of a picture that went into a store of 256 pixels and came out of it."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=compression)
    opened = Image.open(stream)
    pixels, box = decode.fit(opened, 256, fit, 114)
    table = pd.DataFrame([{"row": 0, "width": opened.width, "height": opened.height}])
    table[["left", "top", "right", "bottom"]] = box
    (shown,) = pixel_store.Pictures(table, pixels[None], fit)
    return image_quality.measure(PhotoPixels(shown), *opened.size, square=fit == "crop")


def reason(picture: Image.Image, fit: str = "letterbox") -> str | None:
    return first_reason(measured(picture, fit=fit))


def first_reason(quality: ImageQuality) -> str | None:
    """Return the first reason of a photo whose set is too small to have limits of its own."""
    (faults,) = image_quality.find_faults([quality], [], LIMITS)
    return faults[0].reason if faults else None


def blurred(picture: Image.Image, percent: float) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(percent / 100 * max(picture.size)))


@pytest.mark.parametrize("seed", range(5))
def test_a_good_photo_has_no_quality_issue(seed: int) -> None:
    assert reason(scene(seed)) is None


@pytest.mark.parametrize("percent", [1.0, 1.5, 2.0])
def test_the_blur_is_measured_in_percent_of_the_photo(percent: float) -> None:
    edge = Image.new("RGB", (800, 600), (60, 70, 80))
    edge.paste((190, 180, 170), (400, 0, 800, 600))
    assert measured(blurred(edge, percent)).blurred == pytest.approx(percent, rel=0.2)


@pytest.mark.parametrize("side", [192, 400, 768, 1600])
def test_sharpness_does_not_depend_on_the_number_of_pixels(side: int) -> None:
    assert reason(scene(side=side)) is None
    assert reason(blurred(scene(side=side), 1.5)) == "blurred"


@pytest.mark.parametrize("fit", ["letterbox", "crop", "stretch"])
@pytest.mark.parametrize("size", [(768, 576), (576, 768), (260, 70), (900, 300)])
def test_the_scores_do_not_depend_on_how_the_photo_was_fitted(size, fit: str) -> None:
    picture = scene(side=2048).crop((500, 500, 500 + size[0], 500 + size[1]))
    whole, fitted = measured(picture), measured(picture, fit=fit)
    assert fitted.blurred == pytest.approx(whole.blurred, abs=0.2)
    assert fitted.aspect == pytest.approx(whole.aspect, rel=0.03)
    assert fitted.too_small == pytest.approx(min(size), rel=0.03)
    soft = measured(blurred(picture, 1.5), fit=fit)
    assert soft.blurred == pytest.approx(1.5, abs=0.4)


def test_a_border_neither_hides_blur_nor_darkens() -> None:
    for color in ("black", "white"):
        framed = ImageOps.expand(blurred(scene(), 1.5), 60, color)
        assert reason(framed) == "blurred"
        assert reason(ImageOps.expand(scene(), 150, color)) is None


def test_a_sharp_subject_before_a_blurred_ground_is_sharp() -> None:
    picture = blurred(scene(), 2.0)
    subject = scene().crop((250, 180, 500, 400))
    picture.paste(subject, (250, 180))
    assert reason(picture) is None


def test_compression_neither_makes_nor_hides_blur() -> None:
    assert measured(scene(), 50).blurred < LIMITS["blurred"]
    assert measured(blurred(scene(), 1.5), 50).blurred > LIMITS["blurred"]


@pytest.mark.parametrize(
    ("expected", "change"),
    [
        ("dark", lambda level: 0.15 * level),
        ("bright", lambda level: 255 - 0.15 * (255 - level)),
        ("low_contrast", lambda level: 128 + 0.12 * (level - 128)),
    ],
)
def test_each_exposure_issue_has_its_reason(expected: str, change) -> None:
    assert reason(scene().point(change)) == expected


def test_small_and_narrow_photos_have_their_reasons() -> None:
    assert reason(scene().resize((60, 45))) == "too_small"
    strip = scene().crop((0, 200, 768, 300))
    assert reason(strip) == "aspect"
    assert reason(ImageOps.pad(strip, (768, 220), color="black")) == "aspect"
    strip.paste((90, 90, 90), (0, 0, 220, 100))
    strip.paste((90, 90, 90), (548, 0, 768, 100))
    assert reason(strip) == "aspect"


def test_a_thumbnail_of_a_product_on_white_is_as_large_as_it_came() -> None:
    thumbnail = Image.new("RGB", (100, 100), "white")
    thumbnail.paste(scene().resize((72, 48)), (14, 26))
    assert measured(thumbnail).too_small == 100
    assert reason(thumbnail) is None


def test_a_photo_of_one_color_is_low_in_contrast_and_not_blurred() -> None:
    plain = measured(Image.new("RGB", (300, 300), (120, 120, 120)))
    assert plain.low_contrast == 0
    assert plain.blurred == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 256), (256, 2), (7, 7), (8, 300)])
def test_any_shape_has_finite_scores(shape) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    scores = image_quality.measure(PhotoPixels(pixels), shape[1], shape[0])
    assert all(np.isfinite(value) for value in vars(scores).values())


def test_a_score_on_its_threshold_is_good() -> None:
    assert first_reason(ImageQuality(**LIMITS, edge_width=0.7, area=9, framed=False)) is None


def qualities(**scores: list[float]) -> list[ImageQuality]:
    """Return measures of good photos but for these scores."""
    good = {
        "too_small": 300.0, "aspect": 1.3, "dark": 200.0, "bright": 20.0, "low_contrast": 200.0,
        "blurred": 0.2, "edge_width": 0.2, "area": 9e4, "framed": False,
    }  # fmt: skip
    rows = zip(*scores.values(), strict=True)
    return [ImageQuality(**good | dict(zip(scores, row, strict=True))) for row in rows]


def unusable(measures: list[ImageQuality], *sets: list[str]) -> list[int]:
    """Return the positions of the photos with a fault."""
    faults = image_quality.find_faults(measures, sets, LIMITS)
    return [photo for photo, found in enumerate(faults) if found]


SETS = {  # a score beyond the threshold that is usual in a set, and one that is unusual in it
    "too_small": (28.0, 8.0),
    "aspect": (5.0, 40.0),
    "dark": (20.0, 3.0),
    "bright": (200.0, 245.0),
    "low_contrast": (30.0, 4.0),
    "blurred": (1.1, 3.9),
}


@pytest.mark.parametrize("reason", SETS)
def test_what_is_usual_in_a_set_is_no_fault_but_what_is_unusual_is(reason: str) -> None:
    usual, unusual = SETS[reason]
    rng = np.random.default_rng(0)
    scores = list(usual * (1 + 0.02 * rng.standard_normal(60)))
    assert unusable(qualities(**{reason: scores})) == []
    scores[7] = unusual
    assert unusable(qualities(**{reason: scores})) == [7]
    # Too few photos to tell what is usual:
    assert len(unusable(qualities(**{reason: scores[:12]}))) == 12


@pytest.mark.parametrize("reason", SETS)
def test_faults_in_a_tenth_of_the_photos_do_not_hide_each_other(reason: str) -> None:
    good = getattr(qualities(area=[9e4])[0], reason)
    bad = {
        "too_small": 30, "aspect": 6, "dark": 25, "bright": 215, "low_contrast": 30, "blurred": 1.3
    }[reason]  # fmt: skip
    rng = np.random.default_rng(0)
    scores = [good * float(1 + 0.1 * rng.standard_normal()) for _ in range(90)] + [bad] * 10
    assert unusable(qualities(**{reason: scores})) == list(range(90, 100))


def test_an_unusual_photo_that_is_good_in_itself_is_kept() -> None:
    assert unusable(qualities(dark=[250.0] * 50 + [90.0])) == []


def test_a_class_or_collector_whose_photos_are_all_alike_is_kept() -> None:
    contrast = [200.0 + n % 30 for n in range(225)] + [36.0 + n % 5 for n in range(25)]
    measures = qualities(low_contrast=contrast)
    material = ["brick"] * 225 + ["concrete"] * 25
    mixed = ["x", "y"] * 125
    assert unusable(measures) == unusable(measures, mixed) == list(range(225, 250))
    assert unusable(measures, material) == unusable(measures, mixed, material) == []


def test_a_wide_range_of_good_photos_hides_no_fault() -> None:
    hats = [100.0] * 30 + [230.0] * 70
    assert unusable(qualities(dark=[*hats, 30.0])) == [100]


def test_a_single_small_bright_object_is_contrast() -> None:
    field = np.full((256, 256, 3), 12, np.uint8)
    field[100:112, 100:112] = 120  # 0.2 percent of the pixels
    scores = image_quality.measure(PhotoPixels(field), 256, 256)
    assert scores.low_contrast > LIMITS["low_contrast"]


def test_a_white_product_on_white_is_not_overexposed() -> None:
    product = Image.new("RGB", (600, 600), "white")
    draw = ImageDraw.Draw(product)
    draw.rectangle((150, 100, 450, 500), fill=(232, 230, 228))
    draw.rectangle((250, 200, 266, 216), fill=(140, 138, 136))  # 0.2 percent of its box
    assert reason(product) is None
    washed_out = scene().point(lambda level: 204 + 0.2 * level)
    assert reason(washed_out) == "bright"


def test_margins_on_all_sides_make_no_strip_but_bars_do() -> None:
    line = scene().crop((0, 200, 768, 300))
    page = Image.new("RGB", (900, 900), "white")
    page.paste(line, (66, 400))
    assert reason(page) is None
    assert reason(ImageOps.pad(line, (768, 220), color="black")) == "aspect"


def test_fine_hairs_on_a_soft_lesion_make_a_sharp_photo() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:600, :600]
    gray = 200 - 120 * np.exp(-((x - 300) ** 2 + (y - 300) ** 2) / 2 / 60**2)
    soft = measured(Image.fromarray(gray.astype(np.uint8)).convert("RGB"))
    assert soft.blurred > LIMITS["blurred"]
    for _ in range(12):
        start, slope = rng.integers(0, 600), rng.uniform(-0.7, 0.7)
        gray[np.abs(y - start - slope * x) < 1.5] -= 30
    hairy = measured(Image.fromarray(gray.clip(0, 255).astype(np.uint8)).convert("RGB"))
    assert hairy.blurred < LIMITS["blurred"] / 2


def test_a_dark_background_above_and_below_a_long_subject_is_no_bar() -> None:
    background = Image.new("L", (362, 139), 4)
    draw = ImageDraw.Draw(background)
    draw.polygon([(25, 95), (90, 70), (140, 42), (230, 42), (330, 75), (330, 110)], fill=90)
    draw.ellipse((40, 85, 75, 118), fill=60)
    draw.ellipse((230, 80, 265, 118), fill=60)
    car = background.convert("RGB")
    assert measured(car).aspect == pytest.approx(362 / 139)
    bars = ImageOps.pad(car.crop((25, 42, 331, 112)).resize((600, 137)), (600, 300))
    assert measured(bars).aspect == pytest.approx(2)
    lit = Image.eval(car.crop((25, 42, 331, 112)).resize((600, 137)), lambda level: 250 - level)
    bars = ImageOps.pad(lit, (600, 300))
    assert measured(bars).aspect == pytest.approx(600 / 137, rel=0.03)
