"""Archives: good ones, broken ones, hostile ones, and unpacking that is killed before each of its steps."""

import io
import os
import random
import shutil
import stat
import tarfile
import zipfile

import pytest

from lib.prepare import archives
from lib.prepare.archives import unpack
from tests.prepare.killing import kill_everywhere, tree

CONTENT = {"images/b.jpg": os.urandom(5000), "images/a.jpg": b"a" * 3000, "readme.txt": b"", "deep/er/ü.json": b"{}"}


def write_zip(path, files=CONTENT, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.mkdir("images")
        for name, content in files.items():
            file.writestr(name, content)
    return path


def write_tar(path, files=CONTENT, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


GOOD = {
    "a.zip": write_zip,
    "stored.zip": lambda path: write_zip(path, compression=zipfile.ZIP_STORED),
    "a.tar.gz": write_tar,
    "a.tar": lambda path: write_tar(path, mode="w"),
    "a.tar.xz": lambda path: write_tar(path, mode="w:xz"),
    "a.tar.bz2": lambda path: write_tar(path, mode="w:bz2"),
}


@pytest.fixture(params=GOOD)
def good(request, tmp_path):
    return GOOD[request.param](tmp_path / request.param)


def contents(folder):
    return {name: content for name, content in tree(folder).items() if content is not None}


def test_everything_is_there_once_and_twice(good, tmp_path):
    before = good.read_bytes()
    for _ in range(2):
        assert unpack(good, tmp_path / "out") == 4
        assert contents(tmp_path / "out") == CONTENT
    assert good.read_bytes() == before


def test_chosen_and_renamed(good, tmp_path):
    def select(name):
        return "pictures/" + name.removeprefix("images/").upper() if name.startswith("images/") else None

    assert unpack(good, tmp_path / "out", select) == 2
    assert contents(tmp_path / "out") == {f"pictures/{n}.JPG": CONTENT[f"images/{n.lower()}.jpg"] for n in "AB"}


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_killed_before_each_step(tmp_path, name):
    archive = GOOD[name](tmp_path / name)
    unpack(archive, tmp_path / "undisturbed")
    kill_everywhere(lambda: unpack(archive, tmp_path / "out"), tmp_path / "out", tree(tmp_path / "undisturbed"))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_killed_in_the_middle_of_a_file(tmp_path, name, monkeypatch):
    def half(source, target, _):
        target.write(source.read(100))
        raise KeyboardInterrupt

    archive = GOOD[name](tmp_path / name)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfileobj", half)
        unpack(archive, tmp_path / "out")
    assert not contents(tmp_path / "out")
    (tmp_path / "out/.unpacking.part").write_bytes(b"what SIGKILL would have left")
    unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == CONTENT


def test_what_is_there_is_kept_or_refused(good, tmp_path):
    unpack(good, tmp_path / "out")
    inode = (tmp_path / "out/images/a.jpg").stat().st_ino
    (tmp_path / "out/images/b.jpg").unlink()
    unpack(good, tmp_path / "out")
    assert (tmp_path / "out/images/a.jpg").stat().st_ino == inode
    for other in (b"A" * 3000, b"short"):
        (tmp_path / "out/images/a.jpg").write_bytes(other)
        with pytest.raises(ValueError, match="images/a.jpg is there already and differs from"):
            unpack(good, tmp_path / "out")
        assert (tmp_path / "out/images/a.jpg").read_bytes() == other


HOSTILE = ["../x", "images/../../x", "/etc/x", "//x", "..", "C:/x", "c:x", "..\\x", "images\\..\\x", "a\0b", "a\nb", "x/..",
           "\x1b[2J"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("selected", [True, False])
def test_hostile_names_in_a_zip(tmp_path, name, selected):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("good.txt", b"good")
        info = zipfile.ZipInfo("harmless")
        info.filename = name
        file.writestr(info, b"bad")
    with pytest.raises(ValueError, match="leaves its folder"):
        unpack(tmp_path / "a.zip", tmp_path / "out", lambda name: name if selected or name == "good.txt" else None)
    assert not tree(tmp_path / "out"), "a zip is checked before its first byte is written"
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "out"]


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\0" not in name])
def test_hostile_names_in_a_tar(tmp_path, name):
    write_tar(tmp_path / "a.tar.gz", {"good.txt": b"good", name: b"bad"})
    with pytest.raises(ValueError, match="leaves its folder"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert tree(tmp_path / "out") == {"good.txt": b"good"}


def test_a_nul_hidden_in_an_extended_header(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        member = tarfile.TarInfo("x")
        member.pax_headers = {"path": "a\0b"}
        file.addfile(member)
    with pytest.raises(ValueError, match="leaves its folder"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


@pytest.mark.parametrize("chosen", ["../x", "/x", "", ".", "y/..", "C:x"])
def test_a_name_that_was_chosen_badly(good, tmp_path, chosen):
    with pytest.raises(ValueError, match="leaves its folder"):
        unpack(good, tmp_path / "out", lambda name: chosen)


def test_a_link_that_is_there_leads_nowhere(good, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="through a link"):
        unpack(good, tmp_path / "out")
    assert not os.listdir(tmp_path / "elsewhere")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip(tmp_path, mode):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo("x")
        info.external_attr = (mode | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"?"]
)
def test_links_and_devices_in_a_tar(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        member = tarfile.TarInfo("x")
        member.type, member.linkname = kind, "/etc/passwd"
        file.addfile(member)
        member = tarfile.TarInfo("x/y")
        file.addfile(member)
    with pytest.raises(ValueError, match="a link, a device or a sparse file"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not tree(tmp_path / "out")


@pytest.mark.parametrize("headers", [{"GNU.sparse.size": "99999999999", "GNU.sparse.map": "0,1"},
                                     {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9999"}])  # fmt: skip
def test_sparse_files_are_not_believed(tmp_path, headers):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        member = tarfile.TarInfo("x")
        member.pax_headers, member.size = headers, 512
        file.addfile(member, io.BytesIO(b"0\n".ljust(512, b"\0")))
    with pytest.raises(ValueError, match="sparse"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


@pytest.mark.parametrize("first, second", [("a.txt", "a.txt"), ("a.txt", "A.TXT"), ("a", "a/b"), ("a/b", "A"), ("a/b/c", "a/B"),
                                           ("\u00fc", "u\u0308"), ("stra\u00dfe", "strasse"), ("a", "./a")])  # fmt: skip
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_two_names_for_one_place(tmp_path, first, second, kind):
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "a", "w") as file, pytest.warns() if first == second else _nothing():
            file.writestr(first, b"1")
            file.writestr(second, b"2")
    else:
        with tarfile.open(tmp_path / "a", "w") as file:
            for name in (first, second):
                file.addfile(tarfile.TarInfo(name))
    with pytest.raises(ValueError, match="would overwrite another entry"):
        unpack(tmp_path / "a", tmp_path / "out")
    assert len(contents(tmp_path / "out")) <= 1


def test_two_files_may_not_be_renamed_into_one(good, tmp_path):
    with pytest.raises(ValueError, match="would overwrite"):
        unpack(good, tmp_path / "out", lambda name: "same")


def test_encrypted_and_strangely_compressed(tmp_path):
    for change, message in (
        (("flag_bits", 1), "is encrypted"),
        (("compress_type", 9), "of a kind that Python cannot read"),
    ):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr("x", b"secret")
            setattr(file.filelist[0], *change)
        with pytest.raises(ValueError, match=message):
            unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_bomb_that_says_what_it_is(tmp_path):
    write_zip(tmp_path / "a.zip", {"zeros": bytes(70 << 20)})
    write_tar(tmp_path / "a.tar.gz", {"zeros": bytes(70 << 20)})
    for name in ("a.zip", "a.tar.gz"):
        with pytest.raises(ValueError, match="claim to hold 73.4 MB, more than the 67.1 MB that are allowed"):
            unpack(tmp_path / name, tmp_path / "out")
        assert not tree(tmp_path / "out")
        assert unpack(tmp_path / name, tmp_path / "allowed", max_bytes=80 << 20) == 1


def test_a_bomb_of_many_empty_files(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as file:
        for i in range(300):
            file.addfile(tarfile.TarInfo(f"{i}"))
    with pytest.raises(ValueError, match="claim to hold"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", max_bytes=100_000)


def test_entries_that_share_their_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in "abc":
            file.writestr(name, b"kernel" * 1000)
        file.filelist[1].header_offset = file.filelist[0].header_offset
    with pytest.raises(ValueError, match="shares its bytes"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("size", [10, 5999])
def test_a_zip_that_lies_about_a_size_writes_no_more_than_it_said(tmp_path, size):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", b"kernel" * 1000)
        file.filelist[0].file_size = size
    with pytest.raises(ValueError, match="damaged, .* at 'a'"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not tree(tmp_path / "out")


@pytest.mark.parametrize("size", [1 << 40, -512])
def test_a_tar_with_an_impossible_size(tmp_path, size):
    member = tarfile.TarInfo("x")
    member.size = size
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match="claim to hold 1,099.5 GB|a header of -512 bytes"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_an_extended_header_that_would_fill_the_memory(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as file:
        member = tarfile.TarInfo("x")
        member.pax_headers = {"comment": "x" * (2 << 20)}
        file.addfile(member)
    with pytest.raises(ValueError, match="a header of 2,09"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_what_is_no_archive(tmp_path):
    for content in (b"", b"<!DOCTYPE html>", b"Rar!\x1a\x07"):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(ValueError, match="neither a zip nor a tar"):
            unpack(tmp_path / "a.zip", tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "nothing.zip", tmp_path / "out")


@pytest.mark.parametrize("keep", [0.999, 0.9, 0.6, 0.3])
def test_cut_short(good, tmp_path, keep):
    if good.suffix == ".tar":  # behind its last file there is only padding
        keep = min(keep, 0.5)
    size = int(good.stat().st_size * keep)
    os.truncate(good, size - size % 512 if good.suffix == ".tar" else size)
    with pytest.raises(ValueError, match="damaged"):
        unpack(good, tmp_path / "out")
    assert contents(tmp_path / "out").items() <= CONTENT.items()


def test_any_damage_is_one_clear_error(tmp_path):
    """Bytes changed at random: an error of one sentence or exactly the right files, and nothing else anywhere."""
    rng = random.Random(0)
    for name in ("a.zip", "stored.zip"):
        whole = GOOD[name](tmp_path / name).read_bytes()
        for trial in range(300):
            damaged = bytearray(whole)
            for _ in range(rng.choice((1, 1, 4))):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            (tmp_path / "damaged").write_bytes(damaged)
            out = tmp_path / f"out/{name}{trial}"
            try:
                unpack(tmp_path / "damaged", out)
            except (ValueError, RuntimeError) as error:
                assert "\n" not in str(error) and str(tmp_path / "damaged") in str(error)
            # a name may be damaged without anybody noticing, a content may not
            assert set(contents(out).values()) <= set(CONTENT.values())
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "damaged", "out", "stored.zip"]


def test_any_damage_of_a_tar_is_one_clear_error(tmp_path):
    rng = random.Random(0)
    whole = write_tar(tmp_path / "a.tar.gz").read_bytes()
    for trial in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(12, len(damaged))] ^= 1 << rng.randrange(8)
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged") as error:
            unpack(tmp_path / "damaged", tmp_path / f"out/{trial}")
        assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["a.tar.gz", "damaged", "out"]


def test_a_full_disk(good, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="are needed and 100 bytes are free"):
        unpack(good, tmp_path / "out")


def test_two_at_once(good, tmp_path):
    (tmp_path / "out").mkdir()
    with archives.locked(tmp_path / "out"), pytest.raises(RuntimeError, match="another process"):
        unpack(good, tmp_path / "out")


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False
