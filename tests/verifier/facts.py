"""How a fact of the published index is told by the claims of `casemate verify --json`: field by field."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any


def at(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value[part]
    return value


def hexed(text: str) -> str:
    return base64.b64decode(text).hex()


def tcb(levels: dict[str, int]) -> dict[str, int]:
    names = {"bl": "bootloader", "ucode": "microcode"}
    return {names.get(name, name): level for name, level in levels.items()}


def said(fact: str, claims: dict[str, Any], wanted: Any) -> tuple[Any, Any]:
    """(what the claims say, what they should) of a fact."""
    values = claims["values"]
    if fact in SAME:
        return at(claims, SAME[fact]), wanted
    if fact.endswith("_tcb") and isinstance(wanted, dict):
        return values["tcb"][fact.removesuffix("_tcb")], tcb(wanted)
    return TOLD[fact](claims, values), wanted


# Facts that are a claim as they stand: the place of the claim.
SAME = {
    "report_version": "values.version", "signing_key": "values.signing_key", "vmpl": "privilege_level",
    "guest_svn": "values.guest_svn", "measurement": "measurement.measurement", "platform_info": "values.platform_info",
    "chip_id": "values.chip_id", "id_key_digest": "values.id_key_digest", "vlek_csp_id": "values.provider",
    "fmspc": "values.fmspc", "debug": "debug", "trailing": "values.trailing_bytes",
    "tcb_evaluation_data_number": "values.tcb_eval_num", "module_id": "values.module_id", "digest": "values.digest",
    "pcrs": "values.pcrs", "policy_sha256": "init_data", "mrtd": "measurement.mrtd",
    "rtmr0": "measurement.rtmr0", "rtmr1": "measurement.rtmr1", "rtmr2": "measurement.rtmr2",
    "rtmr3": "measurement.rtmr3", "mrenclave": "measurement.mr_enclave", "mrsigner": "measurement.mr_signer",
    "pcr0": "measurement.pcr0", "pcr7": "measurement.pcr7", "pcr11": "measurement.pcr11",
    "realm_challenge": "report_data", "realm_initial_measurement": "measurement.rim",
    "implementation_id": "values.implementation_id", "instance_id": "values.instance_id",
    "realm_hash_alg": "values.realm.cca-realm-hash-algo-id", "tpm_nonce_hex": "report_data",
    "rak_hash_alg": "values.realm.cca-realm-public-key-hash-algo-id",
}  # fmt: skip
BODY = {
    "tee_tcb_svn": "tcb_svn", "tee_tcb_svn2": "tee_tcb_svn2", "mrseam": "mr_seam", "td_attributes": "td_attributes",
    "xfam": "xfam", "mrconfigid": "mr_config_id", "mrowner": "mr_owner", "mrownerconfig": "mr_owner_config",
    "mrservicetd": "mr_servicetd",
}  # fmt: skip
SAME |= {fact: f"values.quote.body.{name}" for fact, name in BODY.items()}


def body(values: dict[str, Any]) -> dict[str, Any]:
    return values["quote"]["body"] if "quote" in values else values["body"]


def level(values: dict[str, Any], name: str) -> list[Any] | None:
    return values["tcb_levels"].get(name)


TOLD = {
    "chip": lambda c, v: v["product"].lower(),
    "vek_product": lambda c, v: {"Milan": ("Milan", "Milan-B0")}.get(v["product"], (v["product"],)),
    "policy": lambda c, v: isinstance(v["policy"], str) and {
        "hex": v["policy"], "abi": f"{v['policy_abi_major']}.{v['policy_abi_minor']}", "reserved1": 1,
        "smt": flag(v["policy_smt_allowed"]), "migrate_ma": flag(v["policy_migrate_ma"]),
        "debug": flag(v["policy_debug_allowed"]), "single_socket": flag(v["policy_single_socket"]),
    },
    # Azure's hardware report binds the runtime data; what the guest was asked is in the quote of its TPM.
    "report_data": lambda c, v: v["hcl"]["runtime_data"] + "00" * 32 if "hcl" in v else c["report_data"],
    "host_data": lambda c, v: "00" * 32 if "hcl" in v else c["init_data"],
    "version": lambda c, v: number(at(v, "quote.header" if "quote" in v else "header")["version"]),
    "tcb_level": lambda c, v: [at(level(v, "platform"), n) for n in ("status", "date", "advisory_ids")],
    "tdx_module": lambda c, v: [v["tcb_levels"].get("tdx_module", {}).get(n) for n in ("isvsvn", "status")],
    "qe_tcb": lambda c, v: [at(level(v, "qe"), n) for n in ("isvsvn", "status")],
    "qe_isvsvn": lambda c, v: level(v, "qe")["isvsvn"],
    "cpusvn": lambda c, v: body(v)["cpu_svn"],
    "attributes": lambda c, v: body(v)["attributes"]["flags"] + body(v)["attributes"]["xfrm"],
    "isvprodid": lambda c, v: number(body(v)["isv_prod_id"]),
    "isvsvn": lambda c, v: number(body(v)["isv_svn"]),
    "timestamp_ms": lambda c, v: round(datetime.fromisoformat(v["timestamp"]).timestamp() * 1000),
    "user_data": lambda c, v: v["user_data"] if "module_id" in v else v["hcl"]["user_data"] if "hcl" in v else text(c),
    "public_key": lambda c, v: v["public_key"],
    "nonce": lambda c, v: v["nonce"] if "module_id" in v else c["report_data"],
    "platform_profile": lambda c, v: v["platform"]["cca-platform-profile"],
    "realm_profile": lambda c, v: v["realm"]["cca-realm-profile"] or None,
    "platform_config": lambda c, v: hexed(v["platform"]["cca-platform-config"]),
    "lifecycle": lambda c, v: hex(v["platform"]["cca-platform-lifecycle"]),
    "sw_components": lambda c, v: len(v["platform"]["cca-platform-sw-components"]),
    "ccel_events": lambda c, v: len(v["uefi_event_logs"]) + 1,  # the header is the log's first event
    "anonce": lambda c, v: v["anonce"],
    "measure": lambda c, v: c["measurement"]["measure"],
    "mnonce": lambda c, v: v["mnonce"],
    "vm_id": lambda c, v: v["vm_id"],
    "serial": lambda c, v: v["serial_number"],
    "sig_usage": lambda c, v: hex(number(v["sig_usage"])),
    "runtime_data_sha256": lambda c, v: v["hcl"]["runtime_data"],
    "vm_configuration": lambda c, v: v["hcl"]["vm_configuration"],
    "hcl_version": lambda c, v: v["hcl"]["version"],
    "tpm_firmware": lambda c, v: v["hcl"]["tpm_firmware"],
    "measurement_blocks": lambda c, v: len(c["measurement"]),
    "driver": lambda c, v: device(v).get("driver_version") or None,
    "vbios": lambda c, v: device(v)["vbios_version"],
    "arch": lambda c, v: device(v)["arch"].upper(),
}  # fmt: skip

# Facts that are no claims: of files, of other tools, of certificates that a check names, of rules of the origin.
NO_CLAIMS = {
    "family_model_stepping", "flags", "vek_serial", "uvm_iss", "uvm_feed", "uvm_payload", "uvm_signing_time",
    "uvm_leaf_valid", "uvm_root_sha256", "host_data_rule", "measurement_rule", "report_data_rule", "certtype",
    "dcap_qvl_0_7_0", "kind", "pck", "root_cert_sha256_prefix", "runtime_event_digest_rule", "ccel_rule",
    "ccel_used_bytes", "tcb_by_eval", "hcl_data_report_type", "pcr_digest", "alg", "cabundle_len", "cose_tag",
    "payload_map", "root_sha256", "rak_encoding", "report_len", "leaf", "leaf_serial", "ocsp", "entries",
    "spdm_version",
}  # fmt: skip


def flag(value: bool | str) -> int:
    return int(value in (True, "true"))


def number(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text), "little")


def device(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, **values.get("config", {})}


def text(claims: dict[str, Any]) -> str:
    return bytes.fromhex(claims["report_data"]).rstrip(b"\0").decode()


def agree(fact: str, told: Any, wanted: Any) -> bool:
    if fact == "vek_product":
        return wanted in told
    if fact in ("tdx_module", "qe_tcb"):
        return told == (wanted[1:] if wanted else [None, None])
    if fact == "tcb_level":
        return told == [wanted[0], wanted[1].replace("Z", "+00:00"), wanted[2]]
    if fact == "pcrs":  # the index leaves out most of those that are zero
        return all(told[index] == value for index, value in wanted.items()) and not any(
            int(value, 16) for index, value in told.items() if index not in wanted
        )
    if fact == "policy" and isinstance(wanted, str):
        return True  # a number whose bits are the claims below `policy`
    if isinstance(wanted, dict) and set(wanted) == {"len", "hex"}:
        return told.startswith(wanted["hex"]) and len(told) == 2 * wanted["len"]
    return told == wanted
