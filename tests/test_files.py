"""Nobody sees half a file, and no name from a data file leads out of its folder."""

import errno
import os
import subprocess
import sys

import pytest

from lib import ROOT
from lib.files import beside, inside, write


def test_a_file_is_replaced_at_once(tmp_path):
    path = write(tmp_path / "new" / "a.txt", "old")
    with beside(path) as writing:
        writing.write_text("new")
        assert writing.suffix == ".txt" and path.read_text() == "old"
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = write(tmp_path / "a.txt", b"old")
    with pytest.raises(RuntimeError), beside(path) as writing:
        writing.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left on device: .*a.txt"), beside(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="^a sentence$"), beside(tmp_path / "a.txt"):
        raise OSError("a sentence")


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = "import os, signal, sys; from lib.files import beside\nwith beside(sys.argv[1]) as p: p.write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code, tmp_path / "a[1].txt"], cwd=ROOT, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    other = tmp_path / f".a[1].{os.getppid()}.part.txt"
    other.write_text("somebody who still writes")
    assert write(tmp_path / "a[1].txt", "done").read_text() == "done"
    assert set(tmp_path.iterdir()) == {tmp_path / "a[1].txt", other}


def test_names_stay_inside(tmp_path):
    assert inside(tmp_path, "a/b.jpg") == tmp_path / "a" / "b.jpg"
    assert inside(tmp_path, "a\\b.jpg") == tmp_path / "a" / "b.jpg"
    (tmp_path / "out").symlink_to(tmp_path.parent)
    for name in ("", ".", "../x", "a/../../x", "/etc/passwd", "C:\\x", "..\\x", "a\0b", "out/x"):
        with pytest.raises(ValueError, match="leaves"):
            inside(tmp_path, name)
