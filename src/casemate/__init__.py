"""Casemate: ordinary OCI containers inside hardware trusted execution environments, checkable by anyone.

The package is a house of floors; ARCHITECTURE.md has the picture. Imports point down only.
"""

__version__ = "0.1.0"
