"""Kernels: a whole folded network evaluated by one compiled function, instead of array by array.

The C extension for the CPU is built when mlpinfer is installed where there is a C compiler. Without
it, or told so by the environment variable ``MLPINFER_EVALUATOR``, the plan runs everything. One for the
GPU is in preparation (`mlpinfer.engine.compiled.availability.fused`).
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

from mlpinfer._text import quoted
from mlpinfer.errors import InputError

#: "plan" turns the compiled evaluator off; a name of `Compiled.available` chooses its instruction set.
VARIABLE = "MLPINFER_EVALUATOR"
#: Right where it was emulated, but of unknown speed: not chosen unless it is named.
_UNMEASURED = {"neon"}


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """The compiled evaluator on this machine.

    `instruction_set` is the one that is used, None where the plan runs instead; `available` are all
    that the processor runs, best first; `problem` and `fix` say why there is none.
    """

    instruction_set: str | None
    available: tuple[str, ...]
    problem: str | None = None
    fix: str | None = None


def find_compiled() -> Compiled:
    """Find out whether networks are evaluated by compiled code here.

    Raises
    ------
    InputError
        If ``MLPINFER_EVALUATOR`` asks for what this machine does not have.
    """
    available, problem, fix = _find()
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "plan":
        problem = problem or f"turned off by {VARIABLE}=plan"
        return Compiled(instruction_set=None, available=available, problem=problem, fix=fix)
    if wanted and wanted not in available:
        choices = ", ".join(("plan", *available))
        raise InputError(f"{VARIABLE}: expected one of {choices} on this machine, found {quoted(wanted)}")
    if not wanted and available and available[0] in _UNMEASURED:
        problem = f"{available[0]} has not been measured yet; {VARIABLE}={available[0]} turns it on"
        return Compiled(instruction_set=None, available=available, problem=problem)
    chosen = wanted or next(iter(available), None)
    return Compiled(instruction_set=chosen, available=available, problem=problem, fix=fix)


def _find() -> tuple[tuple[str, ...], str | None, str | None]:
    """Return the instruction sets, or none, what is wrong and what to do."""
    try:
        from mlpinfer.engine.compiled import _cpu
    except ImportError as error:
        if importlib.util.find_spec("mlpinfer.engine.compiled._cpu") is not None:
            return (), f"the extension does not load: {error}", "install mlpinfer again on this machine"
        return (
            (),
            "mlpinfer was installed without it",
            "install GCC or Clang and mlpinfer again, from source",
        )
    available = _cpu.instruction_sets()
    return available, None if available else "the processor is older than x86-64-v2", None
