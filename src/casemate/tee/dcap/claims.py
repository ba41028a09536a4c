"""The claims that SGX and TDX share, under CoCo's names: TCB status with date and advisories, collateral, platform."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography import x509

from casemate.crypto import chain
from casemate.schema.endorsements import Endorsements
from casemate.tee.dcap import tcb
from casemate.tee.dcap.verify import Platform

_SGX_TYPES = {0: "Standard", 1: "Scalable", 2: "ScalableWithIntegrity"}


def values(platform: Platform, endorsements: Endorsements) -> dict[str, Any]:
    """The shared members. Dates are RFC 3339; a flag that the certificate does not state is absent."""
    level, key, info, identity = platform.level, platform.pck, platform.info, platform.identity
    if level is None or key is None or info is None or identity is None or platform.root is None:
        return {}
    found: dict[str, Any] = {
        "tcb_status": platform.status,
        "tcb_date": level.date.isoformat(),
        "advisory_ids": tcb.advisories(level, platform.module, platform.qe),
        "collateral_expiration_status": "0",  # expired collateral is refused before there are claims
        "earliest_issue_date": min(platform.issued).isoformat(),
        "latest_issue_date": max(platform.issued).isoformat(),
        "earliest_expiration_date": platform.valid_until.isoformat() if platform.valid_until else None,
        "pck_crl_num": _crl_number(endorsements.collateral["pck_crl"]),
        "root_ca_crl_num": _crl_number(endorsements.collateral["root_ca_crl"]),
        # The older of the two, as Intel's own verifier says it: a newer identity doesn't make an old TCB info newer.
        "tcb_eval_num": min(info.tcb_evaluation_data_number, identity.tcb_evaluation_data_number),
        "platform_provider_id": key.ppid.hex(),
        "sgx_type": _SGX_TYPES.get(key.sgx_type, str(key.sgx_type)),
        # Intel hashes the point alone: 04 | X | Y.
        "root_key_id": hashlib.sha384(chain.load(platform.root.certificate).key[-65:]).hexdigest(),
        "fmspc": key.fmspc.hex(),
        "tcb_levels": _levels(platform),
    }
    optional = {
        "platform_instance_id": key.platform_instance_id.hex() if key.platform_instance_id else None,
        "is_cached_keys": key.cached_keys,
        "is_dynamic_platform": key.dynamic_platform,
        "is_smt_enabled": key.smt_enabled,
    }
    return found | {name: value for name, value in optional.items() if value is not None}


def _levels(platform: Platform) -> dict[str, Any]:
    """What each part's level says, for people: the platform, the TDX module, the quoting enclave."""
    parts = {"platform": platform.level, "tdx_module": platform.module, "qe": platform.qe}
    return {
        name: {"status": p.status, "date": p.date.isoformat(), "advisory_ids": list(p.advisories)}
        | ({"isvsvn": p.svn} if p.svn >= 0 else {})
        for name, p in parts.items()
        if p is not None
    }


def _crl_number(data: bytes) -> int | None:
    try:
        return chain.load_crl(data).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (x509.ExtensionNotFound, ValueError):
        return None
