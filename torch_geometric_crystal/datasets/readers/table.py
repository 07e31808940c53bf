"""A CSV table with a column of structures."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets.fingerprint import hash_file, hash_text
from torch_geometric_crystal.datasets.readers.structure_dict import crystal_from_dict
from torch_geometric_crystal.datasets.readers.structure_file import crystal_from_cif, crystal_from_file
from torch_geometric_crystal.datasets.source import (
    Entry,
    Source,
    as_names,
    check_names,
    existing_file,
    labelled_entry,
)

STRUCTURE_COLUMNS = ("structure", "cif", "atoms", "path", "file", "filename")
ID_COLUMNS = ("structure_id", "material_id", "jid", "id")
_LARGEST_CELL = 2**31 - 1  # characters; csv's own limit is less than a large CIF


class TableSource(Source):
    """A CSV file with a header, a column of structures and columns of targets.

    A structure is the text of a CIF, a JSON dictionary (pymatgen's, or JARVIS's ``atoms``), or the path of a structure
    file, relative to the table.

    Args:
        path: The CSV file.
        target: Columns to predict. Default: ``target`` if there is such a column, else none.
        structure_column: Column of structures. Default: the first of structure, cif, atoms, path, file, filename.
        id_column: Column of names. Default: the first of structure_id, material_id, jid, id; without one, names
            are row numbers from 0.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: when read, if a column is not there.
    """

    def __init__(
        self,
        path: str | Path,
        target: str | Sequence[str] | None = None,
        structure_column: str | None = None,
        id_column: str | None = None,
    ):
        self.path = existing_file(path)
        super().__init__(self.path.name)
        self.target = as_names(target)
        self.structure_column = structure_column
        self.id_column = id_column
        self._rows: list[dict[str, str]] | None = None
        self._columns: tuple[str, ...] = ()

    @property
    def target_names(self) -> tuple[str, ...]:
        """The columns chosen as targets."""
        if self.target is not None:
            return self.target
        self._read()
        return ("target",) if "target" in self._columns else ()

    def fingerprint(self) -> str:
        """Hash of the table, of the structure files that it names, and of the options."""
        options = repr((self.target, self.structure_column, self.id_column))
        parts = ["table", hash_file(self.path), options]
        structure_column = self._find(self.structure_column, STRUCTURE_COLUMNS)
        for row in self._read():
            path = self._path(row.get(structure_column or "") or "")
            if path is not None and path.is_file():
                parts.append(hash_file(path))
        return hash_text(*parts)

    def __iter__(self) -> Iterator[Entry]:
        rows = self._read()
        structure_column = self._find(self.structure_column, STRUCTURE_COLUMNS)
        if structure_column is None:
            columns = ", ".join(repr(c) for c in self._columns)
            raise ValueError(f"{self.path}: none of its columns ({columns}) holds structures; give structure_column")
        id_column = self._find(self.id_column, ID_COLUMNS)
        names = self.target_names
        check_names(names, self._columns, str(self.path))
        for index, row in enumerate(rows):
            structure_id = str(index) if id_column is None else (row[id_column] or "").strip()
            text = row[structure_column] or ""
            path = self._path(text)
            raw = ("text", text) if path is None else ("path", str(path))
            yield labelled_entry(structure_id, [row[name] for name in names], names, _crystal_from_cell, raw)

    def _read(self) -> list[dict[str, str]]:
        if self._rows is None:
            limit = csv.field_size_limit(_LARGEST_CELL)
            try:
                with self.path.open(newline="", encoding="utf-8-sig") as file:
                    reader = csv.DictReader(file)
                    self._rows = list(reader)
                    self._columns = tuple(reader.fieldnames or ())
            finally:
                csv.field_size_limit(limit)
        return self._rows

    def _find(self, asked: str | None, usual: Sequence[str]) -> str | None:
        """The column asked for, or the first of the usual ones that is there, in any case of letters."""
        self._read()
        if asked is not None:
            if asked not in self._columns:
                raise ValueError(f"{self.path} has no column {asked!r}; it has {', '.join(map(repr, self._columns))}")
            return asked
        by_lower = {column.lower(): column for column in reversed(self._columns)}
        return next((by_lower[name] for name in usual if name in by_lower), None)

    def _path(self, text: str) -> Path | None:
        """The file that a cell names, or None if the cell holds the structure itself."""
        text = text.strip()
        if not text or "\n" in text or text.startswith("{"):
            return None
        return self.path.parent / Path(text).expanduser()


def _crystal_from_cell(raw: tuple[str, str], structure_id: str, dtype: torch.dtype) -> Data:
    kind, content = raw
    if kind == "path":
        return crystal_from_file(content, structure_id, dtype)
    if not content.strip():
        raise InvalidStructureError(structure_id, "its structure is empty", "Fill in the cell or remove the row")
    if not content.lstrip().startswith("{"):
        return crystal_from_cif(content, structure_id, dtype)
    try:
        dictionary = json.loads(content)
    except json.JSONDecodeError as error:
        raise InvalidStructureError(
            structure_id, f"its structure is not JSON ({error})", "Write structures with json.dumps"
        ) from error
    return crystal_from_dict(dictionary, structure_id, dtype)
