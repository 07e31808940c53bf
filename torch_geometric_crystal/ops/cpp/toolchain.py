"""What the C++ kernels are compiled from and with, and the key that names the result."""

import functools
import hashlib
import os
import platform
import shlex
import shutil
import sys
from pathlib import Path

import torch

SOURCE_FOLDER = Path(__file__).parent
SOURCES = ("kernels.cpp",)
HEADERS = tuple(sorted(path.name for path in SOURCE_FOLDER.glob("*.h")))

FLAGS = (
    "-O3", "-march=native", "-std=c++20", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno", "-fvisibility=hidden",
    "-Wno-psabi",
)  # fmt: skip
"""Without -ffast-math: infinities and not-a-numbers keep their meaning, and sums their order."""

COMPILERS = ("g++", "clang++", "c++")


def find_compiler() -> list[str] | None:
    """The command of the C++ compiler: ``$CXX`` where it is set, else the first of `COMPILERS` on the path."""
    command = shlex.split(os.environ.get("CXX", ""))
    candidates = [command] if command else [[name] for name in COMPILERS]
    for candidate in candidates:
        if shutil.which(candidate[0]):
            return candidate
    return None


def compile_command(compiler: list[str], output: Path) -> list[str]:
    """The command that compiles the sources to one library against the installed torch."""
    root = Path(torch.__file__).parent
    return [
        *compiler, *FLAGS, f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        "-isystem", str(root / "include"), *(str(SOURCE_FOLDER / name) for name in SOURCES), "-o", str(output),
        "-L" + str(root / "lib"), "-ltorch_cpu", "-lc10",
    ]  # fmt: skip


@functools.cache
def build_key() -> str:
    """Digest of all that the library depends on: sources, flags, torch, and the processor's instruction set.

    A home folder may be shared by machines of different processors, and code for one can crash on another.
    """
    digest = hashlib.sha256()
    for name in SOURCES + HEADERS:
        digest.update((SOURCE_FOLDER / name).read_bytes())
    torch_build = f"{torch.__version__} {torch.version.git_version} {torch.compiled_with_cxx11_abi()}"
    for text in (*FLAGS, torch_build, sys.platform, platform.machine(), instruction_set()):
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()[:24]


def instruction_set() -> str:
    """The processor's features as Linux lists them, sorted; its name where there is no list."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, features = line.partition(":")
                if name.strip().lower() in ("flags", "features"):
                    return " ".join(sorted(features.split()))
    except OSError:
        pass
    return platform.processor()
