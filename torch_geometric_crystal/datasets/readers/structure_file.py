"""One crystal from one file: CIF, POSCAR, xyz or a pymatgen JSON."""

import importlib.metadata
import importlib.util
import io
import json
import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError
from torch_geometric_crystal.data import from_ase_atoms, from_structure
from torch_geometric_crystal.datasets.readers.cif_limits import refuse_harmful_cif
from torch_geometric_crystal.datasets.readers.structure_dict import crystal_from_dict

SAFE_PYMATGEN = (2024, 2, 20)
"""Before this version reading a CIF could run code in it (CVE-2024-23346)."""

STRUCTURE_SUFFIXES = (".cif", ".mcif", ".vasp", ".poscar", ".xyz", ".extxyz")
_POSCAR_NAME = re.compile(r"(POSCAR|CONTCAR)", re.IGNORECASE)
_HARMLESS_NOTES = re.compile(
    "rounded to ideal|Keys changed to match new magCIF|electronegativity|Skipping relative stoichiometry"
)
_SYMMETRY_KEY = re.compile(r"_(symmetry_equiv_pos|space_group_symop)\S*xyz", re.IGNORECASE)
_MAGNETIC_KEY = re.compile(r"_space_group_symop_magn", re.IGNORECASE)
_FRACTIONAL_KEY = re.compile(r"_atom_site_fract_x", re.IGNORECASE)
_INVENTED_ELEMENTS = re.compile(r"[Ee]lements in POSCAR cannot be determined")
_EXTENDED_KEY = re.compile(r"""(^|\s)["']?(Lattice|Properties)["']?\s*=""", re.IGNORECASE)


class StructureFileWarning(UserWarning):
    """A structure was read, but its file is odd in a way that may matter."""


def is_structure_file(path: Path) -> bool:
    """Whether the name is that of a CIF, POSCAR or xyz file."""
    return path.suffix.lower() in STRUCTURE_SUFFIXES or _POSCAR_NAME.match(path.name) is not None


