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
        target: Properties to predict; a list of numbers, such as ALIGNN's ``target`` for several outputs, gives a
            target for each element. Default: ``target`` if the first record has it, else none.

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
        """The properties chosen as targets; those that are lists by their elements, ``name_1``, ``name_2``, ..."""
        records = self._read()
        asked = self.target
        if asked is None:
            asked = (DEFAULT_TARGET,) if records and DEFAULT_TARGET in records[0] else ()
        widths = self._widths()
        return tuple(part for name in asked for part in _elements(name, widths.get(name, 0)))

    @property
    def available_targets(self) -> tuple[str, ...]:
        """The properties of the first record but names, structures and tables."""
        widths = self._widths()
        first = self._read()[:1]
        keys = [k for record in first for k, v in record.items() if not isinstance(v, Mapping | list) or k in widths]
        return tuple(key for key in keys if key not in ID_KEYS + STRUCTURE_KEYS)

    def fingerprint(self) -> str:
        """Hash of the file and of the options."""
        return hash_text("jarvis", hash_file(self.path), repr(self.target))

    def __iter__(self) -> Iterator[Entry]:
        records = self._read()
        names, widths = self.target_names, self._widths()
        elements = {part: (key, k) for key, width in widths.items() for k, part in enumerate(_elements(key, width))}
        scalars = {key: (key, -1) for record in records for key in record if key not in (*STRUCTURE_KEYS, *widths)}
        available = scalars | elements
        check_names(names, list(available), str(self.path))
        lists = {key: widths[key] for key, position in map(available.__getitem__, names) if position >= 0}
        for index, record in enumerate(records):
            structure_id = next((str(record[key]) for key in ID_KEYS if key in record), str(index))
            structure = next((record[key] for key in STRUCTURE_KEYS if key in record), record)
            if not isinstance(structure, Mapping | str):
                yield faulty_entry(
                    structure_id, "its structure is neither a dictionary nor a CIF", "Correct the record"
                )
                continue
            if structure is record and not any(key in record for key in ("lattice_mat", "sites")):
                keys = ", ".join(STRUCTURE_KEYS[:2])
                yield faulty_entry(structure_id, f"its record has no structure ({keys})", "Add it or remove the record")
                continue
            wrong = [key for key, width in lists.items() if not _has_width(record.get(key), width)]
            if wrong:
                fault = f"its {wrong[0]!r} is not a list of {lists[wrong[0]]} numbers, as in the first record"
                yield faulty_entry(structure_id, fault, "Correct the record")
                continue
            values = [_value(record, *available[name]) for name in names]
            build = crystal_from_cif if isinstance(structure, str) else crystal_from_dict
            yield labelled_entry(structure_id, values, names, build, structure)

    def _widths(self) -> dict[str, int]:
        """Lengths of the properties that are lists of numbers in the first record."""
        widths: dict[str, int] = {}
        for record in self._read()[:1]:
            for key, value in record.items():
                if key not in STRUCTURE_KEYS and isinstance(value, list) and value and not _is_nested(value):
                    widths[key] = len(value)
        return widths

    def _read(self) -> list[Mapping[str, Any]]:
        if self._records is None:
            records = load_json(self.path)
            records = [records] if isinstance(records, dict) else records
            if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
                raise ValueError(
                    f"{self.path}: expected a list of records, as JARVIS and ALIGNN write them: "
                    '[{"jid": ..., "atoms": {...}, "target": ...}, ...]'
                )
            self._records = records
        return self._records


def _elements(name: str, width: int) -> tuple[str, ...]:
    """Names of the elements of a property that is a list; of one that is not (width 0), its own."""
    return tuple(f"{name}_{k}" for k in range(1, width + 1)) or (name,)


def _is_nested(values: list) -> bool:
    return any(isinstance(value, list | Mapping) for value in values)


def _has_width(value: Any, width: int) -> bool:
    return value is None or value == "na" or (isinstance(value, list) and len(value) == width)


def _value(record: Mapping[str, Any], key: str, position: int) -> Any:
    """A property, or the element of one that is a list (position at least 0)."""
    value = record.get(key)
    return value[position] if position >= 0 and isinstance(value, list) else value
