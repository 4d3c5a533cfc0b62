"""The delegate of a net: has engines compute the net's region, for each shape of its inputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from boundary.errors import one_line
from caffe.engines import choosing, kept, regions
from caffe.engines.choosing import TORCH
from caffe.engines.programs import Compiled, Engine
from caffe.engines.regions import Model
from caffe.engines.weights import Weights
from caffe.layers.base import Shape, Tensors
from caffe.net import Net
from caffe.plan.delegates import ByPlan
from caffe.process import execution, log
from caffe.process.device import current_device
from caffe.process.ranks import root_solver

KEPT_SHAPES = 4  # of inputs, of which compiled models are kept; each has a copy of the weights
MOST_SHAPES = 16  # for which models are compiled, until the weights change
MOST_RETRIES = 3  # of refused engines by a net: they cost compilations, and perhaps choosing anew

Key = tuple[tuple[Shape, ...], int]  # the shapes of inputs, and how many threads there are


def tell(message: str) -> None:
    """Log what engines do, on the first process alone."""
    if root_solver():
        log.detail("engines.py:1", message)


@dataclass
class _Way:
    """How passes on inputs of one shape are computed.

    engine: None for the plan. program: None until a model is compiled for the present weights.
    refused: whether an engine failed, or its answers were not the plan's.
    """

    engine: Engine | None
    program: _Program | None = None
    refused: bool = False


class _Program:
    """A compiled region: takes and gives what a delegate does.

    run: computes, once memory is bound. memory: addresses of the inputs and outputs that are bound.
    steady: whether the last call found them as they were at the one before. inputs: their places
    among what the delegate takes.
    """

    def __init__(self, compiled: Compiled, model: Model, shapes: Sequence[Shape]) -> None:
        self._compiled, self._shapes = compiled, shapes
        self._names = [name for name, _ in model.inputs]
        self.inputs = [k for _, k in model.inputs]
        self.run: Callable[[], object] | None = None
        self.memory: list[int] = []
        self.steady = False

    def __call__(
        self, bottom: Tensors, places: Sequence[torch.Tensor | None] | None = None
    ) -> list[torch.Tensor]:
        """The values for those of bottom. places: memory for them, where there is some; else they
        get memory of their own in each pass, as blobs may hold it for longer.
        """
        given = [bottom[k].contiguous() for k in self.inputs]
        made = [
            torch.empty(shape) if place is None or place.shape != shape else place
            for place, shape in zip(places or [None] * len(self._shapes), self._shapes, strict=True)
        ]
        memory = [values.data_ptr() for values in (*given, *made)]
        self.steady = self.run is not None and memory == self.memory
        if not self.steady:
            self.run, self.memory = None, []
            self.run = self._compiled.bind(dict(zip(self._names, given, strict=True)), made)
            self.memory = memory
        assert self.run is not None
        self.run()
        return made


@dataclass(frozen=True)
class _Direct:
    """A pass by a compiled model on memory that is bound, as caffe.plan.delegates.Direct says."""

    blobs: tuple[int, ...]
    run: Callable[[], object]
    way: _Way
    program: _Program
    have_weights_changed: Callable[[], bool]  # if so, the way loses its program
    threads: int | None  # None: as many for any setting

    def holds(self) -> bool:
        return (
            self.way.program is self.program
            and self.program.run is self.run
            and not self.have_weights_changed()
            and (self.threads is None or self.threads == torch.get_num_threads())
        )


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
        self._last: _Way | None = None  # by which the last pass went, if by a program
        self._prepared = 0  # how often models were compiled for the present weights
        self._retries = 0  # how often new weights gave refused engines another chance
        self._weights: Weights | None = None
        self._told: set[str] = set()
        self.title = "auto" if chooses else engines[0].name
        self.ready = False

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
        if way is not None and way.refused and self._have_weights_changed():
            way = self._ways.get(key)  # None if it may be tried again
        if way is None and self._chooses:
            way = self._remembered(key)
        if way is not None and way.engine is None:
            return False
        if (way is None or way.program is None) and self._prepared >= MOST_SHAPES:
            return self._leave(f"its inputs have had {MOST_SHAPES} shapes so far")
        self.ready = way is not None and way.program is not None
        return self._look()

    def _leave(self, why: str) -> bool:
        """Leave passes to the plan, and say once why."""
        self._tell_once(f"Net {self._wiring.name!r} is computed by PyTorch: {why}")
        return False

    def _tell_once(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            tell(message)

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
        key, self._last = self._key(), None
        self._have_weights_changed()
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
            if way.program is not None:
                self._last = way
                return way.program(bottom, self._places())
        except Exception as error:  # the programs' exceptions share no base class
            self._give_up(key, way, str(error))
        return by_plan(bottom)

    def _have_weights_changed(self) -> bool:
        """Whether they have; then the compiled models, which have others, are forgotten."""
        if self._weights is None:
            layers = (self._wiring.layers[i] for i in sorted(self.layers))
            self._weights = Weights([blob for layer in layers for blob in layer.blobs])
        if not self._weights.changed():
            return False
        for way in self._ways.values():
            way.program = None
        self._used.clear()
        self._prepared = 0
        if self._retries < MOST_RETRIES and any(way.refused for way in self._ways.values()):
            self._retries += 1
            self._ways = {key: way for key, way in self._ways.items() if not way.refused}
        return True

    def _places(self) -> list[torch.Tensor | None]:
        """Where the net's outputs keep their values for those who look at them."""
        blobs, outputs = self._wiring.blobs, self._wiring.outputs
        return [blobs[i].place() if i in outputs else None for i in self.gives]

    def direct(self) -> _Direct | None:
        way = self._last
        program = way.program if way is not None else None
        if way is None or program is None or program.run is None or not program.steady:
            return None
        blobs = (*(self.takes[k] for k in program.inputs), *self.gives)
        hosts = [self._wiring.blobs[i].host for i in blobs]
        memory = [host.data_ptr() for host in hosts if host is not None]
        if memory != program.memory or len(set(memory)) < len(memory):
            return None
        net = self._net()
        assert net is not None
        threads = None if net.work.is_little() else torch.get_num_threads()
        return _Direct(blobs, program.run, way, program, self._have_weights_changed, threads)

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
        way.refused = True
        if key in self._used:
            self._used.remove(key)
        self._tell_once(f"{self._described(key)}: not computed by {name}: {one_line(why, 240)}")

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
        for name, program in programs.items():
            places = program(bottom)  # most passes write where blobs keep the last one's values
            passes[name] = lambda run=program, places=places: run(bottom, places)
        seconds = choosing.time_passes(passes)
        best = choosing.fastest(seconds)
        milliseconds = {name: round(1e3 * value, 4) for name, value in seconds.items()}
        choice = kept.Kept(best, milliseconds)
        self._tell_choice(key, choice, "")
        refused = len(programs) < len(self._engines)
        if not refused:  # else the answers of other weights may agree
            kept.write(self._name(key), self._wiring.name, choice)
        engine = next((e for e in self._engines if e.name == best), None)
        self._ways[key] = way = _Way(engine, refused=refused)
        if engine is not None:
            self._keep(key, way, programs[best])

    def _tell_choice(self, key: Key, choice: kept.Kept, how: str) -> None:
        times = ", ".join(f"{name} {value:g} ms" for name, value in choice.milliseconds.items())
        tell(f"{self._described(key)}: {choice.program} computes{how}: {times}")

    def _described(self, key: Key) -> str:
        shapes = ", ".join("x".join(map(str, shape)) for shape in key[0])
        threads = "1 thread" if key[1] == 1 else f"{key[1]} threads"
        return f"Net {self._wiring.name!r}, inputs {shapes}, {threads}"
