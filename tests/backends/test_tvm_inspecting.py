"""Instructions of hot loops, counted in assembly."""

from __future__ import annotations

import pytest

from gensynth.backends.tvm.inspecting import functions_of, hot_loop

KERNEL = """\
\t.type\tkernel,@function
kernel:
\tstp\tx29, x30, [sp, #-16]!
\t{prologue}
.LBB0_1:
\tldp\tq0, q1, [x29, #32]
\tldr\tq2, [x1], #16
\tfmla\tv4.4s, v2.4s, v0.s[0]
\tfmla\tv5.4s, v2.4s, v1.s[0]
\tfmla\tv6.4s, v2.4s, v1.s[1]
\tstr\tq4, [sp, #16]
\tsubs\tw3, w3, #1
\tb.ne\t.LBB0_1
\tret
\t.size\tkernel, .-kernel
"""


@pytest.mark.parametrize(
    ("prologue", "loads", "spills"),
    [("add\tx29, x0, w1, sxtw #2", 3, 1), ("mov\tx29, sp", 1, 2), ("add\tx29, sp, #16", 1, 2)],
    ids=["a pointer", "the frame", "the frame, further on"],
)
def test_x29_is_the_stack_only_where_it_holds_the_frame(prologue, loads, spills):
    loop = hot_loop(functions_of(KERNEL.format(prologue=prologue))["kernel"], "aarch64")
    assert loop is not None
    assert (loop.instructions, loop.multiplies, loop.loads, loop.spills) == (8, 3, loads, spills)


def test_a_function_without_a_loop_that_multiplies_has_no_hot_loop():
    text = KERNEL.format(prologue="mov\tx29, sp").replace("fmla", "fadd")
    assert hot_loop(functions_of(text)["kernel"], "aarch64") is None