def structure_stem(name: str) -> str:
    """A file name without the suffix of a structure file: the name of the structure in it."""
    for suffix in STRUCTURE_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def crystal_from_file(path: str | Path, structure_id: str, dtype: torch.dtype = torch.float32) -> Data:
    """The crystal in a file, checked. The format follows from the name.

    CIF: pymatgen reads it, and ASE, if installed, where pymatgen cannot. xyz: a molecule, or, with ``Lattice=`` in the
    comment line, a crystal (needs ASE). JSON: a dictionary as pymatgen's ``as_dict`` gives. Anything else: POSCAR.

    Args:
        path: The file, with one structure.
        structure_id: Name used in messages.
        dtype: Type of `pos` and `cell`.

    Raises:
        InvalidStructureError: if the file cannot be read, holds several structures, or the crystal is invalid.
        MissingDependencyError: if ASE is needed and not installed.

    Warns:
        StructureFileWarning: what the reader found odd, such as a formula that does not match the sites.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidStructureError(
            structure_id, f"{path} cannot be read ({reason})", "Check the path and its permissions"
        ) from error
    kind, reader = _READERS.get(suffix, ("POSCAR", crystal_from_poscar))
    try:
        return reader(text, structure_id, dtype)
    except (InvalidStructureError, ImportError):
        raise
    except Exception as error:
        # A parser gave something that no conversion expects: the file is at fault, not those beside it.
        raise _unreadable(
            structure_id, kind, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error


def crystal_from_cif(text: str, structure_id: str, dtype: torch.dtype = torch.float32) -> Data:
    """The crystal in the text of a CIF, by pymatgen or else by ASE.

    Symmetry operations and magnetic fields are parsed, never evaluated: pymatgen from 2024.2.20 is required.

    Raises:
        InvalidStructureError: if neither can read it, it holds several structures, it is too large to be read as a CIF,
            or the crystal is invalid.
    """
    require_safe_pymatgen()
    refuse_harmful_cif(text, structure_id)
    structure, first_reason = _attempt(_pymatgen_structure, text, structure_id)
    if structure is not None:
        return from_structure(structure, structure_id=structure_id, dtype=dtype)
    atoms, second_reason = _attempt(_ase_atoms, text, structure_id)
    if atoms is not None:
        return from_ase_atoms(atoms, structure_id=structure_id, dtype=dtype)
    raise _unreadable(structure_id, "CIF", f"pymatgen: {first_reason}; ASE: {second_reason}")


def crystal_from_poscar(text: str, structure_id: str, dtype: torch.dtype = torch.float32) -> Data:
    """The crystal in the text of a POSCAR (VASP 5, with element names).

    Raises:
        InvalidStructureError: if it cannot be read or the crystal is invalid.
    """
    structure, reason = _attempt(_poscar_structure, text, structure_id)
    if structure is None:
        raise _unreadable(structure_id, "POSCAR", reason)
    return from_structure(structure, structure_id=structure_id, dtype=dtype)


def require_safe_pymatgen() -> None:
    """Raise unless pymatgen is a version that does not evaluate what a CIF says.

    Raises:
        ImportError: if it is older, or not installed.
    """
    version = pymatgen_version()
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < SAFE_PYMATGEN:
        needed = ".".join(str(part) for part in SAFE_PYMATGEN)
        raise ImportError(
            f"pymatgen {version} can run code hidden in a CIF (CVE-2024-23346). Install pymatgen>={needed}"
        )


@lru_cache(maxsize=1)
def pymatgen_version() -> str:
    """Version of the installed pymatgen (of its core, where that is a package of its own).

    Raises:
        MissingDependencyError: if it is not installed.
    """
    for package in ("pymatgen-core", "pymatgen"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise MissingDependencyError("pymatgen", "all")


def _attempt(reader: Callable[[str, str], Any], text: str, structure_id: str) -> tuple[Any, str]:
    """What `reader` makes of `text`, or None and the reason.

    The parsers raise whatever their code trips over (IndexError, AssertionError, their own types): each means that this
    text is not a structure to them. A refusal of ours, with its own remedy, goes through.
    """
    try:
        return reader(text, structure_id), ""
    except InvalidStructureError:
        raise
    except MissingDependencyError:
        return None, "not installed"
    except Exception as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _pymatgen_structure(text: str, structure_id: str) -> Any:
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parser: Any = CifParser.from_str(text)
        try:
            structures = parser.parse_structures(primitive=False, on_error="ignore")
        except ValueError as error:
            raise ValueError("; ".join([str(error), *parser.warnings])) from error
    if _SYMMETRY_KEY.search(text) and any("Defaulting to P1" in message for message in parser.warnings):
        raise ValueError("its symmetry operations cannot be parsed")
    _refuse_several(len(structures), structure_id)
    messages = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    _note(list(dict.fromkeys([*messages, *parser.warnings])), structure_id)
    return structures[0]


def _ase_atoms(text: str, structure_id: str) -> Any:
    try:
        from ase.io import read
    except ImportError as error:
        raise MissingDependencyError("ase", "ase") from error

    if _MAGNETIC_KEY.search(text):
        raise ValueError("it does not read magnetic symmetry")
    with warnings.catch_warnings():
        # ASE warns where it leaves out part of a damaged file; such a structure must not pass for a whole one.
        warnings.simplefilter("error")
        images: Any = read(io.StringIO(text), index=":", format="cif", fractional_occupancies=True)
    _refuse_several(len(images), structure_id)
    if images[0].cell.rank == 0 and _FRACTIONAL_KEY.search(text):
        raise ValueError("it has fractional coordinates without a cell")
    return images[0]


def _poscar_structure(text: str, structure_id: str) -> Any:
    from pymatgen.io.vasp.inputs import Poscar

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        structure = Poscar.from_str(text, read_velocities=False).structure
    messages = [str(w.message) for w in caught]
    if any(_INVENTED_ELEMENTS.search(message) for message in messages):
        raise InvalidStructureError(structure_id, "its POSCAR names no elements", "Add the line of element symbols")
    _note(messages, structure_id)
    return structure


def _crystal_from_xyz(text: str, structure_id: str, dtype: torch.dtype) -> Data:
    lines = text.splitlines()
    if len(lines) > 1 and _EXTENDED_KEY.search(lines[1]):
        if importlib.util.find_spec("ase") is None:
            raise MissingDependencyError("ase", "ase")
        atoms, reason = _attempt(_extxyz_atoms, text, structure_id)
        if atoms is not None:
            return from_ase_atoms(atoms, structure_id=structure_id, dtype=dtype)
        raise _unreadable(structure_id, "extended XYZ", f"ASE: {reason}")
    molecule, reason = _attempt(_xyz_molecule, text, structure_id)
    if molecule is None:
        raise _unreadable(structure_id, "xyz", reason)
    return from_structure(molecule, structure_id=structure_id, dtype=dtype)


def _crystal_from_json(text: str, structure_id: str, dtype: torch.dtype) -> Data:
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise _unreadable(structure_id, "JSON", str(error)) from error
    return crystal_from_dict(raw, structure_id, dtype)


def _extxyz_atoms(text: str, structure_id: str) -> Any:
    from ase.io import read

    images = read(io.StringIO(text), index=":", format="extxyz")
    _refuse_several(len(images), structure_id)
    return images[0]


def _xyz_molecule(text: str, structure_id: str) -> Any:
    from pymatgen.io.xyz import XYZ

    molecules = XYZ.from_str(text).all_molecules
    _refuse_several(len(molecules), structure_id)
    promised = int(text.split(maxsplit=1)[0])
    if promised != len(molecules[0]):
        raise ValueError(f"{promised} atoms promised, {len(molecules[0])} found")
    return molecules[0]


def _refuse_several(number: int, structure_id: str) -> None:
    if number > 1:
        raise InvalidStructureError(
            structure_id, f"its file holds {number} structures, one is expected", "Split it into one file per structure"
        )


def _note(messages: list[str], structure_id: str) -> None:
    for message in messages:
        if not _HARMLESS_NOTES.search(message):
            warnings.warn(
                f"structure {structure_id!r}: {' '.join(message.split())[:300]}", StructureFileWarning, stacklevel=2
            )


def _unreadable(structure_id: str, kind: str, reason: str) -> InvalidStructureError:
    return InvalidStructureError(
        structure_id, f"not a readable {kind} file ({reason})", "Open it in a viewer and correct it, or remove it"
    )


_READERS: dict[str, tuple[str, Callable[[str, str, torch.dtype], Data]]] = {
    ".cif": ("CIF", crystal_from_cif),
    ".mcif": ("CIF", crystal_from_cif),
    ".xyz": ("xyz", _crystal_from_xyz),
    ".extxyz": ("xyz", _crystal_from_xyz),
    ".json": ("JSON", _crystal_from_json),
}
