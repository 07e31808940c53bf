"""A pandas DataFrame with a column of structures."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError, check_argument
from torch_geometric_crystal.data import OverlappingAtomsWarning
from torch_geometric_crystal.datasets.fingerprint import hash_if_file, hash_text
from torch_geometric_crystal.datasets.readers.structure_dict import crystal_from_dict
from torch_geometric_crystal.datasets.readers.structure_list import crystal_from_arrays, structure_arrays
from torch_geometric_crystal.datasets.readers.table import (
    ID_COLUMNS,
    crystal_from_cell,
    find_column,
    structure_column_of,
)
from torch_geometric_crystal.datasets.source import (
    Entry,
    Source,
    as_names,
    check_names,
    faulty_entry,
    labelled_entry,
)


class DataFrameSource(Source):
    """A pandas DataFrame: a column of structures and columns of targets.

    A structure is a pymatgen structure or molecule, ASE atoms, a `Data`, a dictionary (pymatgen's ``as_dict``, or
    JARVIS's ``atoms``), the text of a CIF or JSON, or the path of a structure file.

    Args:
        frame: The table.
        target: Columns to predict. Default: ``target`` if there is such a column, else none. An absent value (None,
            NaN, NA) is a missing target.
        structure_column: Column of structures. Default: the first of structure, cif, atoms, path, file, filename.
        id_column: Column of names. Default: the first of structure_id, material_id, jid, id; without one, names are
            those of the index.
        name: Name of the source in messages and in the cache.

    Raises:
        ValueError: if a column is not there, or there are two of one name.
    """

    def __init__(
        self,
        frame: Any,
        target: str | Sequence[str] | None = None,
        structure_column: str | None = None,
        id_column: str | None = None,
        name: str = "frame",
    ):
        super().__init__(name)
        columns = [str(column) for column in frame.columns]
        repeated = sorted({column for column in columns if columns.count(column) > 1})
        check_argument(not repeated, "frame", "columns of different names", repeated)
        self._columns = tuple(columns)
        self._structure_column = structure_column_of(columns, structure_column, "the DataFrame")
        id_column = find_column(columns, id_column, ID_COLUMNS, "the DataFrame")
        asked = as_names(target)
        self._target_names = asked if asked is not None else ("target",) if "target" in columns else ()
        check_names(self._target_names, columns, "the DataFrame")
        named = {column: frame.iloc[:, position] for position, column in enumerate(columns)}
        self._id_column = id_column
        self._structures = list(named[self._structure_column])
        self._ids = [str(value) for value in (frame.index if id_column is None else named[id_column])]
        values = [named[column].astype(object).where(named[column].notna(), None) for column in self._target_names]
        self._values = list(zip(*values, strict=True)) if values else [() for _ in self._ids]

    @property
    def target_names(self) -> tuple[str, ...]:
        """The columns chosen as targets."""
        return self._target_names

    @property
    def available_targets(self) -> tuple[str, ...]:
        """The columns that hold neither structures nor names."""
        return tuple(name for name in self._columns if name not in (self._structure_column, self._id_column))

    def fingerprint(self) -> str:
        """Hash of structures, of the files that the table names, of names and targets."""
        digest = hashlib.sha256()
        for entry in self:
            raw = entry.raw
            for part in raw if isinstance(raw, tuple) else (_as_json(raw),):
                digest.update(part.tobytes() if hasattr(part, "tobytes") else str(part).encode())
            if entry.build is crystal_from_cell and raw[0] == "path":
                digest.update(hash_if_file(raw[1]).encode())
        return hash_text("frame", digest.hexdigest(), repr(self._ids), repr(self._target_names), _as_json(self._values))

    def __iter__(self) -> Iterator[Entry]:
        return (
            self._entry(structure, structure_id, values)
            for structure, structure_id, values in zip(self._structures, self._ids, self._values, strict=True)
        )

    def _entry(self, structure: Any, structure_id: str, values: tuple) -> Entry:
        if structure is None or isinstance(structure, float):
            return faulty_entry(structure_id, "its structure is empty", "Fill in the cell or remove the row")
        if isinstance(structure, str):
            is_text = "\n" in structure or structure.lstrip().startswith("{") or not structure.strip()
            raw: Any = ("text" if is_text else "path", structure)
            return labelled_entry(structure_id, values, self.target_names, crystal_from_cell, raw)
        if isinstance(structure, Mapping) and not isinstance(structure, Data):
            return labelled_entry(structure_id, values, self.target_names, crystal_from_dict, structure)
        try:
            with warnings.catch_warnings():
                # Overlaps are reported when the entry is loaded.
                warnings.simplefilter("ignore", OverlappingAtomsWarning)
                arrays = structure_arrays(structure, structure_id)
        except InvalidStructureError as error:
            return faulty_entry(structure_id, error.fault, error.remedy)
        except TypeError:
            kind = type(structure).__name__
            return faulty_entry(
                structure_id, f"its structure is of type {kind}", "Give a structure, Atoms or a dictionary"
            )
        return labelled_entry(structure_id, values, self.target_names, crystal_from_arrays, arrays)


def _as_json(value: Any) -> str:
    """A text with every element of the arrays in it, which ``repr`` leaves out of long ones."""
    return json.dumps(
        value, sort_keys=True, default=lambda part: part.tolist() if hasattr(part, "tolist") else str(part)
    )
