"""Which reader a path is for."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch_geometric_crystal.datasets.check_structures import is_data_frame, list_structures
from torch_geometric_crystal.datasets.compact_store import CompactStore
from torch_geometric_crystal.datasets.graph_store import is_graph_store
from torch_geometric_crystal.datasets.readers.ase_file import AseDatabaseSource, ExtendedXyzSource
from torch_geometric_crystal.datasets.readers.data_frame import DataFrameSource
from torch_geometric_crystal.datasets.readers.folder import TARGET_FILE, FolderSource
from torch_geometric_crystal.datasets.readers.jarvis_json import JarvisSource
from torch_geometric_crystal.datasets.readers.json_file import peek_json
from torch_geometric_crystal.datasets.readers.matbench_json import MatbenchSource
from torch_geometric_crystal.datasets.readers.structure_file import is_structure_file
from torch_geometric_crystal.datasets.readers.structure_files import StructureFilesSource
from torch_geometric_crystal.datasets.readers.structure_list import StructureListSource
from torch_geometric_crystal.datasets.readers.table import TableSource
from torch_geometric_crystal.datasets.source import Source, existing_file

_FIRST_KEY = re.compile(r'\{\s*"([^"]*)"')
_MATBENCH_KEYS = ("index", "columns", "data")
_ASE_KEYS = ("ids", "nextid")
_RECORD_KEYS = ("jid", "atoms")
_JSON_SUFFIXES = (".json", ".json.gz", ".zip")
_ALIGNN_FILES = ("id_prop.json", "id_prop.json.zip", "id_prop.json.gz")


def open_source(source: Any, target: str | Sequence[str] | None = None) -> Source:
    """Open crystals of any supported kind.

    ============================================= ==================================================
    what                                          default target
    ============================================= ==================================================
    Matbench JSON (.json, .json.gz)               all columns but ``structure``
    JARVIS or ALIGNN JSON (.json, .json.gz, .zip) ``target``, if there is one
    folder of CIF, POSCAR, xyz                    columns of ``id_prop.csv``; none without that file
    ``id_prop.csv``                               as its folder
    folder with ALIGNN's ``id_prop.json``         ``target``, if there is one
    CSV with a column of structures               ``target``, if there is one
    compact store (.npz)                          all
    ASE database (.db, .json), extended XYZ       ``target``, if there is one
    CIF, POSCAR, pymatgen JSON file               none
    list of pymatgen structures, ASE atoms, Data  ``y`` of the Data
    pandas DataFrame with a column of structures  ``target``, if there is one
    ============================================= ==================================================

    JSON files are told apart by their content.

    Args:
        source: A path, a list, a pandas DataFrame, or a `Source`, which is returned as it is.
        target: Name, or names, of the targets.

    Returns:
        A `Source`: iterate it for `Entry` objects with `structure_id`, `targets` and ``load()``.

    Raises:
        FileNotFoundError: if the path is not there.
        TypeError: for a single structure; give a list of one.
        ValueError: if the kind is not supported, or cannot have the target.
    """
    if isinstance(source, Source):
        return source
    if is_data_frame(source):
        return DataFrameSource(source, target)
    if not isinstance(source, str | Path):
        return StructureListSource(list_structures(source, "source"), target_names=target)
    path = Path(source).expanduser()
    if is_graph_store(path):
        raise ValueError(f"{path} is a graph store, whose crystals have their graphs: open it with OnDiskCrystals")
    if path.is_dir():
        records = next((path / name for name in _ALIGNN_FILES if (path / name).is_file()), None)
        if records is not None and not (path / TARGET_FILE).is_file():
            return JarvisSource(records, target)
        return FolderSource(path, target)
    existing_file(path)
    if path.name == TARGET_FILE:
        return FolderSource(path.parent, target)
    name = path.name.lower()
    if name.endswith(_JSON_SUFFIXES):
        return _open_json(path, target)
    if name.endswith(".npz"):
        return CompactStore(path, target)
    if name.endswith(".csv"):
        return TableSource(path, target)
    if name.endswith(".db"):
        return AseDatabaseSource(path, target)
    if name.endswith((".extxyz", ".xyz")):
        return ExtendedXyzSource(path, target)
    if is_structure_file(path):
        return _without_target(path, target)
    raise ValueError(
        f"{path}: unknown kind of file. Supported: Matbench or JARVIS JSON, a folder of CIF/POSCAR/xyz, CSV, .npz, ASE "
        ".db, extended XYZ, CIF, POSCAR (pickles are never read: write the structures as JSON or CIF)"
    )


def _open_json(path: Path, target: str | Sequence[str] | None) -> Source:
    start = peek_json(path)
    if start.startswith("["):
        return JarvisSource(path, target)
    match = _FIRST_KEY.match(start)
    key = match.group(1) if match else ""
    if key in _RECORD_KEYS:
        return JarvisSource(path, target)
    if key in _MATBENCH_KEYS:
        return MatbenchSource(path, target)
    if key in _ASE_KEYS or key.isdigit():
        return AseDatabaseSource(path, target)
    if match and path.name.lower().endswith(".json"):
        return _without_target(path, target)
    raise ValueError(f"{path}: neither Matbench's layout (index, columns, data) nor a list of JARVIS records")


def _without_target(path: Path, target: str | Sequence[str] | None) -> Source:
    if target is not None:
        raise ValueError(f"target: {path} is a structure file, which has none; put {TARGET_FILE} beside it")
    return StructureFilesSource([path])
