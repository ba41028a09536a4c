"""The wall that SGX and TDX share: Intel's DCAP quotes, their certificates and their collateral. README.md explains."""
