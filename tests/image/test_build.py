import os
import shutil
import subprocess
import tarfile

import pytest

from casemate.errors import Malformed, Unusable
from casemate.image import build, layers, ocicrypt, packets
from casemate.image import manifest as oci
from casemate.image.layout import Layout
from casemate.image.unpack import Unpacker
from casemate.testing import tars

KID, KEY = "kbs:///default/key/1", bytes(range(32))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "source"
    (root / "etc").mkdir(parents=True)
    (root / "etc/conf").write_text("a" * 2000)
    os.link(root / "etc/conf", root / "etc/same")
    (root / ("long" * 40)).write_text("x")
    (root / "link").symlink_to("/etc/conf")
    (root / "café").write_bytes(b"")
    (root / "run").write_text("#!")
    (root / "run").chmod(0o4755)
    return root


def test_same_input_same_bytes(folder, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(folder), str(copy)], check=True)
    os.utime(copy / "run", (1, 1e9))
    assert b"".join(build.folder_tar(folder)) == b"".join(build.folder_tar(copy))
    digests = set()
    for number, root in enumerate((folder, copy)):
        layout = Layout.create(tmp_path / f"out{number}")
        layer = build.add_layer(layout, build.folder_tar(root))
        digests.add(build.add_image(layout, [layer], oci.Process(Cmd=["/run"])).digest)
    assert len(digests) == 1


def test_round_trip(folder, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    with Unpacker(target) as unpacker:
        unpacker.layer(build.folder_tar(folder))
    assert subprocess.run(["diff", "-r", "--no-dereference", str(folder), str(target)], check=False).returncode == 0
    assert (target / "run").stat().st_mode == (folder / "run").stat().st_mode
    assert (target / "etc/same").stat().st_ino == (target / "etc/conf").stat().st_ino
    assert (target / "run").stat().st_mtime == 0


def test_other_readers_agree(folder, tmp_path):
    path = tmp_path / "t.tar"
    path.write_bytes(b"".join(build.folder_tar(folder, epoch=2**33)))
    with tarfile.open(path) as archive:
        assert "etc/conf" in archive.getnames()
        assert archive.getmember("run").mode == 0o4755
    if shutil.which("tar"):
        subprocess.run(["tar", "-tf", str(path)], check=True, stdout=subprocess.DEVNULL)


def test_owner_is_replaced(folder):
    from casemate.image.tarstream import Reader

    assert {(e.uid, e.gid) for e in Reader(build.folder_tar(folder, owner=(7, 8)))} == {(7, 8)}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.mknod(path, 0o60600, 0)])
def test_special_files(folder, make):
    try:
        make(folder / "special")
    except PermissionError:
        pytest.skip("device nodes need root")
    with pytest.raises(Unusable, match="special"):
        list(build.folder_tar(folder))


def test_tar_files(folder, tmp_path):
    import gzip

    plain = b"".join(build.folder_tar(folder))
    (tmp_path / "a.tar").write_bytes(plain)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(plain))
    assert b"".join(build.file_tar(tmp_path / "a.tar")) == plain == b"".join(build.file_tar(tmp_path / "a.tgz"))
    (tmp_path / "bad").write_bytes(tars.tar(tars.header(b"dev/x", b"3")))
    with pytest.raises(Unusable, match="device"):
        list(build.file_tar(tmp_path / "bad"))
    (tmp_path / "junk").write_bytes(b"junk" * 500)
    with pytest.raises(Malformed):
        list(build.file_tar(tmp_path / "junk"))
    with pytest.raises(Unusable):
        list(build.file_tar(tmp_path / "missing"))


@pytest.fixture
def image(folder, tmp_path):
    layout = Layout.create(tmp_path / "image")
    made = [build.add_layer(layout, build.folder_tar(folder), compression=kind) for kind in ("gzip", "none")]
    return layout, build.add_image(layout, made, oci.Process(Entrypoint=["/run"], Env=["A=1"]), epoch=86400)


def test_image(image):
    layout, entry = image
    manifest = layout.manifest(entry)
    config = layout.config(manifest)
    assert config.created == "1970-01-02T00:00:00Z"
    assert config.process.Entrypoint == ["/run"]
    assert config.rootfs.diff_ids[0] == config.rootfs.diff_ids[1] == manifest.layers[1].digest
    assert layout.image() == entry == layout.image("latest")


def test_encrypt(image, tmp_path):
    layout, entry = image
    plain = layout.manifest(entry)
    sealed = build.encrypt(layout, entry, [(KID, KEY), ("kbs:///other/key/1", bytes(32))], version=1)
    manifest = layout.manifest(layout.image())
    assert layout.image() == sealed
    assert manifest.config == plain.config
    for descriptor, diff_id in zip(manifest.layers, layout.config(manifest).rootfs.diff_ids, strict=True):
        assert [packets.parse(p).kid for p in ocicrypt.packets(descriptor)] == [KID, "kbs:///other/key/1"]
        opened = packets.open_any(ocicrypt.packets(descriptor)[1:], lambda _: bytes(32))
        secret = layers.secret_of(descriptor, opened)
        for _ in layers.tar_chunks(layout.chunks(descriptor), descriptor, secret, diff_id):
            pass
    left = {f"sha256:{blob.name}" for blob in (layout.path / "blobs/sha256").iterdir()}
    assert not left & {layer.digest for layer in plain.layers}, "plaintext stays in the layout"
    with pytest.raises(Malformed):
        build.encrypt(layout, sealed, [(KID, KEY)])


def test_copied_layers(image, tmp_path):
    layout, entry = image
    target = Layout.create(tmp_path / "target")
    copied = build.copy_layers(layout, layout.manifest(entry), target)
    again = build.add_image(target, copied, layout.config(layout.manifest(entry)).process, epoch=86400)
    assert again.digest == entry.digest


def test_a_half_written_blob_leaves_nothing(image):
    layout, _ = image
    before = sorted((layout.path / "blobs/sha256").iterdir())

    def broken():
        yield b"x"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        layout.add(broken())
    assert sorted((layout.path / "blobs/sha256").iterdir()) == before


def test_layout_refusals(image, tmp_path):
    layout, entry = image
    with pytest.raises(Unusable):
        Layout.create(layout.path)
    with pytest.raises(Unusable, match="not an OCI layout"):
        Layout.open(tmp_path)
    with pytest.raises(Unusable):
        layout.image("other")
    blob = layout.path / "blobs/sha256" / layout.manifest(entry).layers[0].digest[7:]
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(Malformed, match="damaged"):
        list(layout.chunks(layout.manifest(entry).layers[0]))
    blob.unlink()
    with pytest.raises(Unusable, match="missing"):
        list(layout.chunks(layout.manifest(entry).layers[0]))
    (layout.path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    with pytest.raises(Malformed):
        Layout.open(layout.path)


def test_two_images_need_a_name(image):
    layout, entry = image
    layout.put(layout.read(entry), "second")
    with pytest.raises(Unusable, match="latest, second"):
        layout.image()
    assert layout.image("second").digest == entry.digest
