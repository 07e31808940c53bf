"""``tgcrystal info``."""

import importlib.metadata
import platform
import sys

import typer

from torch_geometric_crystal.cli.display import console

PACKAGES = (
    "torch_geometric_crystal", "torch", "torch_geometric", "numpy", "pymatgen", "lightning", "torchmetrics",
    "matminer", "matbench", "ase", "triton", "safetensors", "matplotlib",
)  # fmt: skip


def info() -> None:
    """Show versions, devices, the operations' backends, models and bundled data: what a bug report needs."""
    import torch
    from rich.markup import escape
    from rich.table import Table

    from torch_geometric_crystal import __version__
    from torch_geometric_crystal.benchmark.sources import bundled_datasets
    from torch_geometric_crystal.nn.models import MODELS
    from torch_geometric_crystal.ops.backend import BACKENDS, available_backends, unavailable_reason

    table = Table(show_header=False, title="torch_geometric_crystal", title_justify="left")
    table.add_row("python", f"{platform.python_version()} ({sys.platform}, {platform.machine()})")
    for package in PACKAGES:
        version = __version__ if package == "torch_geometric_crystal" else package_version(package)
        table.add_row(package, version or "[dim]not installed[/dim]")
    table.add_row("CPU threads", str(torch.get_num_threads()))
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    table.add_row("GPU", ", ".join(names) or "none")
    for name in ["cuda"] * bool(names) + ["cpu"]:
        table.add_row(f"backends on {name}", ", ".join(available_backends(name)))
        for backend in BACKENDS[1:]:
            reason = unavailable_reason(backend, torch.device(name), torch.float32)
            if reason is not None:
                table.add_row("", f"[dim]not {backend}: {escape(reason)}[/dim]")
    table.add_row("models", ", ".join(sorted(MODELS)))
    table.add_row("bundled data", ", ".join(bundled_datasets()))
    console().print(table)


def package_version(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("info")(info)
