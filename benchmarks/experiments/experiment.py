"""What all experiments share around their trials: options, settings from YAML, and how they end (table, JSON, picture).

An experiment NAME is ``NAME.py`` with its settings in ``NAME.yaml``; its entry ``quick`` has what a quick run changes.
Results are ``results/NAME.json`` and ``results/NAME.png``.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
sys.path.append(str(FOLDER.parent))  # provenance, figures and tables are those of the other benchmarks

from command_line import digits, show  # noqa: E402
from provenance import machine, record  # noqa: E402


@dataclass(frozen=True)
class Experiment:
    """One run of an experiment.

    Args:
        name: of its script, settings and results.
        settings: from the YAML file.
        quick: whether these are the quick ones.
        work: folder of the training runs; what is finished there is not done again.
        jobs: training runs at a time.
        output: the JSON file; the picture stands beside it.
        started: ``time.monotonic()`` at the start.
    """

    name: str
    settings: dict[str, Any]
    quick: bool
    work: Path
    jobs: int
    output: Path
    started: float

    def finish(
        self, rows: list[dict[str, Any]], findings: dict[str, Any], draw: Callable[[Path, dict[str, Any]], None]
    ) -> None:
        """Print the rows, without lists in them, write all with settings and findings, and draw from what was written.

        Args:
            rows: one for each trial or measured point.
            findings: what follows from them, by name.
            draw: takes the picture's path and the written figures.
        """
        show([{name: value for name, value in row.items() if not isinstance(value, list)} for row in rows])
        minutes = digits((time.monotonic() - self.started) / 60, 3)
        figures = {"machine": machine("cpu"), "quick": self.quick, "jobs": self.jobs, "minutes_of_this_call": minutes}
        trained = [row["minutes"] for row in rows if "minutes" in row]
        figures |= {"minutes_of_training": digits(sum(trained), 3)} if trained else {}
        figures |= {"settings": self.settings, "findings": findings, "rows": rows}
        print(f"\n{record(self.name, figures, self.output)}")
        picture = self.output.with_suffix(".png")
        draw(picture, figures)
        print(picture)


def read_experiment(script: str, description: str | None, arguments: list[str] | None = None) -> Experiment:
    """Read the options of an experiment and its settings.

    Args:
        script: ``__file__`` of the experiment.
        description: its docstring.
        arguments: instead of those of the command line.
    """
    name = Path(script).stem
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a run of less than two minutes that shows that it works")
    parser.add_argument("--settings", type=Path, default=FOLDER / f"{name}.yaml", help="default: %(default)s")
    parser.add_argument("--work", type=Path, help="folder of the training runs (default: runs/experiments/NAME)")
    parser.add_argument("--jobs", type=int, default=1, help="training runs at a time, a thread each (default: 1)")
    parser.add_argument("--output", type=Path, help="JSON file (default: results/NAME.json), the picture beside it")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error("--jobs: expected at least 1")
    try:
        settings = read_settings(options.settings, options.quick)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    torch.set_num_threads(1)  # a trial gives the same figures whatever else runs
    temporary = Path(tempfile.gettempdir())
    folder = f"{name}-quick" if options.quick else name
    work = options.work or Path("runs/experiments") / folder
    output = options.output or (temporary if options.quick else RESULTS) / f"{name}.json"
    return Experiment(name, settings, options.quick, work, options.jobs, output, time.monotonic())


def read_settings(path: Path, quick: bool) -> dict[str, Any]:
    """The settings in a YAML file, with what its entry ``quick`` changes, if asked for.

    Raises:
        ValueError: if `quick` changes a setting that is not there.
    """
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    changes = settings.pop("quick")
    unknown = [name for name in changes if name not in settings]
    if unknown:
        raise ValueError(f"{path.name}: quick changes settings that are not there: {', '.join(unknown)}")
    return settings | changes if quick else settings
