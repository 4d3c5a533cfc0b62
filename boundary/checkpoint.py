"""Tensors by name out of the files that torch.save writes, without running code from them."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boundary.reading import git_lfs, read_bytes

if TYPE_CHECKING:
    import torch

NESTED = ("state_dict", "model_state_dict", "model")  # where checkpoints keep the state dict
# Before, torch.load(weights_only=True) could be made to run code: CVE-2025-32434 (fixed in 2.6)
# and CVE-2026-24747 (fixed in 2.10).
SAFE_SINCE = "2.10"

_GLOBAL = re.compile(r"GLOBAL (\S+)")


def read_state_dict(path: Any, error: type[Exception]) -> dict[str, torch.Tensor]:
    """The tensors by name in a .pt or .pth: a state dict, or a checkpoint that holds one.

    Parameters come as plain tensors, on the CPU, which need no gradient. Nothing in the file is
    executed. Raises `error`, in one line with the path and the way out, for all other files, and
    under a PyTorch that could be made to run code from them.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as problem:
        raise error(f"{path}: {problem.strerror or problem}") from None
    _check_version(path, error)
    if why := _other_kind(path, head):
        raise error(f"{path}: no state dict: {why}")
    file = path
    if not head.startswith(b"PK"):  # a bare pickle, whose claims of size memory meets as they are
        file = io.BytesIO(read_bytes(path, error, most=2**40))
    found = _load(file, path, error)
    for name in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    tensors = _named_tensors(found)
    if not tensors:
        raise error(f"{path}: no state dict: expected tensors by name, found {_content(found)}")
    for key, values in tensors.items():
        if why := _unusable(values):
            raise error(f"{path}: {key}: {why}")
    return {key: values.detach() for key, values in tensors.items()}


def _check_version(path: Any, error: type[Exception]) -> None:
    import torch
    from torch.torch_version import TorchVersion

    if TorchVersion(torch.__version__) < SAFE_SINCE:
        raise error(
            f"{path}: PyTorch {torch.__version__} could be made to run code by such a file "
            f"(CVE-2025-32434, CVE-2026-24747); it is read with PyTorch {SAFE_SINCE} or newer"
        )


def _other_kind(path: Any, head: bytes) -> str:
    """What a file is that torch.save does not write, and what to do; empty if it may have."""
    if not head:
        return "the file is empty"
    if pointer := git_lfs(path):
        return f"it {pointer}"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < Path(path).stat().st_size:
        return (
            "it is a safetensors file; save it by torch.save(safetensors.torch.load_file(FILE), "
            "'weights.pth')"
        )
    if head.startswith(b"PK"):
        names = _members(path)
        if any(name.endswith("/constants.pkl") for name in names):
            return (
                "it is a TorchScript archive, which is code; save "
                "torch.jit.load(FILE).state_dict() instead"
            )
        if names and not any(name.endswith("/data.pkl") for name in names):
            return "it is a zip archive, but not one of torch.save's"
    elif not head.startswith(b"\x80\x02"):
        return "it is no file of torch.save's"
    return ""


def _members(path: Any) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # zipfile raises many kinds for a damaged one, and torch.load says how
        return []


def _load(file: Any, path: Any, error: type[Exception]) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as problem:  # torch.load has many ways to fail
        if asked := _GLOBAL.search(str(problem)):
            raise error(f"{path}: no state dict: {_objects(asked[1])}") from None
        text = str(problem).rpartition("WeightsUnpickler error:")[2].strip()  # without advice
        line = text.partition("\n")[0][:120]
        raise error(
            f"{path}: no state dict: it is damaged ({type(problem).__name__}: {line})"
        ) from None


def _objects(name: str) -> str:
    if name.partition(".")[0] == "numpy":
        return "it holds NumPy arrays or numbers; save tensors instead (torch.from_numpy)"
    return (
        f"it holds an object of {name}, as a whole pickled model does, which only code could "
        "load; save model.state_dict() instead"
    )


def _named_tensors(found: Any) -> dict[str, torch.Tensor]:
    import torch

    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        return {}
    return {key: values for key, values in found.items() if torch.is_tensor(values)}


def _content(found: Any) -> str:
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    if set(found) == {"state", "param_groups"}:
        return "an optimizer's state; save model.state_dict()"
    names = ", ".join(repr(key)[:40] for key in list(found)[:5])
    return f"{names}{', ...' if len(found) > 5 else ''}" if names else "nothing"


def _unusable(values: torch.Tensor) -> str:
    """Why a tensor holds no plain numbers; empty if it does."""
    import torch

    if values.layout != torch.strided:
        return "a sparse tensor; save values.to_dense()"
    if values.is_quantized:
        return "a quantized tensor; save values.dequantize()"
    if values.is_complex():
        return "complex numbers, expected real ones"
    if values.is_meta:
        return "a tensor without values (on the device 'meta')"
    if values.numel() * values.element_size() > values.untyped_storage().nbytes():
        return f"shape {tuple(values.shape)}, of which the file does not hold every value"
    return ""
