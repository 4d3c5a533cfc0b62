"""A report whose names are made to break it, in a real browser."""

import shutil
from pathlib import Path

import pytest

from eval_tools import evaluate

LOG = Path(__file__).parents[2] / "golden" / "interop" / "reference_train.log"
NAMES = [
    "(ignored)",
    "<script>window.ran=1</script>",
    '"><img src=x onerror="window.ran=1">',
    "</script><!--<script>window.ran=1\u2028//",
    "x onload=window.ran=1 {{data}} {{js}} ' javascript:window.ran=1 &lt;",
]
FRAMES = [
    "<script>window.ran=1",
    '"><img src=x onerror=window.ran=1>',
    "{{frames}}",
    "-->]]>\u2029",
]
MODEL = '{{tiles}}"><img src=x onerror=window.ran=1>'
# A file's name has no '/'.
RUNS = ["{{data}}", '"><img src=x onerror=window.ran=1>', "<script>window.ran=1"]


@pytest.fixture(scope="module")
def hostile(model, toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    deploy, weights = model
    weights = shutil.copy(
        weights, folder / '{{tiles}}"><img src=x onerror=window.ran=1>.caffemodel'
    )
    frames = dict(zip(FRAMES, toy.frames(len(FRAMES)).values(), strict=True))
    lmdb = toy.lmdb(folder / "<script>window.ran=1", frames, {"classes": NAMES})
    path = folder / "report.html"
    logs = [shutil.copy(LOG, folder / f"{run}.log") for run in RUNS]
    options = [option for log in logs for option in ("--log", str(log))]
    evaluate.main([deploy, str(weights), str(lmdb), "--report", str(path), *options])
    return path


@pytest.fixture
def opened(page, hostile):
    page.open(hostile)
    return page


def texts(page, selector):
    return page.js(f"[...document.querySelectorAll({selector!r})].map(e => e.textContent)")


def test_no_name_runs_or_becomes_an_element(opened):
    assert opened.js("window.ran === undefined")
    assert opened.js(
        "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes])"
        ".filter(a => a.name.startsWith('on')).length"
    ) == 0  # fmt: skip
    scripts = "[...document.scripts].map(s => s.type)"
    assert opened.js(scripts) == ["application/json", "", *["text/plain"] * len(FRAMES)]
    assert opened.complaints == []
    assert all(url.startswith("data:") for url in opened.requests[1:])


def test_the_names_are_shown_as_they_are(opened):
    assert texts(opened, "#classes tbody th") == NAMES[1:]
    assert texts(opened, "#confusion tbody th") == NAMES[1:]
    assert texts(opened, "#confusion thead th")[1:] == NAMES
    assert texts(opened, "#legend label > span:nth-of-type(2)") == NAMES[1:]
    assert texts(opened, "#holding option")[1:] == [f"with {name}" for name in NAMES[1:]]
    assert texts(opened, "#training tbody th") == RUNS
    listed = opened.js("[...document.querySelectorAll('#frame option')].map(o => o.label)")
    shown = texts(opened, "#frame option")
    assert sorted(text.partition("_")[2].rpartition(" (IoU")[0] for text in shown) == sorted(FRAMES)
    assert len(listed) == len(FRAMES)
    alt = opened.js("document.querySelector('img.curves').alt")
    assert all(f"run {run}, " in alt for run in RUNS)
    assert opened.js("document.title").startswith(f"{MODEL} on ")


def test_the_page_works(opened):
    drawn = (
        "[...document.querySelectorAll('.stage canvas')].map(c => c.width * c.height > 0 &&"
        " c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v))"
    )
    assert opened.js(drawn) == [True] * 6
    bars = (
        "[...document.querySelectorAll('#classes .bar')].map(b =>"
        " [parseFloat(b.parentNode.innerText), 100 * b.offsetWidth / b.parentNode.clientWidth])"
    )
    for value, width in opened.js(bars):
        assert abs(value - width) < 2  # a pixel of about a hundred
    color = "getComputedStyle(document.querySelectorAll('#classes .swatch')[1]).backgroundColor"
    assert opened.js(color) == opened.js("`rgb(${data.colors[2].join(', ')})`")
    first = opened.text("#name")
    opened.key("n")
    opened.wait(f"document.getElementById('name').textContent !== {first!r}")


def test_the_browser_refuses_what_would_slip_in(opened):
    """The policy holds by itself: markup that got into the page could not run."""
    opened.js(
        "document.body.insertAdjacentHTML('beforeend',"
        ' \'<img src="data:," onerror="window.ran=1"><b style="color:red">x</b>\'), 0'
    )
    opened.js("const s = document.createElement('script'); s.textContent = 'window.ran=1';"
              " document.body.append(s), 0")  # fmt: skip
    opened.js("new Promise(done => setTimeout(done, 200))")
    assert opened.js("window.ran === undefined")
    refused = [
        c["text"] for c in opened.complaints if "Content Security Policy" in c.get("text", "")
    ]
    assert len(refused) >= 3
