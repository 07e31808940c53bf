"""CIF files that are refused before they are parsed: with code in them, with no true symmetry, and endless ones."""

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from torch_geometric_crystal.checks import InvalidStructureError

MAX_CANDIDATES = 20_000
"""Largest number of atom rows times symmetry operations. Parsers compare each with all others: this many take minutes,
ten times as many hours."""

_LARGEST_GROUP = 192  # operations of a space group at most
_BASIS_CHANGE = re.compile(r"[0-9abc+\-*/.,;()?\s]{0,200}", re.IGNORECASE)
_SYMMETRY_KEY = re.compile(r"_(symmetry_equiv_pos|space_group_symop)\S*xyz", re.IGNORECASE)
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:/[1-9]\d*)?"
_TERM = rf"(?:(?:{_NUMBER})?\*?[xyz]|{_NUMBER})"
_SUM = re.compile(rf"[+-]?{_TERM}(?:[+-]{_TERM})*")
_SYMBOL_KEY = re.compile(r"_(symmetry_)?space_group_name_H-M", re.IGNORECASE)
_NUMBER_KEY = re.compile(r"_(symmetry_Int_Tables|space_group_IT)_number", re.IGNORECASE)


def refuse_harmful_cif(text: str, structure_id: str) -> None:
    """Raise for a CIF that would be misread, hides code or takes too long. What is no CIF passes: the reader says why.

    Raises:
        InvalidStructureError: if a change of basis is not plain arithmetic (parsers evaluate that field after cleaning
            it), a symmetry operation is none (parsers take what they do not understand in it for 0), or atom rows times
            symmetry operations are more than `MAX_CANDIDATES`.
    """
    large = text.count("\n") * _LARGEST_GROUP > MAX_CANDIDATES
    if "transform" not in text and not large and not _SYMMETRY_KEY.search(text):
        return
    for block in _blocks(text):
        _refuse_code(block, structure_id)
        _refuse_odd_symmetry(block, structure_id)
        rows = len(_as_list(block.get("_atom_site_fract_x")))
        if rows * _LARGEST_GROUP > MAX_CANDIDATES and rows * (operations := _operations(block)) > MAX_CANDIDATES:
            raise InvalidStructureError(
                structure_id,
                f"its {rows} rows of atoms and {operations} symmetry operations give up to {rows * operations} atoms, "
                f"more than {MAX_CANDIDATES}",
                "Check it for repeated rows. A larger structure can be read from a POSCAR or extended XYZ",
            )


def _blocks(text: str) -> Iterator[Mapping[str, Any]]:
    from pymatgen.io.cif import CifFile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            blocks = list(CifFile.from_str(text).data.values())
    except Exception:
        return
    for block in blocks:
        yield block.data


def _refuse_code(block: Mapping[str, Any], structure_id: str) -> None:
    for key, value in block.items():
        named = "transform" in key and "Pp" in key
        if named and not all(_BASIS_CHANGE.fullmatch(str(v)) and "**" not in str(v) for v in _as_list(value)):
            raise InvalidStructureError(
                structure_id,
                f"its field {key} is not a change of basis",
                "Do not trust this file: the field may be meant to run code",
            )


def _refuse_odd_symmetry(block: Mapping[str, Any], structure_id: str) -> None:
    for key, value in block.items():
        if not _SYMMETRY_KEY.match(key):
            continue
        for operation in _as_list(value):
            if not is_symmetry_operation(str(operation), magnetic="magn" in key):
                raise InvalidStructureError(
                    structure_id,
                    f"its symmetry operation {str(operation)[:80]!r} is none",
                    "Correct it to the form 'x, -y+1/2, z', or write the structure without symmetry (P 1)",
                )


def is_symmetry_operation(text: str, magnetic: bool = False) -> bool:
    """Whether `text` is an operation such as ``-y, x-y, z+1/3``: three sums, coefficients of determinant 1 or -1.

    Args:
        text: The operation.
        magnetic: Whether a sign of the time may follow, as in ``x, y, z, -1``.
    """
    parts = re.sub(r"\s", "", text).lower().split(",")
    if magnetic and len(parts) == 4 and parts[3] in ("+1", "-1", "1"):
        parts = parts[:3]
    if len(parts) != 3 or not all(_SUM.fullmatch(part) for part in parts):
        return False
    rows = [[_coefficient(part, axis) for axis in "xyz"] for part in parts]
    return abs(abs(float(np.linalg.det(rows))) - 1.0) < 1e-6


def _coefficient(text: str, axis: str) -> float:
    """The factor in front of an axis in a sum: 1 in ``x+1/2``."""
    total = 0.0
    for sign, number in re.findall(rf"([+-]?)({_NUMBER})?\*?{axis}", text):
        numerator, _, denominator = (number or "1").partition("/")
        total += float(f"{sign}1") * float(numerator) / float(denominator or 1)
    return total


def _operations(block: Mapping[str, Any]) -> int:
    """Symmetry operations that the block lists, else those of the space group that it names, else 1."""
    listed = max((len(_as_list(value)) for key, value in block.items() if _SYMMETRY_KEY.match(key)), default=0)
    return listed or max((_order(key, str(value)) for key, value in block.items()), default=1)


def _order(key: str, value: str) -> int:
    from pymatgen.symmetry.groups import SpaceGroup, sg_symbol_from_int_number

    try:
        if _SYMBOL_KEY.match(key):
            return SpaceGroup(value.replace(" ", "").strip("'\"")).order
        if _NUMBER_KEY.match(key):
            return SpaceGroup(sg_symbol_from_int_number(int(value))).order
    except ValueError:
        return 1
    return 1


def _as_list(value: Any) -> list:
    return [] if value is None else value if isinstance(value, list) else [value]
