"""Devices and processes: the mesh, the placement of arrays, compilation, hosts."""
