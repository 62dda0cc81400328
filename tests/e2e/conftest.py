"""The fixtures of `mesh_processes.py`, for the tests of this folder."""

from __future__ import annotations

from mesh_processes import mesh, two_years, undisturbed

__all__ = ["mesh", "two_years", "undisturbed"]
