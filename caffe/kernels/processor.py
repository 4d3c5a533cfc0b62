"""What kind of processor this is, as far as the choice of algorithms depends on it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")
_ZEN5 = 26  # AMD's number of the family


@cache
def has_avx512() -> bool:
    """Whether PyTorch uses AVX-512. Without it, oneDNN's gradients of 3x3 weights of 32 and 64
    channels take 1.5 to 5 times as long as Winograd's.
    """
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


@cache
def has_amx() -> bool:
    """Whether this is an Intel processor with AMX. On these, with two units for AVX-512 a core,
    oneDNN's convolutions of up to 128 channels take 0.5 to 0.95 of the time of Winograd's.
    """
    look = getattr(torch.cpu, "_is_amx_tile_supported", None)  # not in every PyTorch
    return look is not None and bool(look())


@cache
def saturates() -> bool:
    """Whether sums of products of bytes may not fit: an x86 processor without VNNI adds two of them
    in 16 bits.
    """
    return lacks_vnni(_cpuinfo())


def lacks_vnni(cpuinfo: str) -> bool:
    """Whether that text of /proc/cpuinfo describes an x86 processor without VNNI."""
    flags = re.search(r"^flags\s*:(.*)", cpuinfo, re.MULTILINE)
    return flags is not None and not re.search(r"\b(avx512_vnni|avx_vnni)\b", flags[1])


@cache
def has_slow_mkl() -> bool:
    """Whether MKL, which multiplies PyTorch's matrices, reaches less than half of what oneDNN does:
    on AMD processors it takes AVX2, and those from Zen 5 on have two units for AVX-512 a core.
    """
    return has_avx512() and is_wide_amd(_cpuinfo())


def _cpuinfo() -> str:
    """What Linux says of the processor; nothing elsewhere."""
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def is_wide_amd(cpuinfo: str) -> bool:
    """Whether that text of /proc/cpuinfo describes an AMD processor from Zen 5 on."""
    family = re.search(r"^cpu family\s*:\s*(\d+)", cpuinfo, re.MULTILINE)
    return "AuthenticAMD" in cpuinfo and family is not None and int(family[1]) >= _ZEN5
