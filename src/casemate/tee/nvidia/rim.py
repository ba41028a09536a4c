"""Reference integrity manifests (RIM): the values that driver and firmware show, as SWID tags with a signature.

Standards: ISO/IEC 19770-2, TCG Reference Integrity Manifest Information Model 1.01, XML Signature 1.1. The signature is
verified by signxml on lxml (extra ``casemate[nvidia]``, ADR 0014), and only the element that it returns as signed is
read. Before that the form is narrowed to the one that NVIDIA uses: one signature, a child of the root, over the whole
document (``URI=""``), ECDSA P-384. So nothing can be wrapped around signed content, or put beside it.

Refused before any parser of XML sees it: document types, entities, CDATA, comments, processing instructions, and every
encoding but UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from casemate.errors import Malformed, Unusable

if TYPE_CHECKING:
    from casemate.crypto.chain import Certificate

MAX_SIZE = 256 << 10
MAX_RESOURCES = 256
MAX_ALTERNATIVES = 64
_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_HASH = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
_C14N = "http://www.w3.org/2006/12/xml-c14n11"
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_ECDSA_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
_DECLARATION = re.compile(rb"<\?xml [^?<>]*\?>\s*")
_ENCODING = re.compile(rb"""encoding\s*=\s*["'](?!utf-8["'])""", re.IGNORECASE)
_DIGEST = re.compile(r"[0-9a-fA-F]{96}")


@dataclass(frozen=True)
class Manifest:
    """What a RIM says. `golden` maps its indexes (SPDM index minus 1) to the values allowed, active ones alone."""

    version: str
    product: str
    edition: str
    tag: str
    golden: dict[int, tuple[bytes, ...]]


@dataclass(frozen=True)
class Unverified:
    """A RIM that nobody has judged: `claimed` serves to find the device that it is for, and nothing else."""

    data: bytes
    claimed: Manifest
    certificates: tuple[bytes, ...]


def parse(data: bytes) -> Unverified:
    """Read a RIM without judging it; `Malformed` when it has not the one form that is taken."""
    root = _root(data)
    signature = _only(root, _DS + "Signature")
    if sum(1 for _ in root.iter(_DS + "Signature")) != 1:
        raise Malformed("RIM: more than one signature")
    _narrow(signature)
    return Unverified(data, _manifest(root), _certificates(signature))


def verify(rim: Unverified, signer: Certificate) -> Manifest:
    """The manifest that `signer` signed, or `Malformed` with the reason; the signer's chain is judged elsewhere."""
    etree, signxml = _libraries()
    from signxml.exceptions import SignXMLException

    config = signxml.SignatureConfiguration(
        location="./",
        expect_references=1,
        signature_methods=frozenset({signxml.SignatureMethod.ECDSA_SHA384}),
        digest_algorithms=frozenset({signxml.DigestAlgorithm.SHA384}),
        verification_time=signer.cert.not_valid_before_utc,  # validity at `now` is the chain's rule
    )
    try:
        found = signxml.XMLVerifier().verify(
            rim.data, x509_cert=signer.cert, parser=_parser(etree), expect_config=config
        )
    except (SignXMLException, etree.LxmlError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise Malformed(f"RIM: not signed by {signer.subject} ({type(error).__name__})") from error
    if found.signed_xml is None or found.signed_xml.tag != _SWID + "SoftwareIdentity":
        raise Malformed("RIM: what is signed is not the whole tag")
    return _manifest(found.signed_xml)


def _libraries() -> tuple[Any, Any]:
    try:
        import signxml
        from lxml import etree
    except ImportError as error:
        raise Unusable(
            "RIMs need the packages lxml and signxml", hint="install the extra: pip install 'casemate[nvidia]'"
        ) from error
    return etree, signxml


def _parser(etree: Any) -> Any:
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, recover=False
    )


def _root(data: bytes) -> Any:
    if len(data) > MAX_SIZE:
        raise Malformed(f"RIM: {len(data)} bytes, at most {MAX_SIZE} allowed")
    declaration = _DECLARATION.match(data)
    body = data[declaration.end() :] if declaration else data
    if declaration and _ENCODING.search(declaration[0]):
        raise Malformed("RIM: only UTF-8 is read")
    if b"<!" in body or b"<?" in body or b"\0" in data:
        raise Malformed("RIM: document types, entities, CDATA, comments and instructions are not allowed")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("RIM: only UTF-8 is read") from error
    etree, _ = _libraries()
    try:
        root = etree.fromstring(data, parser=_parser(etree))
    except (etree.LxmlError, ValueError) as error:
        raise Malformed(f"RIM: not XML ({type(error).__name__})") from error
    if root.tag != _SWID + "SoftwareIdentity":
        raise Malformed("RIM: not a SWID tag")
    return root


def _only(parent: Any, tag: str) -> Any:
    found = parent.findall(tag)
    if len(found) != 1:
        raise Malformed(f"RIM: {len(found)} elements {tag.rpartition('}')[2]} where one is wanted")
    return found[0]


def _narrow(signature: Any) -> None:
    """The signature's form: anything else is refused, so that no other way of signing need be understood."""
    info = _only(signature, _DS + "SignedInfo")
    reference = _only(info, _DS + "Reference")
    transforms = [t.get("Algorithm") for t in _only(reference, _DS + "Transforms")]
    found = (
        _only(info, _DS + "CanonicalizationMethod").get("Algorithm"),
        _only(info, _DS + "SignatureMethod").get("Algorithm"),
        _only(reference, _DS + "DigestMethod").get("Algorithm"),
        reference.get("URI"),
        transforms,
    )
    if found != (_C14N, _ECDSA_SHA384, _SHA384, "", [_ENVELOPED, _C14N]):
        raise Malformed("RIM: signed in another way than over the whole document, by ECDSA with SHA-384")


def _certificates(signature: Any) -> tuple[bytes, ...]:
    data = _only(_only(signature, _DS + "KeyInfo"), _DS + "X509Data")
    found = []
    for element in data.findall(_DS + "X509Certificate")[:8]:
        text = "".join((element.text or "").split())
        try:
            found.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError) as error:
            raise Malformed("RIM: a certificate that is not base64") from error
        if base64.b64encode(found[-1]).decode() != text:
            raise Malformed("RIM: a certificate that is not base64 in its one form")
    if not found:
        raise Malformed("RIM: no certificate")
    return tuple(found)


