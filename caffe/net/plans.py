"""The plans of one net: that of its layers, and one in which a delegate computes some of them."""

from __future__ import annotations

from typing import Any

from caffe.graph.wiring import Wiring
from caffe.net.short import Short, is_whole
from caffe.plan import delegates
from caffe.plan.build import can_plan
from caffe.plan.delegates import Delegate, Delegates
from caffe.plan.plan import Plan
from caffe.proto import caffe_pb2 as pb


class Plans:
    """Makes the plans of a net when they are first needed, and anew when settings have changed."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self.clear()

    def clear(self) -> None:
        """Forget all plans: they may have prepared parameters that the net no longer has."""
        self._own: Plan | None = None
        self._without_delegate()

    def current(self, net: Any) -> Plan | None:
        """The plan of the next whole pass; None if the net can only run layer by layer.

        net: what the delegate is asked for. It is not kept, as the net keeps this.
        """
        delegate = self._current_delegate(net)
        if delegate is None:
            self._own = self._fresh(self._own)
            if self._own is None and can_plan(self._wiring):
                self._own = Plan(self._wiring, train=self._wiring.phase == pb.TRAIN)
            return self._own
        self._shared = self._fresh(self._shared)
        if self._shared is None:
            self._shared = Plan(self._wiring, train=False, delegate=delegate)
            self._whole = is_whole(self._wiring, delegate)
        return self._shared

    def leaves_nothing(self, plan: Plan) -> bool:
        """Whether a pass by that plan leaves PyTorch nothing to compute, as far as can be told."""
        delegate = self._delegate
        return plan is self._shared and self._whole and delegate is not None and delegate.ready

    def short(self, followed: Plan | None) -> Short | None:
        """The short way for passes like the last one, which followed that plan, if there is one."""
        delegate = self._delegate
        if delegate is None or followed is None or followed is not self._shared:
            return None
        direct = delegate.direct() if self._whole else None
        return Short(self._wiring, followed, direct) if direct is not None else None

    def _without_delegate(self) -> None:
        self._shared: Plan | None = None
        self._whole = False  # whether the delegate computes all behind the inputs
        self._delegate: Delegate | None = None
        self._asked: Delegates | None = None  # for the delegate

    @staticmethod
    def _fresh(plan: Plan | None) -> Plan | None:
        return plan if plan is not None and plan.is_current() else None

    def _current_delegate(self, net: Any) -> Delegate | None:
        """The net's delegate, if it computes a pass on inputs of the shapes that they have now."""
        found = delegates.current()
        if found is not self._asked:
            self._without_delegate()
            self._asked = found
            if found is not None and self._wiring.phase == pb.TEST and can_plan(self._wiring):
                self._delegate = found.of(net)
        delegate = self._delegate
        return delegate if delegate is not None and delegate.acts() else None
