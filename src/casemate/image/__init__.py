"""Image: OCI images as papers and streams: references, layers, encryption, signatures, safe unpacking."""
