"""Bytes out of compressed files, archives and folders; damaged, endless and misleading ones are refused by name."""

import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from credit.formats import archives
from credit.formats.archives import BadFile, extract, gather, unpack
from tests.credit.data_files import RANDOM, Pack, tar_gz, zipped


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_files_are_read_raw_gzipped_and_xz_compressed(tmp_path: Path, suffix: str, pack: Pack) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(pack(b"content"))
    assert unpack(path) == (str(path), b"content")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("fault", ["truncated", "flipped", "not compressed"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, pack: Pack, fault: str) -> None:
    packed = bytearray(pack(RANDOM.bytes(1000)))
    if fault == "truncated":
        del packed[500:]
    if fault == "flipped":
        packed[500] ^= 1
    if fault == "not compressed":
        packed[:] = b"content"
    path = tmp_path / f"data{suffix}"
    path.write_bytes(packed)
    with pytest.raises(BadFile) as refusal:
        unpack(path)
    assert str(refusal.value).startswith(f"{path} is damaged: ")


def test_a_file_that_unpacks_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(1001)))
    with pytest.raises(BadFile, match="larger than 1000 bytes"):
        unpack(path)


def test_members_of_a_tar_come_in_the_order_asked_for_and_others_are_left_alone(tmp_path: Path) -> None:
    path = tar_gz(tmp_path / "a.tar.gz", {"../../evil": b"no", "d/two": b"2", "d/one": b"1"})
    before = sorted(tmp_path.parent.rglob("*"))
    assert [content.raw for content in extract(path, ["d/one", "d/two"])] == [b"1", b"2"]
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_tar_that_lacks_a_member_or_has_a_link_in_its_place_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("d/one")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(BadFile, match=r"a\.tar\.gz lacks d/one, d/two"):
        extract(path, ["d/one", "d/two"])


@pytest.mark.parametrize("fault", ["truncated", "no tar"])
def test_a_damaged_tar_is_named(tmp_path: Path, fault: str) -> None:
    path = tar_gz(tmp_path / "a.tar.gz", {"d/one": RANDOM.bytes(5000)})
    path.write_bytes(path.read_bytes()[:2000] if fault == "truncated" else b"not a tar")
    with pytest.raises(BadFile, match=r"a\.tar\.gz is damaged"):
        extract(path, ["d/one"])


# ---- zip archives and folders ----


def folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, raw in members.items():
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).write_bytes(raw)
    return path


KINDS = [(tar_gz, "a.tar.gz"), (zipped, "a.zip"), (folder, "d")]


@pytest.mark.parametrize(("write", "name"), KINDS)
def test_what_is_wanted_is_gathered_by_its_name(
    tmp_path: Path, write: Callable[[Path, dict[str, bytes]], Path], name: str
) -> None:
    path = write(tmp_path / name, {"d/one": b"1", "d/e/two": b"2", "d/three": b"3"})
    before = sorted(tmp_path.rglob("*"))
    found = gather(path, lambda name: name != "d/three")
    assert {name: content.raw for name, content in found.items()} == {"d/one": b"1", "d/e/two": b"2"}
    assert found["d/e/two"].origin == f"d/e/two in {path}"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("write", "name"), KINDS)
def test_members_without_end_are_stopped_each_and_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, dict[str, bytes]], Path], name: str
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 2500)
    path = write(tmp_path / name, {"d/bomb": bytes(1001)} | {f"d/{n}": bytes(900) for n in range(3)})
    with pytest.raises(BadFile, match=f"d/bomb in {path} is larger than 1000 bytes once unpacked"):
        gather(path, {"d/0", "d/bomb"}.__contains__)
    with pytest.raises(BadFile, match=f"{path} is larger than 2500 bytes once unpacked"):
        gather(path, lambda name: name != "d/bomb")
    assert len(gather(path, {"d/1", "d/2"}.__contains__)) == 2


def test_a_zip_archive_is_known_by_its_first_bytes_and_may_say_less_than_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "a.npz", {"../one": b"1" * 5000})
    assert [content.raw for content in extract(path, ["../one"])] == [b"1" * 5000]
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(path.read_bytes().replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(BadFile, match="is damaged"):
        extract(path, ["../one"])


@pytest.mark.parametrize("fault", ["truncated", "flipped", "encrypted"])
def test_a_damaged_zip_archive_is_named(tmp_path: Path, fault: str) -> None:
    path = zipped(tmp_path / "a.zip", {"one": RANDOM.bytes(5000)})
    raw = bytearray(path.read_bytes())
    if fault == "truncated":
        del raw[2000:]
    if fault == "flipped":
        raw[2000] ^= 1
    if fault == "encrypted":
        with zipfile.ZipFile(path) as archive:
            directory = archive.start_dir
        raw[6] |= 1
        raw[directory + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(BadFile, match=r"a\.zip is damaged"):
        extract(path, ["one"])
