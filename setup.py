import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (HERE / "torch_geometric_crystal" / "__init__.py").read_text(encoding="utf-8"), re.M
).group(1)

INSTALL_REQUIRES = [
    "torch>=2.6",
    "torch_geometric>=2.6",
    # 2024.2.20 mends CVE-2024-23346 (code run while reading a CIF); 2025.1.24 is the oldest with which the tests
    # pass beside current releases of numpy and monty.
    "pymatgen>=2025.1.24",
    "numpy>=1.26.4",
    "filelock",
    "tqdm",
    "pyyaml",
    "typer>=0.16",
    "rich>=13.8",
    "safetensors>=0.4",
]

EXTRAS = {
    "train": ["lightning>=2.4", "torchmetrics>=1.4", "matplotlib>=3.8"],
    # matbench itself is installed with --no-deps (docs/getting_started.rst says why); this is what it needs.
    "matbench": ["matminer>=0.9.3", "pandas>=2.0", "scikit-learn>=1.3", "scipy>=1.11", "monty>=2025.1.9"],
    "ase": ["ase>=3.23"],
    "sklearn": ["scikit-learn>=1.6"],
    "parquet": ["pandas>=2.0", "pyarrow>=14"],
    "kernels": ['triton>=3.2; platform_system == "Linux"'],
}
EXTRAS["all"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})
EXTRAS["dev"] = [
    "pytest>=8",
    "pytest-cov>=5",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "ruff>=0.9",
    "mypy>=1.11",
    "types-PyYAML",
]
EXTRAS["docs"] = ["sphinx>=8.1", "furo>=2024.8.6", "myst-parser>=4.0"]

setup(
    name="torch_geometric_crystal",
    version=VERSION,
    description="Crystals in PyTorch Geometric: exact infinitely connected attention, models, data and benchmarks",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["torch_geometric_crystal", "torch_geometric_crystal.*"]),
    package_data={
        "torch_geometric_crystal": [
            "py.typed",
            "**/*.json.gz",
            "**/*.csv",
            "**/*.npz",
            "**/*.cif",
            "ops/cpp/*.cpp",
            "ops/cpp/*.h",
        ]
    },
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["tgcrystal = torch_geometric_crystal.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Chemistry",
        "Topic :: Scientific/Engineering :: Physics",
        "Typing :: Typed",
    ],
    zip_safe=False,
)
