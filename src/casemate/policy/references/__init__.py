"""Reference values from signed documents: CoRIM, in-toto and SLSA, sigstore bundles, UVM endorsements, our own JSON.

trust = references.load([open("signer.pem", "rb").read()])     # whom the relying party believes
found = references.read(data, trust, now)                      # Refused with every failed rule, or Malformed
findings = references.compare(claims, found)                   # all ok: the evidence shows an accepted measurement

A document is recognised by its content. Signer, expiry and scope are always checked; an unsigned document is refused
unless the relying party allows it by name.
"""

from __future__ import annotations

from casemate.policy.references.compare import artefact, compare
from casemate.policy.references.door import LIMIT, inspect, read
from casemate.policy.references.trust import Did, Identity, ReferenceTrust, load

__all__ = ["LIMIT", "Did", "Identity", "ReferenceTrust", "artefact", "compare", "inspect", "load", "read"]
