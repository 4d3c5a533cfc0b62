"""The report as people use it, in a real browser."""

import numpy as np
import pytest

NAMES = ["(ignored)", "bluish", "greenish", "reddish", "far"]
# Frames by IoU, worst first, as they were drawn.
WORST_FIRST = [
    "00000003_frame3",
    "00000001_frame1",
    "00000002_frame2",
    "00000004_frame4",
    "00000000_frame0",
]


@pytest.fixture
def opened(page, report):
    """The report, opened; afterwards the console must be free of errors."""
    page.open(report[0])
    yield page
    # Reading canvases back is this test's doing, not the page's.
    assert [c for c in page.complaints if "getImageData" not in c.get("text", "")] == []


def shown(page):
    return page.text("#name")


def pixels(page, canvas):
    """What a canvas shows: (H, W, 3)."""
    width, height = page.js(f"[{canvas}.width, {canvas}.height]")
    flat = page.js(
        f"Array.from({canvas}.getContext('2d').getImageData(0, 0, {width}, {height}).data)"
    )
    return np.array(flat, np.uint8).reshape(height, width, 4)[..., :3]


def colors(page):
    return np.array(page.js("data.colors"), np.uint8)


def test_opens_without_complaint_or_network(opened, report):
    assert opened.complaints == []
    assert opened.requests[0] == report[0].resolve().as_uri()
    assert all(url.startswith(("data:", "blob:")) for url in opened.requests[1:])
    assert [opened.text(f"main > section:nth-child({i}) h2") for i in (1, 2, 3, 4)] == [
        "Frames",
        "Classes",
        "Training",
        "Confusion",
    ]
    assert opened.js("document.querySelectorAll('nav a').length") == 4
    assert opened.js("document.querySelector('img.curves').naturalWidth") > 100


def test_numbers_are_those_of_the_metrics(opened, report):
    from eval_tools.metrics import ConfusionMatrix

    matrix = ConfusionMatrix(4)
    for found, truth in report[1].values():
        matrix.update(truth, found)
    tiles = opened.js("[...document.querySelectorAll('.tiles dd')].map(d => d.firstChild.data)")
    assert tiles[0] == f"{100 * matrix.global_accuracy:.2f} %"
    assert tiles[2] == f"{100 * matrix.mean_iou:.2f} %"
    cells = opened.js("[...document.querySelectorAll('.confusion td')].map(d => +d.dataset.n)")
    assert np.array_equal(np.reshape(cells, (4, 5)), matrix.counts[1:])


def test_every_pixel_of_truth_and_prediction_is_the_evaluated_one(opened, report):
    table = colors(opened)
    for number, name in enumerate(WORST_FIRST):
        opened.js(f"show({number})")
        assert shown(opened) == name
        found, truth = report[1][name[9:]]
        clear = truth == 0  # there the frame itself shows
        assert np.array_equal(pixels(opened, "truth")[~clear], table[truth][~clear])
        clear = found == 0
        assert np.array_equal(pixels(opened, "prediction")[~clear], table[found][~clear])
        wrong = (truth > 0) & (truth != found)
        error = pixels(opened, "error").astype(int)
        assert np.array_equal(np.all(error == [216, 27, 96], -1), wrong)


def test_keys_step_through_and_wrap(opened):
    seen = [shown(opened)]
    for _ in range(5):
        before = shown(opened)
        opened.key("n")
        opened.wait(f"document.getElementById('name').textContent !== '{before}'")
        seen.append(shown(opened))
    assert seen == [*WORST_FIRST, WORST_FIRST[0]]
    opened.key("p")
    opened.wait(f"document.getElementById('name').textContent === '{WORST_FIRST[-1]}'")
    # A key typed into a list chooses there and does not step.
    opened.js("document.getElementById('order').focus()")
    opened.key("n")
    assert shown(opened) == WORST_FIRST[-1]


def test_the_slider_moves_the_divider(opened, report):
    found, truth = report[1]["frame3"]
    table = colors(opened)
    opened.js("strength.value = 100")
    for share in (0, 25, 100):
        opened.js(f"split.value = {share}; split.dispatchEvent(new Event('input'))")
        left = np.arange(32) < 32 * share / 100
        expected = np.where(left, truth, found)
        image = pixels(opened, "compare")
        assert np.array_equal(image[expected > 0], table[expected[expected > 0]])
        assert opened.js("split.getAttribute('aria-valuetext')") == f"{share} % truth"
    opened.point("#compare", 0.5, 0.5, press=True)
    assert abs(int(opened.js("split.value")) - 50) <= 2
    for key, share in (("t", "100"), ("r", "0"), ("b", "50")):
        opened.key(key)
        assert opened.js("split.value") == share
    opened.js("split.focus()")
    opened.key("ArrowRight", "ArrowRight")
    assert opened.js("split.value") == "51"


