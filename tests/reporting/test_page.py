"""The HTML report in a real browser: every interaction, keyboard alone, phone, dark and print."""

import io
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from anklealign.reporting import html_report
from anklealign.reporting.html_report import RunComparison
from anklealign.reporting.metric_tables import Table
from tests.reporting.run_fixture import new_run

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
AXE = ROOT / ".ci/charts/node_modules/axe-core/axe.min.js"
DESKTOP, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
A4 = 794  # px, 210 mm
MARGIN = 39  # points, 14 mm

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="Chromium is not on the PATH"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - half a second, for these alone

    assert CHROMIUM is not None, "Chromium is not on the PATH but required in CI"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Return the addresses of a report with subjects, one without, and a comparison."""
    folder = tmp_path_factory.mktemp("report")
    run = new_run()
    rows = run.predictions
    other = dict(zip(rows.id, rows.actual, strict=True))  # the other run is always right
    beside = RunComparison("main", "This run is worse.", other, Table(["score"], [["accuracy"]]))
    pages = {
        "subjects": html_report.html(run),
        "folders": html_report.html(new_run(subjects=False)),
        "comparison": html_report.html(run, beside),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in pages}


@pytest.fixture
def visit(browser, files) -> Iterator[object]:
    """Return a function that opens a page; afterwards, no page had an error or sent a request."""
    contexts, errors, requests = [], [], []

    def open_page(name: str = "subjects", size: dict | None = None, **options) -> object:
        context = browser.new_context(viewport=size or DESKTOP, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text))
        page.goto(files[name])
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert all(url.startswith(("file:", "data:")) for url in requests)


def tiles(page, selector: str) -> int:
    return page.locator(f"{selector} .tile").count()


def test_each_section_is_one_screen_on_a_desktop(visit):
    page = visit()
    heights = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('section')]"
        ".map(e => [e.id, e.offsetHeight]))"
    )
    assert list(heights) == ["result", "mistakes", "confidence", "data", "explanations", "made"]
    assert {name: height for name, height in heights.items() if height > 900} == {}
    first = page.locator(".first").bounding_box()
    assert first["y"] + first["height"] <= 900
    assert page.locator(".first .tile").count() == 6


def test_a_confusion_cell_shows_its_photos_and_one_opens_with_all_that_is_known(visit):
    page = visit()
    cell = page.locator(".confusion .wrong").first
    count = int(cell.inner_text())
    cell.click()
    assert tiles(page, "#cell") == count
    assert f"{count} photo" in page.locator("#cell h3").inner_text()
    page.locator("#cell .tile").first.click()
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    assert page.locator("#viewer-title").inner_text().startswith("Wrong: labeled ")
    assert viewer.locator(".bars > span").count() == 9  # three classes
    assert tiles(page, "#viewer .near") == 3
    photo, heat = viewer.locator(".view > div > .picture img").all()
    assert photo.bounding_box() == heat.bounding_box()
    assert photo.evaluate("e => e.naturalWidth") > 0
    page.locator("#strength").fill("0")
    assert heat.evaluate("e => e.style.opacity") == "0"
    assert "test" in viewer.locator("dl").inner_text()
    # A similar training photo opens in its place, without a prediction.
    viewer.locator(".near .tile").first.click()
    assert "Only test photos have a prediction" in viewer.inner_text()


def test_votes_and_the_kept_duplicate_are_shown_with_a_photo(visit):
    page = visit()
    page.locator("#data .filters select").nth(3).select_option(label="near duplicate")
    assert page.locator("#data .count").inner_text() == "4 photos"
    page.locator("#data .gallery .tile").first.click()
    assert "The same picture" in page.locator("#viewer").inner_text()
    assert "the kept photo is larger" in page.locator("#viewer").inner_text()
    page.keyboard.press("Escape")
    voted = page.evaluate(
        "JSON.parse(document.getElementById('page-data').textContent).photos.votes"
    )
    ((place, counts),) = voted.items()
    path = page.evaluate(
        f"JSON.parse(document.getElementById('page-data').textContent).photos.path[{place}]"
    )
    page.locator("#mistakes .filters select").first.select_option("")
    tile = page.locator(f'#mistakes [data-n="{place}"]')
    while not tile.count():
        page.locator("#mistakes .more-photos").first.click()
    tile.click()
    assert path in page.locator("#viewer").inner_text()
    assert f"Votes of {sum(counts.values())} annotators" in page.locator("#viewer").inner_text()


def test_filters_by_class_split_collector_and_reason_narrow_the_photos(visit):
    page = visit()
    count = page.locator("#data .count")

    def number() -> int:
        return int(re.search(r"\d+", count.inner_text())[0])

    assert number() == len(new_run().photos)
    selects = page.locator("#data .filters select")
    labels = [
        re.sub(r"\s.*", "", text) for text in page.locator("#data .filters label").all_inner_texts()
    ]
    assert labels == ["Class", "Split", "Collector", "Reason", "Subject"]
    selects.nth(1).select_option(label="validation")
    assert number() == 20
    selects.nth(0).select_option(label="neutral")
    in_class = number()
    assert 0 < in_class < 20
    selects.nth(2).select_option(label="F1")
    assert 0 < number() < in_class
    page.locator("#data .reset").click()
    assert number() == len(new_run().photos)
    selects.nth(3).select_option(label="blurred")
    assert number() == 4
    selects.nth(1).select_option(label="test")
    assert "No photo matches" in count.inner_text()
    # A reason's button sets the same filter.
    page.locator("[data-reason=near_duplicate]").first.click()
    assert number() == 4


def test_collectors_and_subjects_lead_to_their_photos(visit):
    page = visit()
    page.locator("#mistakes details.more > summary").click()
    for by in ("collector", "subject"):
        row = page.locator(f"[data-by={by}] tr").first
        right, total = map(int, re.findall(r"\d+(?= of| right)", row.inner_text()))
        assert right < total
        row.locator("button").click()
        assert page.locator("#mistakes .count").inner_text() == f"{total} photo{'s' * (total > 1)}"


def test_the_threshold_slider_counts_coverage_and_accuracy(visit):
    page = visit()
    rows = new_run().predictions
    for percentage in (0, 60, 90):
        page.locator("#threshold").fill(str(percentage))
        accepted = rows[rows.probability.round(4) >= percentage / 100]
        right = int((accepted.actual == accepted.predicted).sum())
        text = page.locator("#threshold-text").inner_text()
        assert text.startswith(f"{len(accepted)} of {len(rows)} test photos are accepted")
        assert f"and {right} of them are right" in text
        assert page.locator("#threshold-value").inner_text() == f"{percentage}%"
    page.locator("#threshold").fill("100")
    assert "No test photo reaches this confidence" in page.locator("#threshold-text").inner_text()


def test_the_map_shows_a_photo_under_the_pointer_and_by_keyboard(visit):
    page = visit()
    page.locator("#explanations details.more summary").first.click()
    card = page.locator("#map-card")
    page.locator("#chart-map svg circle").nth(5).hover()
    assert card.is_visible()
    assert card.locator("img").evaluate("e => e.naturalWidth") > 0
    colors = "[...document.querySelectorAll('#chart-map circle')].map(e => e.getAttribute('fill'))"
    assert len(set(page.evaluate(colors))) == 4  # three classes and the ring
    page.locator("#map-color").select_option("outcome")
    assert page.locator("#map-legend span").count() == 3
    page.locator("#chart-map").focus()
    before = card.bounding_box()
    page.keyboard.press("ArrowRight")
    assert card.bounding_box() != before
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    page.keyboard.press("Escape")
    assert tiles(page, "[data-list=odd]") == 1


def test_the_keyboard_alone_reaches_and_leaves_everything(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"

    def tab_to(selector: str) -> None:
        for _ in range(80):
            if page.evaluate(f"document.activeElement.matches({selector!r})"):
                return
            page.keyboard.press("Tab")
        pytest.fail(f"{selector} is not reached by Tab")

    tab_to(".trio .tile.wrong")
    opener = page.evaluate("document.activeElement.dataset.photo")
    page.keyboard.press("Enter")
    title = page.locator("#viewer-title")
    first = title.inner_text()
    assert page.evaluate("document.activeElement.id") == "viewer-title"
    page.keyboard.press("ArrowLeft")
    assert title.inner_text() != first
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    assert page.evaluate("document.activeElement.dataset.photo") == opener
    tab_to(".confusion button")
    page.keyboard.press("Space")
    assert tiles(page, "#cell") > 0
    tab_to("#mistakes .filters select")
    page.keyboard.press("ArrowDown")
    assert page.locator("#mistakes .filters select").first.input_value() == "right"
    tab_to("#threshold")
    page.keyboard.press("ArrowRight")
    assert page.locator("#threshold-value").inner_text() == "71%"
    tab_to("#explanations details.more > summary")
    page.keyboard.press("Enter")
    assert page.locator("#chart-map svg").is_visible()


def test_a_skipped_reason_leads_to_its_files(visit):
    page = visit("folders")
    page.locator("[data-skip=not_an_image]").click()
    assert page.locator("#skipped tbody tr:visible").count() == 1
    assert "1 of 1 file with the reason" in page.locator("#skipped-note").inner_text()
    assert page.evaluate("document.activeElement.id") == "skipped-title"


def test_a_comparison_shows_what_only_one_run_gets_right(visit):
    page = visit("comparison")
    run = new_run().predictions
    wrong = int((run.actual != run.predicted).sum())
    assert page.locator("[data-list=this]").inner_text() == "None."
    assert tiles(page, "[data-list=other]") == 6
    page.locator("[data-list=other] + .more-photos").click()
    assert tiles(page, "[data-list=other]") == min(wrong, 18)
    page.locator("[data-list=other] .tile").first.click()
    assert "The other run predicts" in page.locator("#viewer").inner_text()


@pytest.mark.parametrize("name", ["subjects", "folders"])
def test_a_phone_needs_no_horizontal_scrolling_and_every_chart_and_photo_is_drawn(visit, name):
    page = visit(name, PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    page.wait_for_function("[...document.querySelectorAll('.chart')].every(e => e.firstChild)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("[...document.images].every(e => e.complete && e.naturalWidth > 0)")
    drawn = page.evaluate("[...document.querySelectorAll('.chart')].map(e => e.innerHTML).join()")
    assert "NaN" not in drawn
    page.locator(".trio .tile").first.click()
    assert page.evaluate("document.getElementById('viewer').scrollWidth") <= 390


@pytest.mark.parametrize("name", ["subjects", "folders", "comparison"])
def test_every_figure_has_a_sentence_in_plain_words_and_how_it_is_computed(visit, name):
    page = visit(name)
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    bare = page.evaluate("""() =>
        [...document.querySelectorAll('.chart, .confusion, .maps, .breakdown, .strip, svg')]
        .filter((e) => {
            const figure = e.closest('figure');
            const sentence = figure?.querySelector('figcaption')?.innerText.trim() ?? '';
            const how = figure?.querySelector('details.how > p')?.innerText.trim() ?? '';
            return !/^[A-Z].{30,}\\.$/s.test(sentence) || !/^[A-Z].{60,}\\.$/s.test(how);
        }).map((e) => e.id || e.className)""")
    assert bare == []
    drawn = page.evaluate("document.querySelectorAll('figure svg').length")
    assert drawn == (11 if name == "subjects" else drawn) >= 10


def test_every_block_of_scores_tells_how_it_is_computed(visit):
    page = visit("subjects")
    bare = page.evaluate("""() =>
        [...document.querySelectorAll('#result details.more h3, #confidence details.more h3')]
        .filter((heading) => {
            let next = heading.nextElementSibling;
            while (next && next.tagName !== 'H3') {
                if (next.matches('details.how') || next.querySelector('details.how')) return false;
                next = next.nextElementSibling;
            }
            return true;
        }).map((heading) => heading.textContent)""")
    assert bare == ["All values"]  # the values of the blocks above it


def test_the_reliability_chart_has_the_bins_before_and_after_calibration(visit):
    page = visit()
    rows = new_run().reliability
    assert list(rows.columns) == [
        "confidence", "accuracy", "photos", "confidence_before", "accuracy_before",
    ]  # fmt: skip
    assert rows.confidence_before.mean() > rows.confidence.mean()  # the network is too sure
    assert page.locator("#chart-reliability circle").count() == 2 * len(rows)
    assert page.locator("#confidence .key span").count() == 2


def test_the_pdf_of_the_whole_page_is_a4_with_every_column_inside_the_margins(visit):
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed")
    page = visit(size={"width": A4 - 106, "height": 1000})
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    # The last column of each table, as it is on the screen.
    last = page.evaluate("""() => [...document.querySelectorAll('table:not(.confusion) tr')]
        .map((row) => row.lastElementChild.innerText.split(/\\s+/).find((word) => word.length > 2))
        .filter((word) => word)""")
    assert len(last) > 60
    printed = pypdf.PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True)))
    assert 8 <= len(printed.pages) <= 20  # everything is open
    outside, texts = [], []
    for sheet in printed.pages:
        assert [round(float(side)) for side in sheet.mediabox] == [0, 0, 595, 842]

        def place(text, cm, tm, *_):
            x = tm[4] * cm[0] + tm[5] * cm[2] + cm[4]
            if text.strip() and not MARGIN - 2 <= x <= 595 - MARGIN:
                outside.append((round(x), text))

        texts.append(sheet.extract_text(visitor_text=place))
    assert outside == []
    words = Counter(re.sub(r"\s+", " ", " ".join(texts)).split())
    assert {word for word, count in Counter(last).items() if words[word] < count} == set()


def test_a_printed_page_has_no_scroll_bar_and_no_cut_column(visit):
    page = visit(size={"width": A4 - 106, "height": 1000})
    assert 2 <= page.pdf(prefer_css_page_size=True).count(b"/Type /Page\n") <= 8
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    page.emulate_media(media="print")
    cut = page.evaluate("""() => [...document.querySelectorAll('body *')].filter((e) => {
        const style = getComputedStyle(e);
        const scrolls = /auto|scroll|hidden/.test(style.overflowX + style.overflowY);
        const more = e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1;
        const outside = e.getBoundingClientRect().right > innerWidth + 1;
        return e.checkVisibility() && !e.closest('svg') && ((scrolls && more) || outside);
    }).map((e) => e.outerHTML.slice(0, 120))""")
    assert cut == []
    for control in ("nav", ".filters", ".more-photos", "#threshold"):
        assert page.locator(f"{control}:visible").count() == 0


@pytest.mark.skipif(
    not AXE.exists() and "CI" not in os.environ, reason="axe-core is not installed: make charts"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_violation_with_everything_open(visit, size, scheme):
    page = visit("comparison", size, color_scheme=scheme, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    page.locator(".confusion .wrong").first.click()
    page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    run = """async (selector) => (await axe.run(selector)).violations.map((v) =>
        [v.id, v.nodes.map((n) => `${n.target}: ${n.failureSummary}`)])"""
    assert page.evaluate(run, "body") == []
    page.locator("#cell .tile").first.click()
    assert page.evaluate(run, "#viewer") == []
