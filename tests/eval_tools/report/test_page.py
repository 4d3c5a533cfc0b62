"""The page as a file: everything in it, nothing from elsewhere."""

import base64
import hashlib
import json
import re

from eval_tools import evaluate
from eval_tools.pages import fill
from eval_tools.report import __main__ as command


def test_the_page_refers_to_nothing_outside(report):
    text = report[0].read_text()
    assert "default-src 'none'" in text
    without_data = re.sub(r"data:[\w/+]+;base64,[\w+/=]+", "", text)
    assert re.findall(r"(?:src|href)=[\"'](?!#)[^\"']*[\"']", without_data) == ['src=""']
    assert "http://" not in without_data
    assert "https://" not in without_data


def test_names_cannot_break_out_of_the_page(model, toy, tmp_path):
    names = ["(ignored)", "</script><b>x", "a & b", '"quoted"', "far"]
    lmdb = toy.lmdb(tmp_path / "lmdb", toy.frames(2), {"classes": names})
    path = tmp_path / "report.html"
    evaluate.main([*model, str(lmdb), "--report", str(path)])
    text = path.read_text()
    assert "</script><b>" not in text
    assert "&lt;/script&gt;&lt;b&gt;x" in text
    data = re.search(r'id="data">(.*?)</script>', text, re.S)[1]
    assert json.loads(data)["names"] == names


def test_parts_are_filled_in_once():
    """A part that reads like a place in the template stays as it is."""
    assert fill("{{a}} {{b}}", {"a": "{{b}}", "b": "{{a}}"}) == "{{b}} {{a}}"


def test_the_policy_names_the_pages_own_script_and_style(report):
    text = report[0].read_text()
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)[1]
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        (own,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in policy
    assert "unsafe" not in policy
    assert "base-uri 'none'; form-action 'none'" in policy
    assert not re.search(r"<[^>]*\sstyle=", text)


def test_the_command_writes_report_html_by_default(model, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command.main([*model, str(data[0])])
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "mean IoU" in capsys.readouterr().out
    command.main([*model, str(data[0]), "-o", "other.html"])
    assert (tmp_path / "other.html").exists()
