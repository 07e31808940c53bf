"""A CSV table with a column of structures."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.datasets.fingerprint import hash_file, hash_if_file, hash_text
from torch_geometric_crystal.datasets.readers.structure_dict import crystal_from_dict
from torch_geometric_crystal.datasets.readers.structure_file import crystal_from_cif, crystal_from_file
from torch_geometric_crystal.datasets.source import (
    Entry,
    Source,
    as_names,
    check_names,
    existing_file,
    faulty_entry,
    labelled_entry,
    read_utf8,
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
        self._rows: list[list[str]] | None = None
        self._columns: tuple[str, ...] = ()

    @property
    def target_names(self) -> tuple[str, ...]:
        """The columns chosen as targets."""
        if self.target is not None:
            return self.target
        self._read()
        return ("target",) if "target" in self._columns else ()

    @property
    def available_targets(self) -> tuple[str, ...]:
        """The columns that hold neither structures nor names."""
        self._read()
        structure_column = find_column(self._columns, self.structure_column, STRUCTURE_COLUMNS, str(self.path))
        id_column = find_column(self._columns, self.id_column, ID_COLUMNS, str(self.path))
        return tuple(column for column in self._columns if column and column not in (structure_column, id_column))

    def fingerprint(self) -> str:
        """Hash of the table, of the structure files that it names, and of the options."""
        options = repr((self.target, self.structure_column, self.id_column))
        parts = ["table", hash_file(self.path), options]
        rows = self._read()
        structure_column = find_column(self._columns, self.structure_column, STRUCTURE_COLUMNS, str(self.path))
        if structure_column is not None:
            position = self._columns.index(structure_column)
            paths = [self._path(row[position]) for row in rows if len(row) > position]
            parts += [hash_if_file(path) for path in paths if path is not None]
        return hash_text(*parts)

    def __iter__(self) -> Iterator[Entry]:
        rows, columns, where = self._read(), self._columns, str(self.path)
        structure = columns.index(structure_column_of(columns, self.structure_column, where))
        id_column = find_column(columns, self.id_column, ID_COLUMNS, where)
        names = self.target_names
        check_names(names, columns, where)
        targets = [columns.index(name) for name in names]
        for index, row in enumerate(rows):
            position = None if id_column is None else columns.index(id_column)
            structure_id = row[position].strip() if position is not None and position < len(row) else str(index)
            if len(row) != len(columns):
                yield faulty_entry(
                    structure_id,
                    f"row {index + 1} has {len(row)} cells for {len(columns)} columns",
                    "Give each row as many cells as the header; put cells with commas or line ends in quotes",
                )
                continue
            path = self._path(row[structure])
            raw = ("text", row[structure]) if path is None else ("path", str(path))
            yield labelled_entry(structure_id, [row[k] for k in targets], names, crystal_from_cell, raw)

    def _read(self) -> list[list[str]]:
        if self._rows is None:
            limit = csv.field_size_limit(_LARGEST_CELL)
            try:
                rows = [row for row in csv.reader(io.StringIO(read_utf8(self.path), newline="")) if row]
            except csv.Error as error:
                raise ValueError(f"{self.path} is not a readable CSV file ({error})") from error
            finally:
                csv.field_size_limit(limit)
            if not rows:
                raise ValueError(f"{self.path} is empty. Write a header and one row per structure")
            header, *self._rows = rows
            if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
                raise ValueError(f"{self.path}: its columns are not separated by commas. Save it with commas")
            self._columns = tuple(header)
        return self._rows

    def _path(self, text: str) -> Path | None:
        """The file that a cell names, or None if the cell holds the structure itself."""
        text = text.strip()
        if not text or "\n" in text or text.startswith("{"):
            return None
        return self.path.parent / Path(text).expanduser()


def find_column(columns: Sequence[str], asked: str | None, usual: Sequence[str], where: str) -> str | None:
    """The column asked for, or the first of the usual ones that is there, in any case of letters; None if none is.

    Raises:
        ValueError: if the column asked for is not there.
    """
    if asked is not None:
        if asked not in columns:
            raise ValueError(f"{where} has no column {asked!r}; it has {', '.join(map(repr, columns))}")
        return asked
    by_lower = {column.lower(): column for column in reversed(columns)}
    return next((by_lower[name] for name in usual if name in by_lower), None)


def structure_column_of(columns: Sequence[str], asked: str | None, where: str) -> str:
    """The column of structures.

    Raises:
        ValueError: if there is none.
    """
    found = find_column(columns, asked, STRUCTURE_COLUMNS, where)
    if found is None:
        usual = ", ".join(STRUCTURE_COLUMNS)
        raise ValueError(
            f"{where}: none of its columns ({', '.join(map(repr, columns))}) holds structures. Call it one of {usual}, "
            "or give structure_column"
        )
    return found


def crystal_from_cell(raw: tuple[str, str], structure_id: str, dtype: torch.dtype) -> Data:
    """The crystal in a cell: ``("path", path)`` or ``("text", CIF or JSON)``.

    Raises:
        InvalidStructureError: if it cannot be read or is not a valid crystal.
    """
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
