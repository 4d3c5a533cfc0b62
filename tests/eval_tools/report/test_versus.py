"""Reports of two models, and of frames without true labels, in a real browser."""

import json
import re

import numpy as np
import pytest

from data_tools.cli import DataError
from eval_tools import evaluate
from eval_tools.inference import Segmented
from eval_tools.metrics import ConfusionMatrix
from eval_tools.records import Record
from eval_tools.report import Report
from eval_tools.report import __main__ as command

SHAPE = (24, 32)


@pytest.fixture(scope="module")
def rolled(toy, tmp_path_factory):
    """(DEPLOY, WEIGHTS) of a net that takes blue for green, green for red, and so on."""
    params = toy.brightest()
    weight = params["score"][0]
    weight[1:] = np.roll(weight[1:], 1, 0)
    text = toy.deploy.replace("HEIGHT", "24").replace("WIDTH", "32")
    return toy.model(tmp_path_factory.mktemp("rolled"), text, params, "other <model>")


def other(found):
    """What that net says where the first one says `found`."""
    return np.where(found > 0, found % 4 + 1, 0)


@pytest.fixture(scope="module")
def frames(toy):
    drawn = (toy.frames(1, SHAPE, seed, right) for seed, right in ((0, 0.9), (1, 0.3), (2, 0.6)))
    return {f"frame{i}": next(iter(one.values())) for i, one in enumerate(drawn)}


@pytest.fixture(scope="module")
def versus(model, rolled, frames, toy, tmp_path_factory):
    """The report of both models on labelled frames."""
    folder = tmp_path_factory.mktemp("versus")
    lmdb = toy.lmdb(folder / "test", frames, {"classes": toy.names})
    path = folder / "report.html"
    command.main([*model, str(lmdb), "--versus", *rolled, "-o", str(path)])
    return path


@pytest.fixture(scope="module")
def bare(model, rolled, frames, toy, tmp_path_factory):
    """Reports of frames without labels: of one model, and of both."""
    folder = tmp_path_factory.mktemp("bare")
    lmdb = toy.lmdb(folder / "test", frames, {"classes": toy.names, "labeled": False})
    paths = [folder / "one.html", folder / "both.html"]
    command.main([*model, str(lmdb), "-o", str(paths[0]), "--json", str(folder / "one.json")])
    command.main(
        [*model, str(lmdb), "--versus", *rolled, "-o", str(paths[1]),
         "--json", str(folder / "both.json"), "--markdown", str(folder / "both.md")]
    )  # fmt: skip
    return paths


def pixels(page, canvas):
    """What a canvas shows: (H, W, 3)."""
    width, height = page.js(f"[{canvas}.width, {canvas}.height]")
    flat = page.js(
        f"Array.from({canvas}.getContext('2d').getImageData(0, 0, {width}, {height}).data)"
    )
    return np.array(flat, np.uint8).reshape(height, width, 4)[..., :3]


def complaints(page):
    return [c for c in page.complaints if "getImageData" not in c.get("text", "")]


def texts(page, selector):
    return page.js(f"[...document.querySelectorAll({selector!r})].map(e => e.textContent)")


def choose(page, name, value):
    page.js(f"{name}.value = '{value}'; {name}.dispatchEvent(new Event('change'))")


def shows(page, canvas, labels, where=True):
    """Whether a canvas shows these labels in their colours, where they are not 0."""
    table = np.array(page.js("data.colors"), np.uint8)
    seen = (labels > 0) & where
    return np.array_equal(pixels(page, canvas)[seen], table[labels[seen]])


