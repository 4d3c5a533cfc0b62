"""The log lines of debug_info."""

from __future__ import annotations

import pytest
from nets import INPUT, LOSS, ip

pytestmark = pytest.mark.usefixtures("fresh")


def test_debug_info(make_net, capsys) -> None:
    text = INPUT + ip("ip", "x", more='param { name: "w" }') + ip("b", "ip")
    net = make_net("debug_info: true " + text + LOSS.replace('"ip"', '"b"'))
    net.blobs["x"].data[...] = 1
    for name in ("ip", "b"):
        net.params[name][0].data[...] = 1
    capsys.readouterr()
    net.forward()
    net.backward()
    lines = [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    # ip = 3, b = 6, loss = 4 * 36; d/db = 2 b = 12, d/dip = 24, weights: 12 * 3 * 2 = 72, ...
    assert lines == [
        "    [Forward] Layer in, top blob x data: 1",
        "    [Forward] Layer ip, top blob ip data: 3",
        "    [Forward] Layer ip, param blob w data: 1",
        "    [Forward] Layer ip, param blob 1 data: 0",
        "    [Forward] Layer b, top blob b data: 6",
        "    [Forward] Layer b, param blob 0 data: 1",
        "    [Forward] Layer b, param blob 1 data: 0",
        "    [Forward] Layer sum, top blob loss data: 144",
        "    [Backward] Layer sum, bottom blob b diff: 12",
        "    [Backward] Layer b, bottom blob ip diff: 24",
        "    [Backward] Layer b, param blob 0 diff: 72",
        "    [Backward] Layer b, param blob 1 diff: 24",
        "    [Backward] Layer ip, param blob 0 diff: 48",
        "    [Backward] Layer ip, param blob 1 diff: 48",
        # 4 + 6 weights of 1; gradients: 4 * 72 + 2 * 24 + 6 * 48 + 2 * 48 = 720, and their squares
        # 4 * 72^2 + 2 * 24^2 + 6 * 48^2 + 2 * 48^2 = 40320 = 200.798^2
        "    [Backward] All net params (data, diff): L1 norm = (10, 720); L2 norm = (3.16228, "
        "200.798)",
    ]