def test_the_legend_switches_classes_off_and_on(opened, report):
    found, truth = report[1]["frame3"]
    table = colors(opened)
    before = pixels(opened, "truth")
    opened.point("#l2 input", 0.5, 0.5, press=True)
    after = pixels(opened, "truth")
    assert np.array_equal(before[truth != 2], after[truth != 2])
    assert not np.any(np.all(after[truth == 2] == table[2], -1))
    opened.point("#none", 0.5, 0.5, press=True)
    assert np.array_equal(pixels(opened, "truth"), pixels(opened, "color"))
    opened.point("#wrong", 0.5, 0.5, press=True)
    wrong = (truth > 0) & (truth != found)
    confused = sorted({*truth[wrong], *found[wrong]} - {0})
    ticked = "[...legend.querySelectorAll('input:checked')].map(b => +b.value)"
    assert opened.js("document.querySelectorAll('#legend input').length") == 4
    assert opened.js(ticked.replace("legend", "document.getElementById('legend')")) == confused
    opened.point("#all", 0.5, 0.5, press=True)
    assert np.array_equal(pixels(opened, "truth"), before)


def test_readout_under_the_pointer_and_by_keyboard(opened, report):
    found, truth = report[1]["frame3"]

    def expected(x, y):
        state = "(not scored)"
        if truth[y, x]:
            state = "(right)" if truth[y, x] == found[y, x] else "(wrong)"
        names = f"truth {NAMES[truth[y, x]]}, prediction {NAMES[found[y, x]]}"
        return f"x {x}, y {y}: {names} {state}; depth about "

    live = "document.getElementById('readout').getAttribute('aria-live')"
    for canvas in ("compare", "prediction", "depth"):
        opened.point(f"#{canvas}", 10.5 / 32, 7.5 / 24)
        assert opened.text("#readout").startswith(expected(10, 7))
    # A screen reader is told what the keyboard asks for, not all that a pointer passes over.
    assert opened.js(live) == "off"
    opened.js("document.getElementById('compare').focus()")
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        opened.key(key, key)
    assert opened.text("#readout").startswith(expected(17, 14))
    assert opened.js(live) == "polite"
    assert shown(opened) == WORST_FIRST[0]


def test_orders_filters_and_ends(opened):
    opened.js("order.value = 'stored'; order.dispatchEvent(new Event('change'))")
    opened.wait("document.getElementById('name').textContent === '00000000_frame0'")
    opened.js("holding.value = '3'; holding.dispatchEvent(new Event('change'))")
    assert opened.text("#position") == "1 of 5"
    worst = opened.js(
        "[...document.querySelectorAll('#worst span:first-of-type')].map(s => s.textContent)"
    )
    assert worst == WORST_FIRST
    opened.point("#best li:nth-child(2) button", 0.5, 0.5, press=True)
    opened.wait(f"document.getElementById('name').textContent === '{WORST_FIRST[-2]}'")
    opened.wait("document.querySelector('#best img').naturalWidth > 0")


def test_tables_sort(opened):
    def column(n):
        return opened.js(
            "[...document.querySelectorAll('#classes tbody tr')]"
            f".map(row => row.cells[{n}].innerText.trim())"
        )

    assert column(0) == NAMES[1:]
    opened.point("#classes thead th:nth-child(5) button", 0.5, 0.5, press=True)
    ious = [float(value) for value in column(4)]
    assert ious == sorted(ious, reverse=True)
    assert opened.js("document.querySelector('#classes th:nth-child(5)').ariaSort") == "descending"


def test_confusion_cells_read_out(opened, report):
    opened.point(".confusion tbody tr:nth-child(2) td:nth-of-type(4)", 0.5, 0.5)
    count = sum(
        np.count_nonzero((truth == 2) & (found == 3)) for found, truth in report[1].values()
    )
    assert opened.text("#cell") == f"True greenish as reddish: {count} pixels."


@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, report, width, phone, scheme):
    page.scheme(scheme)
    page.open(report[0], width=width, phone=phone)
    found = page.grave()
    page.scheme()
    assert found == []


def test_nothing_sticks_out_on_a_phone(page, report):
    page.open(report[0], width=390, height=800, phone=True)
    assert page.js("document.documentElement.scrollWidth") <= 390
    small = page.js(
        "[...document.querySelectorAll('button, select, .legend label')].filter(e => e.offsetHeight"
        " && e.offsetHeight < 24).map(e => e.outerHTML)"
    )
    assert small == []
