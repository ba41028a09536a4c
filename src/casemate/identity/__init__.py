"""Room to be furnished."""
