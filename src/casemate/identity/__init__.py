"""Identity: left empty for workload identities and the mesh between them."""
