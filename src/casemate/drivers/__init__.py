"""Drivers: the only I/O: processes, disks, networks, stores. A driver decides nothing."""
