"""Data sets of crystals: bundled ones, and any other from files, folders, tables and lists."""

from torch_geometric_crystal.datasets.atomic_write import atomic_write
from torch_geometric_crystal.datasets.bundled import BundledDataset, CorruptFileError, split_by_hash
from torch_geometric_crystal.datasets.cache import CacheWarning
from torch_geometric_crystal.datasets.cached_graph_store import cached_graph_store
from torch_geometric_crystal.datasets.carbon_24 import Carbon24
from torch_geometric_crystal.datasets.compact_store import CompactStore, write_compact_store
from torch_geometric_crystal.datasets.convert import Conversion, convert
from torch_geometric_crystal.datasets.crystal_dataset import CrystalDataset
from torch_geometric_crystal.datasets.elastic_2015 import Elastic2015
from torch_geometric_crystal.datasets.file_lock import LockWarning
from torch_geometric_crystal.datasets.flla_2015 import FLLA2015
from torch_geometric_crystal.datasets.graph_store import OnDiskCrystals
from torch_geometric_crystal.datasets.labels import LabelSource, UnlabelledSource
from torch_geometric_crystal.datasets.matbench_phonons import MatbenchPhonons
from torch_geometric_crystal.datasets.mp_20_val import MP20Val
from torch_geometric_crystal.datasets.open_source import open_source
from torch_geometric_crystal.datasets.processing import StructureWarning
from torch_geometric_crystal.datasets.read_structures import FileResult, read_structures
from torch_geometric_crystal.datasets.readers.structure_list import StructureListSource
from torch_geometric_crystal.datasets.source import Entry, Source
from torch_geometric_crystal.datasets.write_graph_store import write_graph_store

__all__ = [
    "FLLA2015",
    "BundledDataset",
    "CacheWarning",
    "Carbon24",
    "CompactStore",
    "Conversion",
    "CorruptFileError",
    "CrystalDataset",
    "Elastic2015",
    "Entry",
    "FileResult",
    "LabelSource",
    "LockWarning",
    "MP20Val",
    "MatbenchPhonons",
    "OnDiskCrystals",
    "Source",
    "StructureListSource",
    "StructureWarning",
    "UnlabelledSource",
    "atomic_write",
    "cached_graph_store",
    "convert",
    "open_source",
    "read_structures",
    "split_by_hash",
    "write_compact_store",
    "write_graph_store",
]
