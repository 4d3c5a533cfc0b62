"""The page as a file: everything in it, nothing from elsewhere."""

import json
import re

from eval_tools import evaluate
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


def test_the_command_writes_report_html_by_default(model, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command.main([*model, str(data[0])])
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "mean IoU" in capsys.readouterr().out
    command.main([*model, str(data[0]), "-o", "other.html"])
    assert (tmp_path / "other.html").exists()
