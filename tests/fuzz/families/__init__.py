"""Families of inputs: each draws files from the corpus, spoils them, and names who reads them."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fuzz import mutate

Target = Callable[[], Any]


@dataclass
class Draw:
    """What a family draws an input from. The working directory is empty and the input's own.

    corpus: the folder of sound files, see fuzz.corpus.
    """

    rng: random.Random
    corpus: Path
    index: int = 0
    numbers: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = np.random.default_rng(self.rng.getrandbits(63))

    def pick(self, *choices: Any) -> Any:
        """One of the arguments."""
        return self.rng.choice(choices)

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.rng.random() < share

    def seeds(self, pattern: str) -> list[Path]:
        """The corpus's files that match, sorted."""
        found = sorted(path for path in self.corpus.glob(pattern) if path.is_file())
        if not found:
            raise LookupError(f"the corpus has no {pattern}")
        return found

    def sound(self, pattern: str) -> bytes:
        """The content of one of the corpus's files."""
        return self.rng.choice(self.seeds(pattern)).read_bytes()

    def copy(self, name: str, to: str | None = None) -> Path:
        """A file or folder of the corpus in the working directory, as it is."""
        source, target = self.corpus / name, Path(to or name)
        files = source.rglob("*") if source.is_dir() else [source]
        for file in files:
            if file.is_file():
                place = target / file.relative_to(source) if source.is_dir() else target
                self.write(place, file.read_bytes())
        return target

    def write(self, path: str | Path, content: bytes) -> Path:
        """Writes a file, and the folders to it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def bytes(self, pattern: str, path: str | Path) -> Path:
        """A file of the corpus, spoiled byte by byte."""
        return self.write(
            path, mutate.some_bytes(self.rng, self.sound(pattern), self.sound(pattern))
        )

    def text(self, pattern: str, path: str | Path) -> Path:
        """A text of the corpus, spoiled token by token."""
        return self.write(
            path, mutate.some_text(self.rng, self.sound(pattern), self.sound(pattern))
        )

    def json(self, pattern: str, path: str | Path) -> Path:
        """A JSON file of the corpus with values of wrong types, or spoiled as text."""
        if self.chance(0.3):
            return self.text(pattern, path)
        return self.write(path, mutate.some_json(self.rng, self.sound(pattern)))


@dataclass(frozen=True)
class Family:
    """make: draws an input, writes its files, returns what reads them. share: how many inputs it
    gets in comparison with others; less for slow ones. asks: whether an input may ask for memory
    openly, as a net does by its shapes; then it gets less, and one line that says so is right.
    titles: the inputs' names, where they are counted.
    """

    name: str
    make: Callable[[Draw], Target]
    share: float
    asks: bool = False
    titles: Sequence[str] = ()

    def title(self, index: int) -> str:
        """An input's name and a colon; nothing where inputs have no names."""
        return f"{self.titles[index % len(self.titles)]}: " if self.titles else ""


REGISTRY: dict[str, Family] = {}


def family(
    share: float = 1.0, asks: bool = False, titles: Sequence[str] = ()
) -> Callable[[Callable[[Draw], Target]], Callable[[Draw], Target]]:
    """Registers a function as the family of its name."""

    def add(make: Callable[[Draw], Target]) -> Callable[[Draw], Target]:
        name = make.__name__
        if name in REGISTRY:
            raise ValueError(f"two families are called {name}")
        REGISTRY[name] = Family(name, make, share, asks, titles)
        return make

    return add


def rng_of(seed: int, name: str, index: int) -> random.Random:
    """The random numbers of one input; the same in every version of Python."""
    return random.Random(f"{seed}/{name}/{index}")


MODULES = ("nets", "weights", "hdf5", "records", "pictures", "tables", "mat", "datasets", "models",
           "recordings", "scenes", "uploads", "onnx_files", "known")  # fmt: skip


def load(modules: Sequence[str]) -> dict[str, Family]:
    """Imports modules that register families; returns the registry."""
    for module in modules:
        importlib.import_module(module)
    return REGISTRY
