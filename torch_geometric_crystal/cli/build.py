"""``tgcrystal build``."""

import time
from typing import Annotated

import typer

from torch_geometric_crystal.cli.display import console
from torch_geometric_crystal.cli.options import help_text

HELP = """Compile the C++ kernels for this machine's CPU, check them, and measure what they gain.

They are optional: without them the same results come from pure torch, several times slower. It needs Linux and a C++
compiler (g++ or clang++), and takes less than a minute. After an update of torch or of this package, build again.

Examples:

  tgcrystal build

  tgcrystal build --force
"""


def build(
    force: Annotated[bool, typer.Option("--force", help="Compile anew, even if it was done before.")] = False,
) -> None:
    """Compile the C++ kernels for the CPU."""
    from torch_geometric_crystal.ops.cpp import extension
    from torch_geometric_crystal.ops.cpp.self_check import run_self_check

    if extension.is_built() and not force:
        console().print("already built; --force compiles anew")
    else:
        console().print("compiling the C++ kernels (10 to 60 seconds) ...", style="dim")
    start = time.perf_counter()
    path = extension.build(force)
    console().print(f"{path} ({time.perf_counter() - start:.0f} s)", markup=False, soft_wrap=True)
    reason = extension.why_unavailable()
    if reason is not None:
        raise ImportError(reason)
    check = run_self_check()
    errors = f"outputs {check.output_error:.1e}, gradients {check.gradient_error:.1e}"
    if not check.passed:
        path.unlink(missing_ok=True)
        raise ArithmeticError(f"the kernels disagree with the reference and were removed: largest errors of {errors}")
    console().print(f"checked against the reference: largest errors of {errors}", soft_wrap=True)
    speed = f"{1e3 * check.seconds:.2f} ms, {check.blocked_seconds / check.seconds:.1f} times as fast as pure torch"
    console().print(f"infinite attention, forward and backward: {speed}", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("build", help=help_text(HELP))(build)
