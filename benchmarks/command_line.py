"""The options that all benchmarks share, and how they end: a table, a JSON file, a figure."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from provenance import RESULTS, machine, record


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with --quick, --output, --device and --threads."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that everything works")
    parser.add_argument("--output", type=Path, help="JSON file (default: in benchmarks/results), the figure beside it")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    parser.add_argument("--threads", type=int, help="threads of the CPU (default: torch's)")
    return parser


def read_options(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse, choose the device, set the threads."""
    options = parser.parse_args(arguments)
    if options.device is None:
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return options


def finish(name: str, options: argparse.Namespace, figures: dict[str, Any], draw: Callable[[Path], None]) -> None:
    """Write the JSON and the figure beside it, and say where. A quick run stays out of the recorded results."""
    name = f"{name}_{options.device}"
    output = options.output or (Path(tempfile.gettempdir()) if options.quick else RESULTS) / f"{name}.json"
    path = record(name, {"device": machine(options.device), "quick": options.quick, **figures}, output)
    draw(path.with_suffix(".png"))
    print(f"\n{path}\n{path.with_suffix('.png')}")


def show(rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    """Print rows as a table, all columns or those named; a value that a row lacks is a dash."""
    if not rows:
        return
    present = dict.fromkeys(key for row in rows for key in row)
    columns = [column for column in columns or present if column in present]
    cells = [columns] + [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[position]) for line in cells) for position in range(len(columns))]
    print()
    for line in cells:
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)))


def digits(value: float | None, number: int = 4) -> float | None:
    """Rounded to a number of significant digits."""
    return None if value is None else float(f"{value:.{number}g}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
