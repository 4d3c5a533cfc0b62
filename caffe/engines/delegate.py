"""The delegate of a net: has engines compute the net's region, for each shape of its inputs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from boundary.errors import one_line
from caffe.engines import choosing, kept, regions
from caffe.engines.choosing import TORCH
from caffe.engines.programs import Compiled, Engine
from caffe.engines.regions import Model
from caffe.layers.base import Shape, Tensors
from caffe.net import Net
from caffe.plan.delegates import ByPlan
from caffe.plan.prepared import Watch
from caffe.process import execution, log
from caffe.process.device import current_device
from caffe.process.ranks import root_solver

KEPT_SHAPES = 4  # of inputs, of which compiled models are kept; each has a copy of the weights
MOST_SHAPES = 16  # for which models are compiled, until the weights change

Key = tuple[tuple[Shape, ...], int]  # the shapes of inputs, and how many threads there are


def tell(message: str) -> None:
    """Log what engines do, on the first process alone."""
    if root_solver():
        log.detail("engines.py:1", message)


@dataclass
class _Way:
    """How passes on inputs of one shape are computed.

    engine: None for the plan. program: None until a model is compiled for the present weights.
    """

    engine: Engine | None
    program: _Program | None = None


class _Program:
    """A compiled region: takes and gives what a delegate does."""

    def __init__(self, compiled: Compiled, model: Model, shapes: Sequence[Shape]) -> None:
        self._compiled, self._inputs, self._shapes = compiled, model.inputs, shapes

    def __call__(self, bottom: Tensors) -> list[torch.Tensor]:
        feeds = {name: bottom[k].contiguous().numpy() for name, k in self._inputs}
        made = [np.asarray(values, np.float32) for values in self._compiled(feeds)]
        pairs = zip(made, self._shapes, strict=True)
        return [torch.from_numpy(values).view(shape) for values, shape in pairs]


class EngineDelegate:
    """Computes a region of a net in TEST phase, as caffe.plan.delegates.Delegate says.

    engines: the programs that may compute it. chooses: whether the fastest of them and the plan is
    found out; else the first one computes. A program that fails, or shapes for which the region
    has no model, leave the passes to the plan.
    """

    def __init__(self, net: Net, engines: Sequence[Engine], chooses: bool) -> None:
        self._net = weakref.ref(net)  # which keeps this
        self._wiring = wiring = net.wiring
        self._engines, self._chooses = engines, chooses
        self._region = self._all = regions.find(wiring)
        self._looked = False  # for layers that turn out to have no ONNX form
        self._ways: dict[Key, _Way] = {}
        self._used: list[Key] = []  # those with a program, the latest last
        self._prepared = 0  # how often models were compiled for the present weights
        self._watch: Watch | None = None
        self._told: set[str] = set()
        self.title = "auto" if chooses else engines[0].name

    @property
    def layers(self) -> frozenset[int]:
        return self._region.layers if self._region else frozenset()

    @property
    def takes(self) -> tuple[int, ...]:
        return self._region.takes if self._region else ()

    @property
    def gives(self) -> tuple[int, ...]:
        return self._region.gives if self._region else ()

    # -- before a pass --------------------------------------------------------------------------

    def acts(self) -> bool:
        if not self._engines:
            return self._leave("no other engine is installed: pip install 'fusenet[cpu]'")
        if self._region is None:
            return self._leave("no layer that follows from its inputs alone has an ONNX form")
        if current_device().type != "cpu":
            return self._leave("engines compute on the CPU")
        if execution.precision() == "bf16":
            return self._leave("engines compute in float32, not in bf16")
        key = self._key()
        way = self._ways.get(key)
        if way is None and self._chooses:
            way = self._remembered(key)
        if way is not None and way.engine is None:
            return False
        if (way is None or way.program is None) and self._prepared >= MOST_SHAPES:
            return self._leave(f"its inputs have had {MOST_SHAPES} shapes so far")
        return self._look()

    def _leave(self, why: str) -> bool:
        """Leave passes to the plan, and say once why."""
        if why not in self._told:
            self._told.add(why)
            tell(f"Net {self._wiring.name!r} is computed by PyTorch: {why}")
        return False

    def _key(self) -> Key:
        """What a compiled model is good for; the shapes are those that sources have made last."""
        net, blobs = self._net(), self._wiring.blobs
        assert net is not None
        assert self._all is not None
        threads = 1 if net.work.is_little() else torch.get_num_threads()
        return tuple(blobs[i].shape for i in self._all.takes), threads

    def _remembered(self, key: Key) -> _Way | None:
        """The way that was found to be the fastest before, in this process or another."""
        found = kept.read(self._name(key), {TORCH, *(engine.name for engine in self._engines)})
        if found is None:
            return None
        engine = next((e for e in self._engines if e.name == found.program), None)
        self._ways[key] = way = _Way(engine)
        self._tell_choice(key, found, " (known from before)")
        return way

    def _name(self, key: Key) -> str:
        net = self._wiring.to_proto().SerializeToString(deterministic=True)
        return kept.key(net, *key)

    def _look(self) -> bool:
        """Leave layers out of the region that have no ONNX form, when that is first asked."""
        while not self._looked and self._region is not None:
            net, refused = self._net(), set()
            assert net is not None
            for engine in self._engines:
                refused |= regions.without_form(net, self._region, engine.target)
            self._looked = not refused
            left_out = {i for i in range(len(self._wiring)) if i not in self._region.layers}
            if refused:
                self._region = regions.find(self._wiring, left_out | refused)
        return self._region is not None

    # -- a pass ---------------------------------------------------------------------------------

    def run(self, bottom: Tensors, by_plan: ByPlan) -> Sequence[torch.Tensor]:
        key = self._key()
        if self._have_weights_changed():
            self._forget()
        way = self._ways.get(key)
        if way is None and self._chooses:  # sources have made other shapes than those of acts()
            way = self._remembered(key)
        if (way is None or way.program is None) and self._prepared >= MOST_SHAPES:
            return by_plan(bottom)
        if way is None and self._chooses:
            return self._choose(key, bottom, by_plan)
        if way is None:
            way = self._ways[key] = _Way(self._engines[0])
        if way.engine is None:
            return by_plan(bottom)
        try:
            if way.program is None:
                self._prepare(key, way, bottom, by_plan)
            return way.program(bottom) if way.program else by_plan(bottom)
        except Exception as error:  # the programs' exceptions share no base class
            self._give_up(key, way, str(error))
        return by_plan(bottom)

    def _have_weights_changed(self) -> bool:
        if self._watch is None:
            layers = (self._wiring.layers[i] for i in sorted(self.layers))
            self._watch = Watch([blob for layer in layers for blob in layer.blobs])
        return self._watch.changed()

    def _forget(self) -> None:
        """Forget the compiled models, which have other weights than the net."""
        for way in self._ways.values():
            way.program = None
        self._used.clear()
        self._prepared = 0

    def _prepare(self, key: Key, way: _Way, bottom: Tensors, by_plan: ByPlan) -> None:
        """Compile a model for the present weights. A choice holds only if its answers agree."""
        assert way.engine is not None
        self._prepared += 1
        program = self._compile(way.engine, key)
        if self._chooses:
            ours = by_plan(bottom)
            if why := choosing.disagreement(ours, program(bottom), bottom, by_plan):
                self._give_up(key, way, why)
                return
            by_plan.free()
        self._keep(key, way, program)

    def _compile(self, engine: Engine, key: Key) -> _Program:
        net, region = self._net(), self._region
        assert net is not None
        assert region is not None
        model = regions.write(net, region, engine.target)
        compiled = engine.compile(model.content, key[1])
        shapes = [self._wiring.blobs[i].shape for i in region.gives]
        return _Program(compiled, model, shapes)

    def _keep(self, key: Key, way: _Way, program: _Program) -> None:
        """Keep a compiled model, and forget the one that was made first if there are many."""
        way.program = program
        self._used.append(key)
        if len(self._used) > KEPT_SHAPES:
            self._ways[self._used.pop(0)].program = None
        if way.engine is not None:
            self.title = way.engine.name
            if not self._chooses:
                count = f"{len(self.layers)} of {len(self._wiring)} layers"
                tell(f"{self._described(key)}: {self.title} computes {count}")

    def _give_up(self, key: Key, way: _Way, why: str) -> None:
        """Leave inputs of these shapes to the plan."""
        name = way.engine.name if way.engine else ""
        way.engine = way.program = None
        if key in self._used:
            self._used.remove(key)
        tell(f"{self._described(key)}: not computed by {name}: {one_line(why, 240)}")

    # -- choosing -------------------------------------------------------------------------------

    def _choose(self, key: Key, bottom: Tensors, by_plan: ByPlan) -> Sequence[torch.Tensor]:
        """Find the fastest way for inputs of these shapes; returns the plan's answers."""
        self._prepared += 1
        ours = by_plan(bottom)
        programs: dict[str, _Program] = {}
        for engine in self._engines:
            try:
                program = self._compile(engine, key)
                why = choosing.disagreement(ours, program(bottom), bottom, by_plan)
            except Exception as error:  # the programs' exceptions share no base class
                why = str(error)
            if why:
                way = self._ways[key] = _Way(engine)
                self._give_up(key, way, why)
            else:
                programs[engine.name] = program
        if programs:
            self._decide(key, programs, bottom, by_plan)
        by_plan.free()
        return ours

    def _decide(
        self, key: Key, programs: Mapping[str, _Program], bottom: Tensors, by_plan: ByPlan
    ) -> None:
        passes: dict[str, choosing.Pass] = {TORCH: lambda: by_plan(bottom)}
        passes |= {name: lambda run=run: run(bottom) for name, run in programs.items()}
        seconds = choosing.time_passes(passes)
        best = choosing.fastest(seconds)
        milliseconds = {name: round(1e3 * value, 4) for name, value in seconds.items()}
        choice = kept.Kept(best, milliseconds)
        self._tell_choice(key, choice, "")
        if len(programs) == len(self._engines):  # else the answers of other weights may agree
            kept.write(self._name(key), self._wiring.name, choice)
        engine = next((e for e in self._engines if e.name == best), None)
        self._ways[key] = way = _Way(engine)
        if engine is not None:
            self._keep(key, way, programs[best])

    def _tell_choice(self, key: Key, choice: kept.Kept, how: str) -> None:
        times = ", ".join(f"{name} {value:g} ms" for name, value in choice.milliseconds.items())
        tell(f"{self._described(key)}: {choice.program} computes{how}: {times}")

    def _described(self, key: Key) -> str:
        shapes = ", ".join("x".join(map(str, shape)) for shape in key[0])
        threads = "1 thread" if key[1] == 1 else f"{key[1]} threads"
        return f"Net {self._wiring.name!r}, inputs {shapes}, {threads}"
