"""What a sweep over learning rates shows: the curve of losses, a suggestion, and its drawings."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BELOW = (
    10  # the suggestion is the rate of the lowest loss divided by this (fastai's "minimum / 10")
)
# For a suggestion the loss must fall by this share of it at the start, and by so many standard
# deviations of the smoothed curve.
FALL, BEYOND_NOISE = 0.02, 6
EDGE = 3  # a lowest loss among so many last rates of a sweep tells that it ended too early
ROWS = 12  # of the drawing in text


@dataclass(frozen=True)
class Curve:
    """Losses over rates.

    start: the loss before any update. rates: those of the updates, rising. losses: after the update
    at each rate; finite, at least one. diverged: whether the sweep ended because the loss exploded.
    """

    start: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    diverged: bool = False

    @cached_property
    def smoothed(self) -> tuple[float, ...]:
        """Means over neighbours on both sides, so that the curve does not lag behind, weighted by a
        Gaussian. No loss counts more than twice that at the start: an explosion would reach back.
        """
        most = self.start + max(abs(self.start), self.start - min(self.losses))
        values = np.minimum(self.losses, most)
        places = np.arange(len(values))
        weights = np.exp(-(((places[:, None] - places) / self._width) ** 2) / 2)
        return tuple((weights @ values / weights.sum(1)).tolist())

    @property
    def _width(self) -> float:
        """The Gaussian's standard deviation, in updates."""
        return max(1.0, len(self.losses) / 40)

    @property
    def _noise(self) -> float:
        """The standard deviation of the smoothed curve that comes from batches being different."""
        distances = np.abs(np.subtract(self.losses, self.smoothed))
        one = 1.48 * float(np.median(distances))  # of normal ones; an explosion does not count
        return one / math.sqrt(2 * math.sqrt(math.pi) * self._width)

    @property
    def level(self) -> float:
        """The loss at the start: the mean with the first tenth of the losses, as little happens at
        these rates, and batches differ.
        """
        return float(np.mean([self.start, *self.losses[: len(self.losses) // 10]]))

    @property
    def lowest(self) -> int:
        """The place of the lowest smoothed loss."""
        return int(np.argmin(self.smoothed))

    @property
    def suggested(self) -> float | None:
        """A tenth of the rate of the lowest smoothed loss; None where the loss falls nowhere, or no
        further than batches differ.
        """
        least = max(FALL * abs(self.level), BEYOND_NOISE * self._noise)
        return self.rates[self.lowest] / BELOW if self.lowest and self._fell > least else None

    @property
    def _fell(self) -> float:
        """By how much the smoothed loss falls at most."""
        return self.level - self.smoothed[self.lowest]

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls fastest by the rate's logarithm, of those up to
        the lowest loss; None where none is suggested.
        """
        if self.suggested is None or self.lowest < 2:
            return None
        return self.rates[int(np.argmin(np.gradient(self.smoothed[: self.lowest + 1])))]

    def words(self) -> list[str]:
        """What the curve suggests and why, as sentences."""
        lowest, loss = f"{self.rates[self.lowest]:.2g}", f"{self.smoothed[self.lowest]:.4g}"
        start = f"{self.level:.4g} at the start"
        if self.suggested is None:
            if self.lowest == 0:
                how = "is not lower at any higher rate"
            elif self._fell <= FALL * abs(self.level):
                how = f"falls by less than {FALL:.0%}"
            else:
                how = (
                    "falls no further than batches differ by chance; more -iterations or a larger "
                    "iter_size would tell more"
                )
            return [
                f"No rate is suggested: the smoothed loss ({start}; lowest at {lowest}: {loss}) "
                f"{how}."
            ]
        why = (
            f"It is a tenth of {lowest}, where the smoothed loss is lowest ({loss}; {start}): so "
            "high a rate seldom lasts for a whole training."
        )
        if self.steepest is not None:
            why += f" The loss falls fastest at {self.steepest:.2g}."
        if self.lowest >= len(self.rates) - EDGE and not self.diverged:
            why += " It was still falling at the last rates: higher ones may do, too."
        return [f"Suggestion: base_lr: {self.suggested:.2g}", why]

    def csv(self) -> str:
        """A row for each update: its rate, the loss after it, and the smoothed loss."""
        rows = zip(self.rates, self.losses, self.smoothed, strict=True)
        return "rate,loss,smoothed\n" + "".join(f"{r:.6g},{x:.6g},{s:.6g}\n" for r, x, s in rows)

    def plot(self, width: int) -> list[str]:
        """The smoothed curve in lines of at most `width` characters; a ^ marks the suggestion."""
        top, bottom = self._range()
        values = np.linspace(top, bottom, ROWS)
        names = [f"{v:.4g}" if i in (0, ROWS // 2, ROWS - 1) else "" for i, v in enumerate(values)]
        margin = max(map(len, names))
        axis = _Axis(self.rates[0], self.rates[-1], max(10, width - margin - 2))
        grid = [[" "] * axis.columns for _ in range(ROWS)]
        for x, value in enumerate(np.interp(axis.logs, np.log10(self.rates), self.smoothed)):
            if value <= top:
                grid[round((top - value) / (top - bottom) * (ROWS - 1))][x] = "*"
        rows = [f"{name:>{margin}} |{''.join(row)}" for name, row in zip(names, grid, strict=True)]
        line, numbers = axis.drawn(self.suggested)
        rows += [f"{'':{margin}} +{line}", f"{'':{margin}}  {numbers}"]
        return ["loss over rate", *(row.rstrip() for row in rows)]

    def png(self, title: str) -> bytes:
        """The curve as a picture."""
        from matplotlib.figure import Figure  # not above: it takes half a second

        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, "C0", alpha=0.35, linewidth=1, label="loss")
        axes.plot(self.rates, self.smoothed, "C0", linewidth=2, label="smoothed")
        axes.axhline(self.level, color="grey", linewidth=1, linestyle=":", label="at the start")
        best = self.rates[self.lowest]
        axes.plot(best, self.smoothed[self.lowest], "C0o", label=f"lowest: {best:.2g}")
        for what, rate, look in (
            ("steepest", self.steepest, {"color": "C2", "linewidth": 1, "linestyle": "--"}),
            ("suggested", self.suggested, {"color": "C1", "linewidth": 2}),
        ):
            if rate is not None:
                axes.axvline(rate, label=f"{what}: {rate:.2g}", **look)
        top, bottom = self._range()
        room = 0.08 * (top - bottom)
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss", title=title)
        axes.set_ylim(bottom - room, top + room)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=120)
        return file.getvalue()

    def _range(self) -> tuple[float, float]:
        """The largest and the least loss that drawings show: an explosion would hide the rest."""
        low, high = min(self.smoothed), max(self.smoothed)
        if self.level > low:
            high = min(high, self.level + 0.3 * (self.level - low))
        return (high, low) if high > low else (low + (abs(low) or 1) / 10, low)


class _Axis:
    """The axis of rates, of so many characters."""

    def __init__(self, first: float, last: float, columns: int) -> None:
        self.columns = columns
        self.logs = np.linspace(math.log10(first), math.log10(last), columns)

    def drawn(self, mark: float | None) -> tuple[str, str]:
        """The axis with a + at each power of ten and a ^ at `mark`, and the names below it."""
        line, names = ["-"] * self.columns, " " * self.columns
        for power in range(math.ceil(self.logs[0] - 1e-6), math.floor(self.logs[-1] + 1e-6) + 1):
            at, text = self._column(power), f"1e{power}"
            line[at] = "+"
            begin = min(max(0, at - len(text) // 2), self.columns - len(text))
            if not names[max(0, begin - 1) : begin + len(text) + 1].strip():
                names = names[:begin] + text + names[begin + len(text) :]
        if mark is not None and self.logs[0] <= math.log10(mark) <= self.logs[-1]:
            line[self._column(math.log10(mark))] = "^"
        return "".join(line), names

    def _column(self, log: float) -> int:
        return int(np.argmin(abs(self.logs - log)))
