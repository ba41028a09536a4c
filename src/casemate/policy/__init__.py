"""Policy: whether claims meet the manifest, the app's releases and the reference values. Pure; closed by default."""
