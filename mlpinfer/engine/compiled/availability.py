"""Whether the compiled evaluator is there, and which instruction sets it can use on this machine.

The C extension is built when mlpinfer is installed where there is a C compiler. Without it, or if the
environment variable ``MLPINFER_EVALUATOR`` says so, the array evaluator runs everything.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

from mlpinfer._text import quoted
from mlpinfer.errors import InputError

#: ``plan`` chooses the array evaluator; a name of `Compiled.available` chooses an instruction set.
VARIABLE = "MLPINFER_EVALUATOR"
#: Right where it was emulated, but of unknown speed: not chosen unless it is named.
_UNMEASURED = {"neon"}
#: AMX in plain C, for tests of its arithmetic on any processor: slow, so it is used only where it is named.
EMULATED = "amx-emulated"


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """The compiled evaluator on this machine.

    `instruction_set` is the one that is used, None where the array evaluator runs instead; `available`
    are all that the processor runs, best first; `problem` and `fix` say why there is none.
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
    if wanted and wanted not in available and not (available and wanted == EMULATED):
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
