"""Endorsements of an SNP report: AMD's certificates and revocation list, from its key distribution service.

Standard: Versioned Chip Endorsement Key Certificate and KDS Interface (57230), section 4. A VLEK comes from the cloud
provider with the evidence; only its authorities are public.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from casemate.errors import Unavailable, Unusable
from casemate.schema.endorsements import Endorsements
from casemate.schema.evidence import Evidence
from casemate.tee.snp.report import VLEK, Report, Tcb, parse
from casemate.tee.snp.wire import glance, parse_evidence

SERVICE = "https://kdsintf.amd.com"
SERVICES = {SERVICE: 2.0}  # base → least seconds between two requests: it answers 429 to those who hurry


def endorse(evidence: Evidence, fetch: Callable[[str], bytes]) -> Endorsements:
    """VEK where it is public, ASK, ARK and the list. Version 2 names no CPU, so its products are tried in turn."""
    raw, kinds = glance(evidence.primary)
    report = parse(raw)
    vlek = report.signing_key == VLEK
    if vlek and "VLEK" not in kinds:
        raise Unusable("the report is signed by a VLEK, which only its cloud provider can give", hint="put it beside")
    given = "VCEK" in kinds or "VLEK" in kinds
    named = report.product or (_product(evidence) if given else "")
    last: Unavailable | None = None
    for product in [named] if named else ["Milan", "Genoa"]:
        base = f"{SERVICE}/{'vlek' if vlek else 'vcek'}/v1/{product}"
        try:
            leaf = () if given else (fetch(f"{base}/{_hardware(report, product)}?{_query(report.reported_tcb)}"),)
            authorities = _authorities(fetch(f"{base}/cert_chain"))
            lists = {f"ark-{product.lower()}.crl": fetch(f"{base}/crl")}
            return Endorsements(certificates=(*leaf, *authorities), collateral=lists)
        except Unavailable as error:
            last = error
    raise last or Unusable("the CPU of this report is not known")


def _product(evidence: Evidence) -> str:
    """The product that the key's certificate names."""
    from casemate.tee.snp import vek

    _, sent = parse_evidence(evidence.primary)
    return vek.read(next(der for kind, der in sent if kind in ("VCEK", "VLEK"))).product


@lru_cache(maxsize=16)
def _authorities(chain: bytes) -> tuple[bytes, ...]:
    from casemate.crypto import pem

    return pem.certificates(chain, "cert_chain")


def _hardware(report: Report, product: str) -> str:
    if not any(report.chip_id):
        raise Unusable("the platform masks its chip id, so its certificate cannot be asked for")
    return report.chip_id[: 8 if product == "Turin" else 64].hex()


def _query(tcb: Tcb) -> str:
    first = "" if tcb.fmc is None else f"fmcSPL={tcb.fmc:02}&"
    return f"{first}blSPL={tcb.bootloader:02}&teeSPL={tcb.tee:02}&snpSPL={tcb.snp:02}&ucodeSPL={tcb.microcode:02}"