def test_any_two_stand_on_either_side_of_the_divider(page, versus, frames):
    page.open(versus)
    choose(page, "order", "stored")
    page.wait("document.getElementById('name').textContent === '00000000_frame0'")
    found, truth = frames["frame0"]
    maps = {"truth": truth, "model0": found, "model1": other(found), "color": 0 * truth}
    names = {"truth": "truth", "model0": "net", "model1": "other <model>", "color": "colour"}
    ids = ["left", "right"]
    assert [page.js(f"{side}.value") for side in ids] == ["model0", "model1"]
    assert texts(page, "#left option") == list(names.values())
    page.js("strength.value = 100")
    left = np.arange(SHAPE[1]) < SHAPE[1] / 2
    for one, two in (("model0", "model1"), ("truth", "model1"), ("color", "truth")):
        choose(page, "left", one)
        choose(page, "right", two)
        assert shows(page, "compare", maps[one], left)
        assert shows(page, "compare", maps[two], ~left)
        words = f"{names[one]} left of the divider, {names[two]} right of it"
        label = page.js("document.getElementById('compare').getAttribute('aria-label')")
        assert label.lower() == words
        assert page.text("#sides") == f"Divider: {names[one]} left, {names[two]} right"
        assert page.js("split.getAttribute('aria-valuetext')") == f"50 % {names[one]}"
    assert np.array_equal(pixels(page, "compare")[:, left], pixels(page, "color")[:, left])
    assert complaints(page) == []


def test_each_model_has_its_pictures_and_counts(page, versus, frames):
    page.open(versus)
    choose(page, "order", "stored")
    page.wait("document.getElementById('name').textContent === '00000000_frame0'")
    found, truth = frames["frame0"]
    assert shows(page, "prediction", found)
    assert shows(page, "prediction1", other(found))
    for canvas, labels in (("error", found), ("error1", other(found))):
        wrong = (truth > 0) & (truth != labels)
        seen = np.all(pixels(page, canvas).astype(int) == [216, 27, 96], -1)
        assert np.array_equal(seen, wrong)
    page.point("#compare", 3.5 / 32, 5.5 / 24)
    names = ["(ignored)", "bluish", "greenish", "reddish", "far"]

    def told(labels):
        state = "(not scored)"
        if truth[5, 3]:
            state = "(right)" if labels[5, 3] == truth[5, 3] else "(wrong)"
        return f"{names[labels[5, 3]]} {state}"

    assert page.text("#readout").startswith(
        f"x 3, y 5: truth {names[truth[5, 3]]}, net {told(found)}, "
        f"other <model> {told(other(found))}; depth"
    )
    numbers = [np.count_nonzero(labels == 2) for labels in (truth, found, other(found))]
    assert page.text("#l2 .pixels") == " / ".join(map(str, numbers))
    assert page.text("#counted") == "Pixels in truth / net / other <model>"
    assert "net: pixel accuracy" in page.text("#facts")
    assert "; other <model>: pixel accuracy" in page.text("#facts")


def test_bars_and_swatches_of_both(page, versus, frames):
    page.open(versus)
    matrices = []
    for labels in (lambda found: found, other):
        matrix = ConfusionMatrix(4)
        for found, truth in frames.values():
            matrix.update(truth, labels(found))
        matrices.append(matrix)
    assert page.js("document.querySelectorAll('#classes .swatch').length") == 4
    bars = page.js(
        "[...document.querySelectorAll('#classes tbody tr')].map(row => [...row.querySelectorAll("
        "'.bar')].map(b => 100 * b.offsetWidth / b.parentNode.clientWidth))"
    )
    wanted = [100 * np.array([m.class_accuracy[i], m.iou[i]]) for i in range(4) for m in matrices]
    assert np.allclose(np.reshape(bars, (8, 2)), wanted, atol=2)
    kinds = "[...document.querySelectorAll('#classes tr:last-child .bar')].map(b => b.classList[1])"
    assert page.js(kinds) == ["m0", "m0", "m1", "m1"]
    colors = "['m0', 'm1'].map(k => getComputedStyle(document.querySelector('.' + k)).background)"
    assert len(set(page.js(colors))) == 2
    assert texts(page, "main > section > h2")[-2:] == ["Confusion", "Confusion, other <model>"]
    tile = texts(page, ".tiles .interval")
    assert f"other <model>: {100 * matrices[1].mean_iou:.2f} %" in tile
    page.point("#confusion1 tbody tr:nth-child(2) td:nth-of-type(4)", 0.5, 0.5)
    count = matrices[1].counts[2, 3]
    assert page.text("#cell1") == f"True greenish as reddish: {count} pixels."
    assert page.text("#cell") == ""
    assert complaints(page) == []


