"""The wall of Azure's confidential VMs: the paravisor's report (HCL) and the quote of its virtual TPM. README.md."""
