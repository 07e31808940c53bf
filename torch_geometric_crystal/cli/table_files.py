"""The two files of a table of predictions: where they go, and what they must not replace."""

from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".csv", ".json")


def table_files(output: Path, inputs: Sequence[Path], checkpoints: Sequence[Path]) -> tuple[Path, Path]:
    """Return the CSV file and the JSON file beside it.

    Args:
        output: the name that was asked for, with or without the suffix.
        inputs: files that are read.
        checkpoints: likewise; beside a .safetensors file lies a .json file that belongs to it.

    Raises:
        ValueError: if one of them is a file that is read.
    """
    stem = output.with_suffix("") if output.suffix in SUFFIXES else output
    files = tuple(stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
    read = {path.resolve() for path in (*inputs, *checkpoints)}
    read |= {path.with_suffix(".json").resolve() for path in checkpoints if path.suffix == ".safetensors"}
    for file in files:
        if file.resolve() in read:
            raise ValueError(f"--output: {file} would replace a file that is read; give another name")
    return files[0], files[1]
