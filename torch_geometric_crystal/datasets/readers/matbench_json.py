"""Matbench's JSON layout: ``index``, ``columns`` and ``data``, structures as pymatgen dictionaries."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch_geometric_crystal.datasets.fingerprint import hash_file, hash_text
from torch_geometric_crystal.datasets.readers.json_file import load_json
from torch_geometric_crystal.datasets.readers.structure_dict import crystal_from_dict
from torch_geometric_crystal.datasets.source import (
    Entry,
    Source,
    as_names,
    check_names,
    existing_file,
    faulty_entry,
    labelled_entry,
)


class MatbenchSource(Source):
    """A structure task in Matbench's JSON layout, plain or gzipped.

    Args:
        path: File with the keys ``index`` (n), ``columns`` (names) and ``data`` (n rows), one column of which holds
            pymatgen dictionaries.
        target: Column, or columns, to predict. Default: all columns but the one with structures.
        structure_column: Column with the structures.
        task: Name of an official task, such as ``mp_gap`` or ``matbench_mp_gap``: ids are then Matbench's own,
            ``mb-mp-gap-000001`` and so on; ``index`` must count from 0.
            Default: ids are the entries of ``index``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: when read, if the layout differs or a target is not there.
    """

    def __init__(
        self,
        path: str | Path,
        target: str | Sequence[str] | None = None,
        structure_column: str = "structure",
        task: str | None = None,
    ):
        self.path = existing_file(path)
        super().__init__(self.path.name)
        self.target = as_names(target)
        self.structure_column = structure_column
        self.task = task
        self._table: dict[str, Any] | None = None

    @property
    def target_names(self) -> tuple[str, ...]:
        """The columns chosen as targets."""
        if self.target is not None:
            return self.target
        return tuple(name for name in self._read()["columns"] if name != self.structure_column)

    @property
    def available_targets(self) -> tuple[str, ...]:
        """All columns but the one with structures."""
        return tuple(name for name in self._read()["columns"] if name != self.structure_column)

    def fingerprint(self) -> str:
        """Hash of the file and of the options."""
        return hash_text("matbench", hash_file(self.path), repr((self.target, self.structure_column, self.task)))

    def __iter__(self) -> Iterator[Entry]:
        table = self._read()
        columns = list(table["columns"])
        names = self.target_names
        if self.structure_column not in columns:
            raise ValueError(
                f"{self.path} has no column {self.structure_column!r}; it has {', '.join(map(repr, columns))}. "
                "Matbench's tasks on compositions have no crystals"
            )
        check_names(names, columns, str(self.path))
        structure = columns.index(self.structure_column)
        targets = [columns.index(name) for name in names]
        task = None if self.task is None else self.task.removeprefix("matbench_").replace("_", "-")
        digits = len(str(len(table["data"])))
        for index, row in zip(table["index"], table["data"], strict=True):
            structure_id = str(index) if task is None else f"mb-{task}-{index + 1:0{digits}d}"
            if len(row) != len(columns):
                yield faulty_entry(
                    structure_id, f"its row has {len(row)} entries for {len(columns)} columns", "Correct the row"
                )
            else:
                values = [row[k] for k in targets]
                yield labelled_entry(structure_id, values, names, crystal_from_dict, row[structure])

    def _read(self) -> dict[str, Any]:
        if self._table is None:
            table = load_json(self.path)
            lengths = {key: len(table[key]) for key in ("index", "data") if isinstance(table, dict) and key in table}
            if len(lengths) != 2 or lengths["index"] != lengths["data"] or "columns" not in table:
                raise ValueError(f"{self.path}: expected Matbench's keys index, columns and data, of equal lengths")
            self._table = table
        return self._table
