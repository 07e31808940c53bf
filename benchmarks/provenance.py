"""What every benchmark records beside its figures: when, on what machine, with which versions, command and revision."""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch_geometric

import torch_geometric_crystal

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """Date, command, processor, threads, GPU and versions."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": command_line(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **_gpu(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "triton": _version("triton"),
        "torch_geometric_crystal": torch_geometric_crystal.__version__,
        "revision": _revision(Path(__file__).parent),
    }


def record(name: str, figures: dict[str, Any], output: Path | None = None) -> Path:
    """Write figures and provenance to ``results/NAME.json``, or to `output`."""
    path = RESULTS / f"{name}.json" if output is None else output
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"provenance": provenance(), **figures}, indent=1) + "\n")
    temporary.replace(path)
    return path


def command_line() -> str:
    """The command that runs, folders of this machine left out: of an absolute path only the last part stays."""
    script, *arguments = sys.argv
    shown = [Path(argument).name if Path(argument).is_absolute() else argument for argument in arguments]
    name = Path(script).name
    path = f"experiments/{name}" if (RESULTS.parent / "experiments" / name).is_file() else name
    return shlex.join(["python", f"benchmarks/{path}", *shown])


def machine(device: str) -> str:
    """One line about the machine, for tables and figures."""
    if device == "cuda":
        return _gpu()["gpu"]
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def checkout_revision(folder: Path) -> str:
    """Commit of a git checkout, "unknown" where `folder` is none."""
    return _revision(folder) if (folder / ".git").exists() else "unknown"


def _gpu() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"gpu": None}
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = _output(query).splitlines()
    return {
        "gpu": torch.cuda.get_device_name(),
        "gpu_memory_GiB": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1),
        "driver": driver[0].strip() if driver else "unknown",
        "cuda": torch.version.cuda,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision(folder: Path) -> str:
    return _output(["git", "-C", str(folder), "describe", "--always", "--dirty"]).strip() or "unknown"


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
