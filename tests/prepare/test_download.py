"""Downloads from a server that breaks off, corrupts, stalls and changes its mind."""

import hashlib
import os
import shutil

import numpy as np
import pytest

from lib.prepare.download import check_file, download
from tests.prepare.killing import finish, kill, start, wait_for
from tests.prepare.server import serving

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[:1000] + b"another version" + CONTENT[1015:]
FAST = dict(wait=0.001, timeout=5.0)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as served:
        served.files["/data.zip"] = CONTENT
        yield served


def broken_off(server, path, **checks):
    """Leave a part of 1 MB behind."""
    server.script = [{"stall": 1_000_000}]
    pid = start(lambda: download(f"{server.url}/data.zip", path, **FAST, **checks))
    part = path.with_name("data.zip.part")
    wait_for(lambda: part.exists() and part.stat().st_size == 1_000_000)
    kill(pid)
    server.asked.clear()


def test_a_file_arrives_whole_and_alone(server, tmp_path):
    path = download(f"{server.url}/data.zip", tmp_path / "new/data.zip", len(CONTENT), SHA256, **FAST)
    assert path == tmp_path / "new/data.zip" and path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["data.zip"]


def test_connections_that_break_are_continued(server, tmp_path):
    server.script = [{"stop": 1_000_000}, {"status": 503}, {"stop": 0}, {"stop": 500_000}]
    path = download(f"{server.url}/data.zip", tmp_path / "data.zip", retries=2, **FAST)
    assert path.read_bytes() == CONTENT and os.listdir(tmp_path) == ["data.zip"]
    assert server.asked == [("/data.zip", None, None)] + [
        ("/data.zip", f"bytes={start}-", '"one"') for start in (1_000_000, 1_000_000, 1_000_000, 1_500_000)
    ]


@pytest.mark.parametrize("after", [0, 1, 1_700_000, len(CONTENT) - 1])
def test_killed_and_started_again(server, tmp_path, after):
    server.script = [{"stall": after}]
    path, part = tmp_path / "data.zip", tmp_path / "data.zip.part"
    pid = start(lambda: download(f"{server.url}/data.zip", path, sha256=SHA256, **FAST))
    wait_for(lambda: (tmp_path / "data.zip.part.json").exists() and part.stat().st_size == after)
    kill(pid)
    assert download(f"{server.url}/data.zip", path, sha256=SHA256, **FAST).read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["data.zip"]
    assert server.asked[-1][1] == (f"bytes={after}-" if after else None)