def _manifest(root: Any) -> Manifest:
    meta, payload = _only(root, _SWID + "Meta"), _only(root, _SWID + "Payload")
    if len(payload) > MAX_RESOURCES:
        raise Malformed("RIM: too many resources")
    golden: dict[int, tuple[bytes, ...]] = {}
    seen: set[int] = set()
    for resource in payload:
        index, active, values = _resource(resource)
        if index in seen:
            raise Malformed(f"RIM: measurement {index} stands there twice")
        seen.add(index)
        if active:
            golden[index] = values
    return Manifest(
        version=_attribute(meta, "colloquialVersion"),
        product=_attribute(meta, "product"),
        edition=_attribute(meta, "edition"),
        tag=_attribute(root, "tagId", 128),
        golden=golden,
    )


def _resource(resource: Any) -> tuple[int, bool, tuple[bytes, ...]]:
    index, active = resource.get("index", ""), resource.get("active", "")
    if resource.tag != _SWID + "Resource" or resource.get("type") != "Measurement" or resource.get("size") != "48":
        raise Malformed("RIM: a resource that is no measurement of 48 bytes")
    if not (index.isascii() and index.isdigit() and len(index) <= 3) or active not in ("True", "False"):
        raise Malformed("RIM: a measurement without index or state")
    hashes = sorted(name for name in resource.attrib if name.startswith(_HASH))
    values = [resource.get(f"{_HASH}{i}", "") for i in range(len(hashes))]
    if not 1 <= len(values) <= MAX_ALTERNATIVES or resource.get("alternatives") != str(len(values)):
        raise Malformed(f"RIM: measurement {index} has not as many values as it says")
    if not all(_DIGEST.fullmatch(value) for value in values):
        raise Malformed(f"RIM: measurement {index} has a value that is no digest")
    return int(index), active == "True", tuple(bytes.fromhex(value) for value in values)


def _attribute(element: Any, name: str, limit: int = 64) -> str:
    value = element.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= limit or not value.isascii():
        raise Malformed(f"RIM: attribute {name} is missing")
    return value