def test_labels_that_were_thinned_out_fill_the_frame(page, versus):
    page.open(versus)
    spread = "Array.from(spread(Uint8Array.from([1, 2, 3, 4, 5, 6]), 5, 3, 2))"
    row = [1, 1, 2, 2, 3]
    assert page.js(spread) == [*row, *row, 4, 4, 5, 5, 6]


def test_frames_are_ordered_by_what_one_is_ahead(page, versus, frames):
    page.open(versus)
    gains = {}
    for name, (found, truth) in frames.items():
        own, others = (ConfusionMatrix(4).update(truth, x).mean_iou for x in (found, other(found)))
        gains[name] = others - own
    for order, sign in (("ahead 1", -1), ("behind 1", 1)):
        choose(page, "order", order)
        listed = [text.split(" ")[0].split("_")[1] for text in texts(page, "#frame option")]
        assert listed == sorted(gains, key=lambda name: sign * gains[name])
    assert texts(page, "#order option")[3:] == [
        "other <model> ahead first",
        "other <model> behind first",
    ]


def test_frames_without_labels(page, bare, frames):
    page.open(bare[0])
    figures = json.loads(bare[0].with_suffix(".json").read_text())
    found = np.stack([found for found, _ in frames.values()])
    assert figures["labeled"] is False
    assert [c["predicted"] for c in figures["classes"]] == np.bincount(found.ravel()).tolist()
    # 200 against 10s: the softmax of the label taken is 1, and where all is 0, e / (e + 4).
    sure = np.where(found > 0, 1, np.e / (np.e + 4))
    assert figures["mean_confidence"] == pytest.approx(sure.mean(), abs=1e-5)
    assert figures["unsure"] == pytest.approx(np.mean(found == 0))
    tiles = texts(page, ".tiles dd")
    assert tiles == [f"{100 * sure.mean():.2f} %", f"{100 * np.mean(found == 0):.2f} %", "4"]
    assert texts(page, "main > section > h2") == ["Frames", "Classes"]
    assert texts(page, "#classes tbody th") == ["(ignored)", "bluish", "greenish", "reddish", "far"]
    cells = texts(page, "#classes tbody tr:nth-child(2) td")
    assert cells == [
        str(np.count_nonzero(found == 1)), f"{100 * np.mean(found == 1):.2f}", "100.00"
    ]  # fmt: skip
    assert texts(page, "figcaption")[2:] == ["Confidence: dark 0, light 100 %", "Prediction"]
    assert page.js("document.getElementById('wrong').hidden")
    order = sorted(range(3), key=lambda i: sure[i].mean())
    assert [text[:15] for text in texts(page, "#frame option")] == [
        f"{i:08d}_frame{i}" for i in order
    ]
    assert shows(page, "prediction", found[order[0]])
    grey = pixels(page, "confidence").astype(int)[..., 0]
    seen = 255 * sure[order[0]]
    assert abs(grey.mean() - seen.mean()) < 12  # it is compressed at half the size
    assert re.match(r"x 16, y 12: prediction \w+|x 16, y 12: prediction \(ignored\)", told(page))
    assert "confidence about" in page.text("#readout")
    assert [page.js(f"{side}.value") for side in ("left", "right")] == ["color", "model0"]
    assert complaints(page) == []


def told(page):
    page.point("#compare", 16.5 / 32, 12.5 / 24)
    return page.text("#readout")


