"""What the choice of algorithms takes a processor for."""

from __future__ import annotations

import pytest

from caffe.kernels import processor

TEXT = """processor\t: 0
vendor_id\t: {}
cpu family\t: {}
model\t\t: 2
"""


@pytest.mark.parametrize(
    ("vendor", "family", "wide"),
    [
        ("AuthenticAMD", 26, True),
        ("AuthenticAMD", 25, False),  # Zen 3 and 4
        ("GenuineIntel", 6, False),
        ("GenuineIntel", 26, False),
    ],
)
def test_wide_amd(vendor: str, family: int, wide: bool) -> None:
    assert processor.is_wide_amd(TEXT.format(vendor, family)) is wide
    assert not processor.is_wide_amd("")


FLAGS = TEXT.format("GenuineIntel", 6) + "flags\t\t: fpu avx2 {}\n"


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (FLAGS.format("avx512f"), True),
        (FLAGS.format("avx512f avx512_vnni bmi2"), False),
        (FLAGS.format("avx_vnni"), False),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),  # ARM
        ("", False),
    ],
)
def test_vnni(text: str, lacks: bool, tmp_path, monkeypatch) -> None:
    assert processor.lacks_vnni(text) is lacks
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPUINFO", info)
    assert processor.saturates.__wrapped__() is False
    info.write_text(text, encoding="ascii")
    assert processor.saturates.__wrapped__() is lacks


def test_without_avx512_or_cpuinfo_mkl_is_not_slow(tmp_path, monkeypatch) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPUINFO", info)
    ask = processor.has_slow_mkl.__wrapped__
    monkeypatch.setattr(processor, "has_avx512", lambda: True)
    assert ask() is False
    info.write_text(TEXT.format("AuthenticAMD", 26), encoding="ascii")
    assert ask() is True
    monkeypatch.setattr(processor, "has_avx512", lambda: False)
    assert ask() is False
