"""Gather Intel's collateral for a quote. Standard: Intel PCS API v4 (the PCCS speaks the same below another base).

`fetch` takes a URL and returns the body; with a fragment (`#Header-Name`) it returns that response header's value,
because the service sends the issuer chains as percent-encoded PEM in headers.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from casemate.crypto import chain, pem
from casemate.errors import Unusable
from casemate.schema.endorsements import Endorsements
from casemate.tee.dcap import collateral, pck
from casemate.tee.dcap.quote import CERTIFIED_BY_PCK_CHAIN, Quote, TdReport

SERVICE = "https://api.trustedservices.intel.com"
ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
# base → least seconds between two requests
SERVICES = {SERVICE: 0.2, "https://certificates.trustedservices.intel.com": 0.2}


def endorse(quote: Quote, fetch: Callable[[str], bytes]) -> Endorsements:
    """The documents that `casemate.tee.dcap.verify` needs; a quote without its PCK certificate is `Unusable`."""
    if quote.certification_type != CERTIFIED_BY_PCK_CHAIN:
        raise Unusable(
            f"the quote's certification data is of type {quote.certification_type}, without its PCK certificate",
            hint="configure the quoting enclave to embed the PCK chain (type 5)",
        )
    leaf = pem.certificates(quote.certification, "PCK chain")[0]
    fmspc = pck.read(leaf).fmspc.hex()
    issuer = chain.load(leaf).cert.issuer.rfc4514_string()
    kind = "platform" if "Platform" in issuer else "processor"
    tee = "tdx" if isinstance(quote.body, TdReport) else "sgx"
    crl = f"{SERVICE}/sgx/certification/v4/pckcrl?ca={kind}&encoding=der"
    info = f"{SERVICE}/{tee}/certification/v4/tcb?fmspc={fmspc}"
    identity = f"{SERVICE}/{tee}/certification/v4/qe/identity"
    info_text, info_signature = collateral.unwrap(fetch(info), "tcbInfo")
    identity_text, identity_signature = collateral.unwrap(fetch(identity), "enclaveIdentity")
    return Endorsements(
        collateral={
            "tcb_info": info_text,
            "tcb_info_signature": info_signature,
            "tcb_info_issuer_chain": unquote_to_bytes(fetch(f"{info}#TCB-Info-Issuer-Chain")),
            "qe_identity": identity_text,
            "qe_identity_signature": identity_signature,
            "qe_identity_issuer_chain": unquote_to_bytes(fetch(f"{identity}#SGX-Enclave-Identity-Issuer-Chain")),
            "pck_crl": fetch(crl),
            "pck_crl_issuer_chain": unquote_to_bytes(fetch(f"{crl}#SGX-PCK-CRL-Issuer-Chain")),
            "root_ca_crl": fetch(ROOT_CRL),
        }
    )
