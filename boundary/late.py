"""Libraries that are loaded when they are first used.

`from boundary.late import cv2` gives what `import cv2` would, but loads OpenCV only when one of its
names is read: a command that shows its help, refuses its arguments or needs no picture starts
without it. Modules use it for libraries that take long to load or much memory.

Reading a name through it takes a few hundred nanoseconds more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from boundary.interrupts import loading


class Late:
    """Stands for a module, which is imported when an attribute is first read.

    Raises then what the import raises. Setting attributes is refused: they belong to the module.
    """

    __slots__ = ("_found", "_name")

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_found", None)

    def __getattr__(self, name: str) -> Any:
        found = self._found
        if found is None:
            with loading():
                found = import_module(self._name)  # waits for a thread that imports it already
            object.__setattr__(self, "_found", found)
        return getattr(found, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self._name}.{name} can be set only after import {self._name}")

    def __repr__(self) -> str:
        return f"<{self._name}, imported on first use>"


if TYPE_CHECKING:
    import cv2 as cv2
    import h5py as h5py
    import torch as torch
    import tqdm as tqdm
else:
    cv2, h5py, torch, tqdm = map(Late, ("cv2", "h5py", "torch", "tqdm"))
