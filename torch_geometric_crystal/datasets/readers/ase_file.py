"""ASE databases and extended XYZ files."""

import contextlib
import sqlite3
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import MissingDependencyError
from torch_geometric_crystal.data import from_ase_atoms
from torch_geometric_crystal.datasets.fingerprint import hash_file, hash_text
from torch_geometric_crystal.datasets.source import (
    Entry,
    Source,
    as_names,
    check_names,
    existing_file,
    labelled_entry,
)

if TYPE_CHECKING:
    from ase import Atoms

ID_KEYS = ("structure_id", "material_id", "jid")
SCALAR_RESULTS = ("energy", "free_energy", "magmom")
ATOM_FIELDS = ("numbers", "positions")
PLURALS = {"charge": "charges", "magmom": "magmoms"}
Record: TypeAlias = "tuple[str, Atoms, dict[str, Any]]"


class AseSource(Source):
    """What the readers of ASE's formats share: atoms with named values.

    Args:
        path: The file.
        target: Names of the values to predict. Default: ``target`` if any structure has it, else none.

    Raises:
        FileNotFoundError: if there is no such file.
        MissingDependencyError: when read, if ASE is not installed.
        ValueError: when read, if the file is damaged or no structure has a target.
    """

    remedy = "Get the file again from its source"

    def __init__(self, path: str | Path, target: str | Sequence[str] | None = None):
        self.path = existing_file(path)
        super().__init__(self.path.name)
        self.target = as_names(target)
        self._records: list[Record] | None = None

    @property
    def target_names(self) -> tuple[str, ...]:
        """The values chosen as targets."""
        if self.target is not None:
            return self.target
        return ("target",) if any("target" in values for _, _, values in self._read()) else ()

    @property
    def available_targets(self) -> tuple[str, ...]:
        """The named values that any structure has, but names."""
        keys = {key: None for _, _, values in self._read() for key in values}
        return tuple(key for key in keys if key not in ID_KEYS)

    def fingerprint(self) -> str:
        """Hash of the file and of the options."""
        return hash_text(type(self).__name__, hash_file(self.path), repr(self.target))

    def __iter__(self) -> Iterator[Entry]:
        records = self._read()
        names = self.target_names
        check_names(names, list({key: None for _, _, values in records for key in values}), str(self.path))
        for number, atoms, values in records:
            structure_id = next((str(values[key]) for key in ID_KEYS if key in values), number)
            yield labelled_entry(structure_id, [values.get(key) for key in names], names, _crystal_from_atoms, atoms)

    def _read(self) -> list[Record]:
        if self._records is None:
            try:
                import ase  # noqa: F401
            except ImportError as error:
                raise MissingDependencyError("ase", "ase") from error
            try:
                self._records = list(self._records_of_file())
            except Exception as error:
                # ASE's readers raise whatever their parsing code trips over.
                reason = " ".join(str(error).split())[:300]
                raise ValueError(
                    f"{self.path} cannot be read by ASE ({type(error).__name__}: {reason}). {self.remedy}"
                ) from error
        return self._records

    @abstractmethod
    def _records_of_file(self) -> Iterator[Record]:
        """Number, atoms and named values of each structure."""


class AseDatabaseSource(AseSource):
    """An ASE database, SQLite (``.db``) or JSON.

    Names are ``structure_id``, ``material_id`` or ``jid`` of the key-value pairs, else row ids; targets are key-value
    pairs, or ``energy`` and other scalar results of the row.
    """

    def _records_of_file(self) -> Iterator[Record]:
        from ase.db import connect

        kind = "db" if self.path.suffix.lower() == ".db" else "json"
        if kind == "db":
            _check_tables(self.path)
        with connect(self.path, type=kind) as database:
            for row in database.select():
                results = {key: row[key] for key in SCALAR_RESULTS if key in row}
                yield str(row.id), row.toatoms(), results | row.key_value_pairs


class ExtendedXyzSource(AseSource):
    """An extended XYZ file of any number of structures.

    Names are ``structure_id``, ``material_id`` or ``jid`` of the comment line, else numbers from 0; targets are named
    values of the comment line (``energy`` too), or columns of numbers, which have a value for each atom.
    """

    remedy = 'Each structure needs a line with its number of atoms and a comment line with Lattice="..."'

    def _records_of_file(self) -> Iterator[Record]:
        from ase.io import iread

        with self.path.open(encoding="utf-8") as file:
            for number, atoms in enumerate(iread(file, index=":", format="extxyz")):
                results = {} if atoms.calc is None else atoms.calc.results
                scalars = {key: results[key] for key in SCALAR_RESULTS if key in results}
                yield str(number), atoms, _columns(atoms, results) | scalars | atoms.info


def _columns(atoms: "Atoms", results: dict[str, Any]) -> dict[str, np.ndarray]:
    """Values of each atom, also by the names of the file's columns that ASE makes plurals of."""
    arrays = {key: value for key, value in (atoms.arrays | results).items() if key not in ATOM_FIELDS}
    columns = {key: value for key, value in arrays.items() if np.shape(value) == (len(atoms),)}
    return {name: columns[plural] for name, plural in PLURALS.items() if plural in columns} | columns


def _check_tables(path: Path) -> None:
    """Raise ``ValueError`` unless a SQLite file has ASE's tables: ASE would write them into any other."""
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "systems" not in tables:
        raise ValueError(f"no table 'systems'; it has {', '.join(sorted(tables)) or 'none'}")


def _crystal_from_atoms(atoms: "Atoms", structure_id: str, dtype: torch.dtype) -> Data:
    return from_ase_atoms(atoms, structure_id=structure_id, dtype=dtype)
