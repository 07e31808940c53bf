"""What the compiler makes of Triton kernels for a GPU, where there is none."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def disassembler():
    spec = importlib.util.find_spec("triton.backends.nvidia")
    return None if spec is None else Path(spec.origin).parent / "bin" / "cuobjdump"


def resource_usage(cubin):
    """Registers, stack and local memory of a compiled kernel."""
    path = Path(os.environ["CUBIN_FOLDER"]) / "kernel.cubin"
    path.write_bytes(cubin)
    run = subprocess.run([disassembler(), "-res-usage", path], capture_output=True, text=True, check=True)
    return {key: int(number) for key, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", run.stdout)}


def report_of(module, function, folder):
    """The JSON that a function prints, in a process of its own: interpreted kernels cannot be compiled."""
    if disassembler() is None or not disassembler().exists():
        pytest.skip("this Triton ships no cuobjdump to read what the compiler made")
    environment = {key: text for key, text in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"CUBIN_FOLDER": str(folder), "TRITON_CACHE_DIR": str(folder / "cache")}
    command = f"from {module} import {function}; {function}()"
    run = subprocess.run(
        [sys.executable, "-c", command], cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
