"""JARVIS's JSON layout: a list of records with ``jid``, ``atoms`` and properties. ALIGNN's ``id_prop.json`` too."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_geometric_crystal.datasets.fingerprint import hash_file, hash_text
from torch_geometric_crystal.datasets.readers.json_file import load_json
from torch_geometric_crystal.datasets.readers.structure_dict import crystal_from_dict
from torch_geometric_crystal.datasets.readers.structure_file import crystal_from_cif
from torch_geometric_crystal.datasets.source import (
    Entry,
    Source,
    as_names,
    check_names,
    existing_file,
    faulty_entry,
    labelled_entry,
)

ID_KEYS = ("jid", "id", "material_id", "structure_id")
STRUCTURE_KEYS = ("atoms", "structure", "final_str")
DEFAULT_TARGET = "target"


class JarvisSource(Source):
    """Records in JARVIS's JSON layout, plain, gzipped or zipped.

    A record holds its structure under ``atoms`` (lattice_mat, coords, elements, cartesian) or as a pymatgen
    dictionary or the text of a CIF file (as MEGNet's ``mp.2018.6.1.json``) under ``structure``, its name under
    ``jid`` (or ``id``, ``material_id``), and properties; ``"na"`` is a missing one.

    Args:
        path: The file: a list of records, or one record.
        target: Properties to predict. Default: ``target`` if the first record has it, else none.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: when read, if the layout differs or no record has a target.
    """

    def __init__(self, path: str | Path, target: str | Sequence[str] | None = None):
        self.path = existing_file(path)
        super().__init__(self.path.name)
        self.target = as_names(target)
        self._records: list[Mapping[str, Any]] | None = None

    @property
    def target_names(self) -> tuple[str, ...]:
        """The properties chosen as targets."""
        if self.target is not None:
            return self.target
        records = self._read()
        return (DEFAULT_TARGET,) if records and DEFAULT_TARGET in records[0] else ()

    def fingerprint(self) -> str:
        """Hash of the file and of the options."""
        return hash_text("jarvis", hash_file(self.path), repr(self.target))

    def __iter__(self) -> Iterator[Entry]:
        records = self._read()
        names = self.target_names
        available = {key: None for record in records for key in record if key not in STRUCTURE_KEYS}
        check_names(names, list(available), str(self.path))
        for index, record in enumerate(records):
            structure_id = next((str(record[key]) for key in ID_KEYS if key in record), str(index))
            structure = next((record[key] for key in STRUCTURE_KEYS if key in record), record)
            if not isinstance(structure, Mapping | str):
                yield faulty_entry(
                    structure_id, "its structure is neither a dictionary nor a CIF", "Correct the record"
                )
                continue
            values = [record.get(name) for name in names]
            build = crystal_from_cif if isinstance(structure, str) else crystal_from_dict
            yield labelled_entry(structure_id, values, names, build, structure)

    def _read(self) -> list[Mapping[str, Any]]:
        if self._records is None:
            records = load_json(self.path)
            records = [records] if isinstance(records, dict) else records
            if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
                raise ValueError(f"{self.path}: expected a list of records, as JARVIS and ALIGNN write them")
            self._records = records
        return self._records
