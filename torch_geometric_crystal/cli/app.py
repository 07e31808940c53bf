"""The application: its commands, and errors as one clean line."""

import sys
import warnings

import typer

from torch_geometric_crystal.cli import (
    benchmark,
    build,
    calibrate,
    convert,
    demo,
    embed,
    evaluate,
    explain,
    export,
    info,
    predict,
    train,
)
from torch_geometric_crystal.cli.display import error_console

EPILOG = (
    "Start with [bold]tgcrystal demo[/bold], or [bold]tgcrystal train --data flla_2015 --output runs/first[/bold]. "
    "Each command has its own --help with examples."
)

app = typer.Typer(
    name="tgcrystal",
    help="Train, evaluate and use crystal property models: Crystalformer, CGCNN, ALIGNN.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (train, evaluate, predict, calibrate, embed, explain, convert, export, benchmark, build, info, demo):
    module.register(app)


@app.callback()
def common(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error. May stand anywhere."),
    threads: int | None = typer.Option(
        None, min=1, help="CPU threads, before the command: tgcrystal --threads 2 train."
    ),
) -> None:
    """Train, evaluate and use crystal property models: Crystalformer, CGCNN, ALIGNN."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def main() -> None:
    """Run the command line: exit code 2 for what the user can mend, 1 for a fault of the library."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if not debug:
        warnings.formatwarning = _format_warning
    try:
        app(args=arguments, prog_name="tgcrystal")
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError) as error:
        if debug:
            raise
        _show(error)
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        _show(error, f"{type(error).__name__}: ")
        sys.exit(1)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {' '.join(str(message).split())}\n"


def _show(error: Exception, prefix: str = "") -> None:
    text = " ".join(str(error).split()) or type(error).__name__
    error_console().print(f"error: {prefix}{text}", style="bold red", markup=False, highlight=False, soft_wrap=True)
