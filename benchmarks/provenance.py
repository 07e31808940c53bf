"""What every benchmark records beside its figures: when, on what machine, at which revision."""

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import torch_geometric

import torch_geometric_crystal

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """Date, processor, threads and versions."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
        "torch_geometric_crystal": torch_geometric_crystal.__version__,
        "revision": _revision(),
    }


def record(name: str, figures: dict[str, Any], output: Path | None = None) -> Path:
    """Write figures and provenance to ``results/NAME.json``, or to `output`."""
    path = RESULTS / f"{name}.json" if output is None else output
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"provenance": provenance(), **figures}, indent=1) + "\n")
    temporary.replace(path)
    return path


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
