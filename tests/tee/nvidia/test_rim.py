"""Signed manifests: what is read is what was signed, whatever is wrapped around it, beside it or into it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from casemate.crypto import chain
from casemate.errors import Malformed
from casemate.tee.nvidia import rim
from casemate.testing import nvidia as vendor
from casemate.testing import pki

SWID = b"http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
DS = b"http://www.w3.org/2000/09/xmldsig#"
GOLDEN = {3: b"\x11" * 48}
EVIL = vendor.swid("GH100", "550.90.07", {3: b"\x66" * 48})


def signed_by(text, issuer=None):
    key = pki.p384()
    leaf = (issuer or pki.Authority("Fake")).issue("Fake signer", key)
    return vendor.sign(text, key, (leaf,))


def certificate(data):
    return data.split(b"<ds:X509Certificate>")[1].split(b"</ds:X509Certificate>")[0]


GOOD = signed_by(vendor.swid("GH100", "550.90.07", GOLDEN))
SIGNATURE = GOOD[GOOD.index(b"<ds:Signature ") : GOOD.index(b"</ds:Signature>") + len(b"</ds:Signature>")]
BODY = GOOD.replace(SIGNATURE, b"")
CLOSE = b"</SoftwareIdentity>"
OTHERS = signed_by(EVIL)


def read(data):
    """The manifest, when it is taken: parsed, and verified by the key of the certificate that it carries."""
    found = rim.parse(data)
    return rim.verify(found, chain.load(found.certificates[0]))


def test_a_signed_manifest_is_read():
    manifest = read(GOOD)
    assert (manifest.version, manifest.product, manifest.edition) == ("550.90.07", "GH100", "GPU")
    assert manifest.golden == {3: (b"\x11" * 48,)}
    assert read(b'<?xml version="1.0" encoding="UTF-8"?>\n' + GOOD) == manifest


# Signature wrapping (XML Signature Best Practices, section 3.1): the signed content is moved and another put in place.
WRAPPED = {
    "the good document inside the signature's Object": EVIL.replace(
        CLOSE,
        SIGNATURE.replace(b"</ds:Signature>", b"<ds:Object>" + BODY + b"</ds:Object></ds:Signature>") + CLOSE,
    ),
    "the good document as a child of another": EVIL.replace(CLOSE, GOOD + CLOSE),
    "the good document's signature moved to another root": EVIL.replace(CLOSE, SIGNATURE + CLOSE),
    "the signature, with the good document beside it": EVIL.replace(CLOSE, BODY + SIGNATURE + CLOSE),
    "a second payload": GOOD.replace(b"</n:Payload>", b"</n:Payload>" + EVIL[EVIL.index(b"<n:Payload") :][:-19], 1),
    "a signature by reference to an Id": EVIL.replace(
        CLOSE, BODY.replace(b"<SoftwareIdentity ", b'<SoftwareIdentity Id="x" ') + SIGNATURE + CLOSE
    ).replace(b'URI=""', b'URI="#x"'),
    "an xpointer": GOOD.replace(b'URI=""', b'URI="#xpointer(/)"'),
    "another document": GOOD.replace(b'URI=""', b'URI="http://registry.example/rim.xml"'),
    "a file": GOOD.replace(b'URI=""', b'URI="file:///etc/passwd"'),
    "two signatures": GOOD.replace(CLOSE, SIGNATURE + CLOSE),
    "a signature within the payload": BODY.replace(b"</n:Payload>", SIGNATURE + b"</n:Payload>"),
    "no signature": BODY,
    "the signature as root": SIGNATURE.replace(
        b"</ds:Signature>", b"<ds:Object>" + BODY + b"</ds:Object></ds:Signature>"
    ),
    "another root": b"<x>" + GOOD + b"</x>",
    "a transform by XPath": GOOD.replace(b"#enveloped-signature", b"#enveloped-signature-x").replace(
        b"http://www.w3.org/2000/09/xmldsig#enveloped-signature-x", b"http://www.w3.org/TR/1999/REC-xpath-19991116"
    ),
    "a transform by XSLT": GOOD.replace(
        b'<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>',
        b'<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"/>',
    ),
    "base64": GOOD.replace(b"http://www.w3.org/2000/09/xmldsig#enveloped-signature", DS + b"base64"),
    "another key's signature of the evil document, under the good certificate": OTHERS.replace(
        certificate(OTHERS), certificate(GOOD)
    ),
    "HMAC": GOOD.replace(b"ecdsa-sha384", b"hmac-sha384"),
    "SHA-1": GOOD.replace(b"xmldsig-more#sha384", b"xmldsig#sha1").replace(b"2001/04/xmldsig#", b"2000/09/xmldsig#"),
    "a key beside the certificate": GOOD.replace(
        b"<ds:X509Data>", b"<ds:KeyValue><ds:RSAKeyValue/></ds:KeyValue><ds:X509Data>"
    ),
}


@pytest.mark.parametrize("name", sorted(WRAPPED))
def test_wrapping_is_refused(name):
    assert WRAPPED[name] != GOOD
    with pytest.raises(Malformed, match="RIM"):
        read(WRAPPED[name])


@pytest.mark.parametrize(
    "data",
    [
        b'<!DOCTYPE s [<!ENTITY e "x">]>' + GOOD,
        b'<?xml version="1.0"?><!DOCTYPE s SYSTEM "http://registry.example/s.dtd">' + GOOD,
        b'<!DOCTYPE s SYSTEM "file:///etc/passwd">' + GOOD,
        GOOD.replace(b"<n:Payload>", b"<!-- x --><n:Payload>"),
        GOOD.replace(b"<n:Payload>", b"<![CDATA[x]]><n:Payload>"),
        GOOD.replace(b"<n:Payload>", b'<?xml-stylesheet href="x"?><n:Payload>'),
        GOOD.replace(b"550.90.07", b"&e;"),
        b'<?xml version="1.0" encoding="UTF-7"?>' + GOOD,
        b'<?xml version="1.0" encoding="utf-16"?>' + GOOD,
        GOOD.decode().encode("utf-16"),
        b"\xef\xbb\xbf" * 2 + GOOD,
        GOOD + b"\xff",
        b"",
        b"<x/>",
        GOOD[:-3],
        b"<SoftwareIdentity>" * 100_000,
        b"x" * (rim.MAX_SIZE + 1),
        b"<a>" * 60_000 + b"</a>" * 10,
    ],
)
def test_no_document_types_entities_or_other_encodings(data):
    with pytest.raises(Malformed, match="RIM"):
        rim.parse(data)


def test_nothing_is_fetched_or_opened(monkeypatch, tmp_path):
    """Even with the first wall gone, the parser resolves nothing."""
    from lxml import etree

    secret = tmp_path / "secret"
    secret.write_text("secret")
    text = f'<!DOCTYPE s [<!ENTITY e SYSTEM "{secret.as_uri()}">]><s>&e;</s>'
    root = etree.fromstring(text, parser=rim._parser(etree))
    assert "secret" not in "".join(root.itertext())
    bombs = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "x" * 100}">' for i in range(10))
    try:
        root = etree.fromstring(f"<!DOCTYPE s [{bombs}]><s>&a9;</s>", parser=rim._parser(etree))
        assert len("".join(root.itertext())) < 1000
    except etree.XMLSyntaxError:
        pass


@pytest.mark.parametrize(
    "change",
    [
        (b'size="48"', b'size="32"'),
        (b'alternatives="1"', b'alternatives="2"'),
        (b'index="3"', b'index="-3"'),
        (b'index="99"', b'index="3"'),
        (b'active="True"', b'active="yes"'),
        (b"11" * 48, b"11" * 47),
        (b'type="Measurement"', b'type="Other"'),
        (b"colloquialVersion", b"other"),
        (b'product="GH100"', b'product=""'),
        (b"Hash0", b"Hash1"),
    ],
)
def test_signed_nonsense_is_refused(change):
    """The form is checked in what is signed, too."""
    with pytest.raises(Malformed, match="RIM"):
        read(signed_by(vendor.swid("GH100", "550.90.07", GOLDEN).replace(*change)))


def test_only_active_measurements_count_and_alternatives_do():
    text = vendor.swid("GH100", "1", GOLDEN).replace(
        b'alternatives="1" h:Hash0="' + b"11" * 48,
        b'alternatives="2" h:Hash1="' + b"22" * 48 + b'" h:Hash0="' + b"11" * 48,
    )
    assert read(signed_by(text)).golden == {3: (b"\x11" * 48, b"\x22" * 48)}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_fuzz_changes_of_a_manifest_are_malformed_or_harmless(data):
    at = data.draw(st.integers(0, len(GOOD) - 1))
    size = data.draw(st.integers(0, 40))
    piece = data.draw(
        st.binary(max_size=40) | st.sampled_from([b"<!", b"<n:Meta/>", b"&lt;", b'"', SIGNATURE, DS, SWID])
    )
    try:
        assert read(GOOD[:at] + piece + GOOD[at + size :]).golden == {3: (b"\x11" * 48,)}
    except Malformed:
        pass


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=400))
def test_fuzz_bytes(data):
    with pytest.raises(Malformed):
        rim.parse(data)
