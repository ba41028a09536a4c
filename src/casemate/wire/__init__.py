"""Wire: bounded readers and canonical encodings. Knows bytes, never what they mean."""
