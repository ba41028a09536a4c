"""Judge TPM evidence: signature, key chain, nonce, PCRs, event log, initdata. Every failed rule is reported.

Standard: TPM 2.0 Library Part 1 section 18.4 (what a quote says), TCG PC Client Firmware Profile section 10 (the log).

Rules
  tpm.quote.format      TPMS_ATTEST of type quote with the TPM's magic, whole, nothing behind it
  tpm.quote.signature   the AK signed it (ECDSA on P-256 or P-384, or RSA from 2048 bits, SHA-256 or better)
  tpm.quote.nonce       extraData is the first 32 bytes of the report data, or all of it where it is shorter
  tpm.quote.selection   all 24 PCRs of one bank, nothing else
  tpm.quote.pcrs        the PCRs shown are the PCRs quoted
  tpm.quote.clock       clockInfo.safe: the TPM was shut down in order before
  tpm.ak.*              the AK's certificate reaches an anchor, is valid, made for this use, not revoked
  tpm.ak.key            the certificate's key is the key that signed
  tpm.ak.given          or: the relying party gave this very key (`Endorsements.collateral`, names that begin `tpm.key`)
  tpm.log.*             the event log replays to the PCRs
  tpm.initdata          PCR 8 is exactly one extend by the initdata digest
Rules (cautions)
  tpm.quote.bank         not the SHA-1 bank, whose registers can be forged
  tpm.log.unlogged_exit  no extend of PCR 5 at the end of the boot services that the firmware made without logging it

The AK's attributes (0x00050472: born in this TPM, restricted) are not in the evidence. They are believed because of the
certificate: a platform CA issues one only for a key whose public area it has seen and whose TPM has proved it by
ActivateCredential. That is why a chain is demanded and a bare key refused, unless the relying party gave it: then it
has seen to that itself, and the platform's class is `development`.
"""

from __future__ import annotations

from datetime import datetime

from casemate.schema.claims import Claims
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.schema.request import Request


def verify(evidence: Evidence, endorsements: Endorsements, request: Request, now: datetime) -> Claims:
    """Claims of genuine evidence, or `Refused` with every failed rule; `Malformed` when the JSON is not TPM evidence.

    `endorsements.collateral` may hold revocation lists (DER) under names that end in `.crl`. `now` is timezone-aware.
    """
    from casemate.tee.tpm import judge  # the guest imports this room to collect, and never needs what judging needs

    return Claims(**judge.judge(evidence, endorsements, request, now))
