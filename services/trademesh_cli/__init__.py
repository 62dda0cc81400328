"""The `trademesh` command: starts the mesh for development, and talks to it from a shell.

Everything it knows it learns by RPC, but for `run verify`, which reads a run's folder, and `data import`, which writes one.
"""