def test_two_models_without_labels(page, bare, frames):
    page.open(bare[1])
    found = np.stack([found for found, _ in frames.values()])
    alike = float(np.mean(found == other(found)))
    figures = json.loads(bare[1].with_suffix(".json").read_text())
    assert figures["versus"][0]["agrees_with_first"] == pytest.approx(alike)
    assert "| pixels labelled as by net | - |" in bare[1].with_suffix(".md").read_text()
    assert texts(page, ".tiles dt")[-1] == "pixels labelled alike by other <model>"
    choose(page, "order", "ahead 1")
    shares = [np.mean(one == other(one)) for one in found]
    worst = int(np.argmin(shares))
    page.wait(f"document.getElementById('name').textContent === '{worst:08d}_frame{worst}'")
    unlike = np.all(pixels(page, "error1").astype(int) == [216, 27, 96], -1)
    assert np.array_equal(unlike, found[worst] != other(found[worst]))
    page.point("#wrong", 0.5, 0.5, press=True)
    ticked = "[...document.querySelectorAll('#legend input:checked')].map(b => +b.value)"
    assert page.js(ticked) == [1, 2, 3, 4]
    assert "other <model>: mean confidence" in page.text("#facts")
    assert complaints(page) == []


@pytest.mark.parametrize("kind", ["versus", "bare"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing_serious(page, versus, bare, kind, width, scheme):
    page.scheme(scheme)
    page.open({"versus": versus, "bare": bare[1]}[kind], width=width, phone=width < 400)
    if width < 400:
        assert page.js("document.documentElement.scrollWidth") <= width
    found = page.grave()
    page.scheme()
    assert found == []


def test_records_of_four_channels_have_no_labels(model, toy, frames, tmp_path, capsys):
    path = toy.lmdb(tmp_path / "db", {name: (found, None) for name, (found, _) in frames.items()})
    command.main([*model, str(path), "-o", str(tmp_path / "r.html")])
    assert "3 frames, 2304 pixels without true labels" in capsys.readouterr().out
    # evaluate's figures are about labels, and --labels gives some.
    with pytest.raises(DataError, match="has no label channel"):
        evaluate.main([*model, str(path)])
    full = toy.lmdb(tmp_path / "full", frames)
    command.main([*model, str(path), "--labels", str(full), "-o", str(tmp_path / "r.html")])
    assert "labelled pixels" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--confusion", "m.png"], ["--group", "camera"]])
def test_what_needs_labels_is_refused_without(model, toy, frames, tmp_path, option):
    path = toy.lmdb(tmp_path / "db", frames, {"labeled": False})
    with pytest.raises(DataError, match=f"its frames have no labels, which {option[0]} needs"):
        command.main([*model, str(path), *option, "-o", str(tmp_path / "r.html")])
    assert not (tmp_path / "r.html").exists()


def test_a_report_of_three_models_keeps_its_size():
    """What other models add has its place within the whole, however ragged their labels are."""
    random = np.random.default_rng(0)
    frames, limit = 4, 4 * 40e3
    report = Report(frames, limit, models=3)
    coarse = np.kron(random.integers(0, 9, (12, 16)), np.ones((40, 40), int)).astype(np.uint8)
    noise = random.integers(0, 41, (480, 640)).astype(np.uint8)
    color = np.repeat(coarse[..., None] * 20, 3, 2)
    for i in range(frames):
        matrix = ConfusionMatrix(40).update(coarse, coarse)
        report(Record(str(i), color, coarse), coarse, Segmented(coarse), matrix)
    for labels in (coarse, noise):
        watch = report.other()
        for i in range(frames):
            matrix = ConfusionMatrix(40).update(coarse, labels)
            watch(Record(str(i), color, coarse), coarse, Segmented(labels), matrix)
    assert sum(map(len, report._pictures)) <= limit
    factors = [one["factor"] for one in report._about[0]["others"]]
    assert factors[0] == 1
    assert factors[1] > 1
