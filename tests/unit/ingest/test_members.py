import gzip
import io
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from modelyard.components.errors import DataError
from modelyard.components.ingest.members import iterate_members
from tests.unit.ingest.conftest import peak_memory

MAX_BYTES = 2**30
OUTSIDE = [
    "../evil.png",
    "cats/../../evil.png",
    "/etc/evil.png",
    "\\evil.png",
    "C:\\evil.png",
    "..\\evil.png",
]


def contents(source: Path, max_bytes: int = MAX_BYTES) -> dict[str, bytes | None]:
    return {
        member.name: None if member.is_folder else member.content()
        for member in iterate_members(source, max_bytes)
    }


def write_zip(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def write_tar(
    path: Path, *entries: tarfile.TarInfo, data: bytes = b"data", form: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, "w:gz", format=form, compresslevel=1) as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(data) if entry.isreg() else None)
    return path


def entry(name: str, size: int = 4, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size if kind == tarfile.REGTYPE else 0, kind, target
    return info


def test_folder_zip_and_tar_have_the_same_members(pack) -> None:
    files = {"a/1.bin": b"one", "a/2.bin": os.urandom(100_000), "c/ä ö.txt": b"", "b/": b""}
    result = contents(pack(files))
    assert {name: data for name, data in result.items() if data is not None} == {
        name: data for name, data in files.items() if not name.endswith("/")
    }
    assert result["b"] is None


def test_the_root_folder_of_an_archive_is_not_a_member(tmp_path) -> None:
    folder = tarfile.TarInfo("./")
    folder.type = tarfile.DIRTYPE
    source = write_tar(tmp_path / "s.tgz", folder, entry("./cats/1.png"))
    assert contents(source) == {"cats/1.png": b"data"}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_outside_of_the_source_is_refused_and_nothing_is_written(tmp_path, name) -> None:
    for source in (
        write_zip(tmp_path / "s.zip", ("cats/1.png", b"data"), (name, b"data")),
        write_tar(tmp_path / "s.tar.gz", entry("cats/1.png"), entry(name)),
    ):
        before = sorted(tmp_path.parent.rglob("*"))
        with pytest.raises(DataError, match=r"evil\.png.*is outside of the source") as error:
            contents(source)
        assert str(source) in str(error.value)
        assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "cats/1.png"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
    ],
)
def test_a_special_file_in_a_tar_is_refused(tmp_path, kind, target) -> None:
    source = write_tar(
        tmp_path / "s.tar.gz",
        entry("cats/1.png"),
        entry("cats/special", 0, kind, target),
        form=tarfile.GNU_FORMAT,
    )
    with pytest.raises(DataError, match=r"'cats/special' in .* special file"):
        contents(source)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_special_file_in_a_zip_is_refused(tmp_path, kind) -> None:
    info = zipfile.ZipInfo("cats/special")
    info.external_attr = (kind | 0o644) << 16
    with pytest.raises(DataError, match=r"'cats/special' in .* special file"):
        contents(write_zip(tmp_path / "s.zip", ("cats/1.png", b"data"), (info, b"/etc/passwd")))


