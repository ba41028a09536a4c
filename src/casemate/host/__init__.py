"""Host: runs workloads on a machine that is not trusted: VMs, software TPMs, platform CA, guest image."""