def test_killed_after_the_last_byte_nothing_is_asked_for_again(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(CONTENT)
    download(f"{server.url}/data.zip", tmp_path / "data.zip", len(CONTENT), SHA256, **FAST)
    assert not server.asked


def test_a_server_that_knows_no_ranges_starts_over(server, tmp_path):
    broken_off(server, tmp_path / "data.zip")
    server.ranges = False
    assert download(f"{server.url}/data.zip", tmp_path / "data.zip", **FAST).read_bytes() == CONTENT


def test_and_without_ranges_it_does_not_try_for_ever(server, tmp_path):
    server.ranges, server.always = False, {"stop": 1000}
    with pytest.raises(OSError, match="1,000 of 3,000,000 bytes"):
        download(f"{server.url}/data.zip", tmp_path / "data.zip", retries=3, **FAST)
    assert len(server.asked) == 5


@pytest.mark.parametrize("if_range", [True, False], ids=["If-Range", "server ignores If-Range"])
@pytest.mark.parametrize("old, new", [({"ETag": '"one"'}, {"ETag": '"two"'}),
                                      ({"ETag": 'W/"same"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
                                       {"ETag": 'W/"same"', "Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"})])  # fmt: skip
def test_a_file_that_changed_is_not_mixed_with_the_old_one(server, tmp_path, old, new, if_range):
    server.headers = old
    broken_off(server, tmp_path / "data.zip")
    server.headers, server.files["/data.zip"], server.if_range = new, OTHER, if_range
    assert download(f"{server.url}/data.zip", tmp_path / "data.zip", **FAST).read_bytes() == OTHER


def test_a_file_of_another_length_is_another_file(server, tmp_path):
    broken_off(server, tmp_path / "data.zip")
    server.files["/data.zip"] = OTHER + b"more"
    assert download(f"{server.url}/data.zip", tmp_path / "data.zip", **FAST).read_bytes() == OTHER + b"more"


def test_without_a_version_only_a_checksum_allows_to_continue(server, tmp_path):
    server.headers = {}
    broken_off(server, tmp_path / "data.zip")
    assert download(f"{server.url}/data.zip", tmp_path / "data.zip", **FAST).read_bytes() == CONTENT
    assert server.asked == [("/data.zip", None, None)]
    broken_off(server, tmp_path / "more/data.zip", sha256=SHA256)
    download(f"{server.url}/data.zip", tmp_path / "more/data.zip", sha256=SHA256, **FAST)
    assert server.asked == [("/data.zip", "bytes=1000000-", None)]


def test_a_part_from_another_address_needs_a_checksum_too(server, tmp_path):
    server.files["/mirror/data.zip"] = OTHER
    broken_off(server, tmp_path / "data.zip")
    assert download(f"{server.url}/mirror/data.zip", tmp_path / "data.zip", **FAST).read_bytes() == OTHER
    server.files["/mirror/data.zip"] = CONTENT
    broken_off(server, tmp_path / "more/data.zip", sha256=SHA256)
    download(f"{server.url}/mirror/data.zip", tmp_path / "more/data.zip", sha256=SHA256, **FAST)
    assert server.asked == [("/mirror/data.zip", "bytes=1000000-", None)]


def test_a_part_that_is_whole_or_too_long(server, tmp_path):
    path, part = tmp_path / "data.zip", tmp_path / "data.zip.part"
    part.write_bytes(CONTENT)  # 416, and the size in the answer says that it is whole
    assert download(f"{server.url}/data.zip", path, sha256=SHA256, **FAST).read_bytes() == CONTENT
    path.unlink()
    part.write_bytes(CONTENT + b"more")  # 416, and it starts again
    assert download(f"{server.url}/data.zip", path, sha256=SHA256, **FAST).read_bytes() == CONTENT
    path.unlink()
    part.write_bytes(CONTENT + b"more")
    assert download(f"{server.url}/data.zip", path, len(CONTENT), SHA256, **FAST).read_bytes() == CONTENT
    assert [ask[1] for ask in server.asked] == ["bytes=3000000-", "bytes=3000004-", None, None]


def test_the_wrong_part_is_thrown_away(server, tmp_path):
    broken_off(server, tmp_path / "data.zip")
    server.script = [{"wrong_start": 999_999}]
    assert download(f"{server.url}/data.zip", tmp_path / "data.zip", **FAST).read_bytes() == CONTENT


def test_a_stalled_connection_is_dropped(server, tmp_path):
    server.script = [{"stall": 1_000_000}]
    path = download(f"{server.url}/data.zip", tmp_path / "data.zip", wait=0.001, timeout=0.3)
    assert path.read_bytes() == CONTENT and server.asked[1][1] == "bytes=1000000-"


@pytest.mark.parametrize("play", [{"chunked": True}, {"no_length": True}])
def test_answers_without_a_length(server, tmp_path, play):
    server.always = play
    assert download(f"{server.url}/data.zip", tmp_path / "data.zip", **FAST).read_bytes() == CONTENT
    server.script = [play | {"stop": 1_000_000}]
    path = download(f"{server.url}/data.zip", tmp_path / "more/data.zip", len(CONTENT), **FAST)
    assert path.read_bytes() == CONTENT
    with pytest.raises(ValueError, match="more than the 2,999,999 bytes"):
        download(f"{server.url}/data.zip", tmp_path / "short.zip", len(CONTENT) - 1, **FAST)


def test_a_damaged_download_is_removed_and_said(server, tmp_path):
    server.script = [{"corrupt": 2_000_000}]
    with pytest.raises(ValueError, match=f"expected is {SHA256}. The damaged download is removed: start again"):
        download(f"{server.url}/data.zip", tmp_path / "data.zip", sha256=SHA256, **FAST)
    assert not os.listdir(tmp_path)
    download(f"{server.url}/data.zip", tmp_path / "data.zip", sha256=SHA256.upper(), **FAST)


def test_a_file_that_is_there_is_checked_and_never_touched(server, tmp_path):
    path = tmp_path / "data.zip"
    path.write_bytes(OTHER)
    with pytest.raises(ValueError, match="was here before this download"):
        download(f"{server.url}/data.zip", path, sha256=SHA256)
    assert path.read_bytes() == OTHER and os.listdir(tmp_path) == ["data.zip"]
    path.write_bytes(CONTENT)
    assert download(f"{server.url}/data.zip", path, len(CONTENT), SHA256) == path
    assert not server.asked


def test_a_refusal_is_not_repeated(server, tmp_path):
    for status in (401, 403, 404, 410):
        server.script = [{"status": status}]
        with pytest.raises(OSError, match=f"the server answers {status} "):
            download(f"{server.url}/data.zip", tmp_path / "data.zip", **FAST)
    assert len(server.asked) == 4


def test_a_server_that_is_out_of_order_gets_some_more_chances(server, tmp_path):
    server.always = {"status": 500}
    with pytest.raises(OSError, match="answers 500"):
        download(f"{server.url}/data.zip", tmp_path / "data.zip", retries=2, **FAST)
    assert len(server.asked) == 3


def test_nobody_is_there(tmp_path):
    with serving() as server:
        url = server.url
    with pytest.raises(OSError, match="the connection broke"):
        download(f"{url}/data.zip", tmp_path / "data.zip", retries=1, **FAST)


def test_a_web_page_is_not_a_file(server, tmp_path):
    server.script = [{"html": True}]
    with pytest.raises(ValueError, match="web page instead of the file"):
        download(f"{server.url}/data.zip", tmp_path / "data.zip", **FAST)
    broken_off(server, tmp_path / "data.zip")
    server.script = [{"html": True}]  # and the sign-in page of a Wi-Fi costs nothing of what is there
    with pytest.raises(ValueError, match="web page"):
        download(f"{server.url}/data.zip", tmp_path / "data.zip", **FAST)
    assert (tmp_path / "data.zip.part").stat().st_size == 1_000_000


def test_another_size_is_refused_before_the_first_byte(server, tmp_path):
    with pytest.raises(ValueError, match="offers 3,000,000 bytes, expected are 5"):
        download(f"{server.url}/data.zip", tmp_path / "data.zip", 5, **FAST)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:,hello", "/etc/passwd", "http://", "http://a b/"]
)
def test_only_web_addresses(url, tmp_path):
    with pytest.raises(ValueError, match="only http and https"):
        download(url, tmp_path / "a")
    assert not os.listdir(tmp_path)


def test_redirections(server, tmp_path):
    server.script = [{"redirect": "/data.zip"}]
    assert download(f"{server.url}/moved", tmp_path / "data.zip", **FAST).read_bytes() == CONTENT
    for where, message in (("file:///etc/passwd", "not allowed"), ("ftp://127.0.0.1/a", "only http and https")):
        server.script = [{"redirect": where}]
        with pytest.raises((ValueError, OSError), match=message):
            download(f"{server.url}/moved", tmp_path / "a", **FAST)
    server.always = {"redirect": "/again"}
    with pytest.raises(OSError, match="answers 302"):
        download(f"{server.url}/moved", tmp_path / "a", **FAST)


def test_a_full_disk_is_noticed_before_the_first_byte(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2_900_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="3.0 MB are needed and 2.9 MB are free"):
        download(f"{server.url}/data.zip", tmp_path / "data.zip", **FAST)


def test_two_at_once_do_not_mix(server, tmp_path):
    server.script = [{"stall": 1000}]
    path, part = tmp_path / "data.zip", tmp_path / "data.zip.part"
    pid = start(lambda: download(f"{server.url}/data.zip", path, **FAST))
    wait_for(lambda: part.exists() and part.stat().st_size == 1000)
    with pytest.raises(RuntimeError, match="another process"):
        download(f"{server.url}/data.zip", path, **FAST)
    server.go_on.set()
    assert finish(pid) and path.read_bytes() == CONTENT


def test_check_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(CONTENT)
    check_file(path, len(CONTENT), SHA256)
    for checks, message in (
        ({"size": 4}, "3,000,000 bytes, expected are 4"),
    ):
        with pytest.raises(ValueError, match=message):
            check_file(path, **checks)
