"""Boot: what a launch is, as bytes: kernel, command line, verity tree, event logs, firmware, initdata. No I/O."""