def test_links_in_a_folder_are_followed_and_a_cycle_is_refused(tmp_path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/1.png").write_bytes(b"data")
    source = tmp_path / "source"
    (source / "cats").mkdir(parents=True)
    (source / "cats/1.png").symlink_to(tmp_path / "other/1.png")
    assert contents(source)["cats/1.png"] == b"data"
    (source / "dogs").symlink_to(tmp_path / "other")
    assert contents(source)["dogs/1.png"] == b"data"
    (source / "dogs/back").symlink_to(source)
    with pytest.raises(DataError, match=r"'dogs/back' in .* link to one of its parent folders"):
        contents(source)


def test_names_from_macos_and_info_zip_are_normalized(tmp_path) -> None:
    composed, decomposed = "caf\xe9/1.bin", "cafe\u0301/1.bin"
    (tmp_path / decomposed).parent.mkdir()
    (tmp_path / decomposed).write_bytes(b"data")
    assert contents(tmp_path) == {"caf\xe9": None, composed: b"data"}
    zipped = write_zip(tmp_path / "s.zip", (decomposed, b"data"), ("Icon\r", b"icon"))
    assert contents(zipped) == {composed: b"data"}
    # Info-ZIP writes UTF-8 without the flag; DOS writes code page 437
    info_zip = zipped.read_bytes().replace(b"\0\x08", b"\0\0")
    (tmp_path / "i.zip").write_bytes(info_zip)
    assert contents(tmp_path / "i.zip") == {composed: b"data"}
    info = zipfile.ZipInfo("caf_/1.bin")
    name = struct.pack("<BL", 1, zlib.crc32(b"caf_/1.bin")) + composed.encode()
    info.extra = struct.pack("<HHB", 1, 1, 0) + struct.pack("<HH", 0x7075, len(name)) + name
    assert contents(write_zip(tmp_path / "w.zip", (info, b"data"))) == {composed: b"data"}
    dos = write_zip(tmp_path / "d.zip", ("cafX/1.bin", b"data")).read_bytes().replace(b"cafX", b"caf\x82")
    (tmp_path / "d.zip").write_bytes(dos)
    assert contents(tmp_path / "d.zip") == {composed: b"data"}


def test_a_pipe_and_a_broken_link_in_a_folder_are_refused(tmp_path) -> None:
    (tmp_path / "cats").mkdir()
    os.mkfifo(tmp_path / "cats/pipe")
    with pytest.raises(DataError, match=r"'cats/pipe' in .* special file"):
        contents(tmp_path)
    (tmp_path / "cats/pipe").unlink()
    (tmp_path / "cats/lost").symlink_to(tmp_path / "missing")
    with pytest.raises(DataError, match=r"'cats/lost' in .* cannot be opened \(No such file"):
        contents(tmp_path)


def test_a_duplicate_name_is_refused(tmp_path) -> None:
    tar = write_tar(tmp_path / "s.tar.gz", entry("cats/1.png"), entry("./cats//1.png"))
    with pytest.warns(UserWarning, match="Duplicate"):
        zipped = write_zip(tmp_path / "s.zip", ("cats/1.png", b"data"), ("cats/1.png", b"other"))
    for source in (tar, zipped):
        with pytest.raises(DataError, match=r"'cats/1\.png' in .* exists twice"):
            contents(source)


def test_an_encrypted_zip_is_refused(tmp_path) -> None:
    source = write_zip(tmp_path / "s.zip", ("cats/1.png", b"data"))
    data = bytearray(source.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    source.write_bytes(data)
    with pytest.raises(DataError, match=r"'cats/1\.png' in .* is encrypted"):
        contents(source)


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[2Jb.png", "a\u2028b.png"])
def test_a_name_with_control_characters_is_refused(tmp_path, name) -> None:
    for source in (write_zip(tmp_path / "s.zip", (name, b"")), write_tar(tmp_path / "s.tgz", entry(name))):
        with pytest.raises(DataError, match="control characters") as error:
            contents(source)
        assert str(error.value).isprintable()


def test_a_name_that_is_not_utf_8_is_refused_with_this_reason(tmp_path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xfe.png")).touch()
    with pytest.raises(DataError, match="not UTF-8") as error:
        contents(tmp_path)
    assert str(error.value).isprintable()


def test_an_archive_bomb_is_refused_by_declared_or_actual_size(tmp_path) -> None:
    zeros = bytes(8 * 2**20)
    sources = [
        write_zip(tmp_path / "one.zip", ("cats/1.png", zeros)),
        write_zip(tmp_path / "many.zip", *((f"cats/{number}.png", zeros[: 2**18]) for number in range(32))),
        write_tar(tmp_path / "s.tar.gz", entry("cats/1.png", len(zeros)), data=zeros),
    ]
    (tmp_path / "padding.tar.gz").write_bytes(gzip.compress(bytes(8 * 2**20)))
    for source in [*sources, tmp_path / "padding.tar.gz"]:
        assert source.stat().st_size < 2**16
        with peak_memory() as peak:
            with pytest.raises(DataError, match=r"unpacked, has .* data\.max_bytes allows 1,048,576"):
                contents(source, 2**20)
            assert peak() < 4 * 2**20


def test_a_zip_with_a_forged_size_is_refused(tmp_path) -> None:
    source = write_zip(tmp_path / "s.zip", ("cats/1.png", bytes(100_000)))
    data = bytearray(source.read_bytes())
    offset = data.index(b"PK\1\2") + 24
    data[offset : offset + 4] = (10).to_bytes(4, "little")
    source.write_bytes(data)
    with pytest.raises(DataError, match=r"'cats/1\.png' in .* is damaged"):
        contents(source, 1000)


@pytest.mark.parametrize("size", [-512, -(2**40), 2**60])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_forged_size_in_a_tar_is_refused(tmp_path, size, kind) -> None:
    info = tarfile.TarInfo("cats/2.png")
    info.size, info.type = size, kind
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        archive.addfile(entry("cats/1.png"), io.BytesIO(b"data"))
        archive.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
        archive.fileobj.write(bytes(1024))
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(plain.getvalue()))
    with pytest.raises(DataError, match=r"s\.tar\.gz.*(forged or damaged|data\.max_bytes)"):
        list(iterate_members(tmp_path / "s.tar.gz", MAX_BYTES))


def test_a_truncated_archive_is_refused(tmp_path, pack) -> None:
    archive = pack({f"cats/{number}.png": os.urandom(700) for number in range(5)})
    if archive.is_dir():
        return
    data = archive.read_bytes()
    for stop in range(0, len(data) - 1, 211):
        (tmp_path / "cut").write_bytes(data[:stop])
        with pytest.raises(DataError, match=re.escape(f"{tmp_path}/cut")):
            contents(tmp_path / "cut")


def test_a_tar_with_a_damaged_header_is_refused(tmp_path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for number in range(3):
            archive.addfile(entry(f"cats/{number}.png"), io.BytesIO(b"data"))
    data = bytearray(plain.getvalue())
    data[1024 + 150] ^= 1  # in the checksum of the second header
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(data))
    with pytest.raises(DataError, match=r"the data is not a member of the archive\. Download it again"):
        contents(tmp_path / "s.tar.gz")


@pytest.mark.parametrize("data", [b"", b"a text", b"BZh91AY&SY", b"7z\xbc\xaf\x27\x1c"])
def test_another_kind_of_file_is_refused(tmp_path, data) -> None:
    (tmp_path / "s.tar.gz").write_bytes(data)
    with pytest.raises(DataError, match=r"neither a folder nor a \.zip nor a \.tar\.gz"):
        contents(tmp_path / "s.tar.gz")


def test_a_folder_is_not_read_as_a_file(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (member,) = iterate_members(tmp_path, MAX_BYTES)
    with pytest.raises(IsADirectoryError), member.open():
        pass


def test_too_many_entries_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("modelyard.components.ingest.members.MAX_ENTRIES", 1)
    with pytest.raises(DataError, match="more than 1 entries"):
        contents(write_zip(tmp_path / "two.zip", ("a", b"a"), ("b", b"b")))


def test_a_huge_file_is_refused(tmp_path) -> None:
    (tmp_path / "huge.png").touch()
    os.truncate(tmp_path / "huge.png", 2**40)  # sparse: occupies no disk space
    with pytest.raises(DataError, match=r"'huge\.png' in .* 1,099,511,627,776 bytes, but the maximum"):
        contents(tmp_path)


def test_damaged_archives_raise_only_data_errors(tmp_path, pack) -> None:
    archive = pack(
        {f"{name}/{number}.png": os.urandom(90) for name in ("cats", "dogs") for number in range(3)}
    )
    if archive.is_dir():
        return
    random = np.random.default_rng(0)
    packed = gzip.decompress(archive.read_bytes()) if archive.suffix == ".tar" else archive.read_bytes()
    used = len(packed.rstrip(b"\0"))
    for _ in range(400):
        data = bytearray(packed)
        for _ in range(random.integers(1, 5)):
            data[random.integers(used)] = random.choice([0, 1, 46, 47, 255, random.integers(256)])
        damaged = gzip.compress(data, 1) if archive.suffix == ".tar" else bytes(data)
        (tmp_path / "damaged").write_bytes(damaged)
        with suppress(DataError):
            contents(tmp_path / "damaged")
