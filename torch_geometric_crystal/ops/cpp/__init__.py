"""The optional C++ kernels for the CPU: their sources, and how they are built, kept and loaded."""
