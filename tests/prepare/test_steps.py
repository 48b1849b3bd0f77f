"""The record of finished steps, room on the disk, and locks."""

import shutil

import pytest

from lib.files import locked
from lib.prepare.steps import Steps, readable, require_space
from tests.prepare.killing import start, wait_for


def test_steps_are_remembered_with_what_they_were_made_from(tmp_path):
    assert not Steps(tmp_path / "new").finished("pictures")
    Steps(tmp_path / "new").finish("pictures", size=3, name="ü", all=None)
    steps = Steps(tmp_path / "new")
    assert steps.finished("pictures") and steps.finished("pictures", size=3) and steps.finished("pictures", all=None)
    assert not steps.finished("pictures", size=4) and not steps.finished("pictures", more=1) and not steps.finished("x")
    assert steps.facts("pictures") == {"size": 3, "name": "ü", "all": None}
    steps.finish("pictures", size=4)
    steps.finish("labels")
    assert Steps(tmp_path / "new").facts("pictures") == {"size": 4} and Steps(tmp_path / "new").finished("labels")


def test_the_order_of_steps_leaves_no_trace(tmp_path):
    for folder, order in (("a", "xy"), ("b", "yx")):
        for step in order:
            Steps(tmp_path / folder).finish(step, size=1)
    assert (tmp_path / "a/prepared.yaml").read_bytes() == (tmp_path / "b/prepared.yaml").read_bytes()


@pytest.mark.parametrize(
    "text", [b"- a\n- b", b"{", b"\xff", b"pictures: yes", b"!!python/object/apply:os.system [ls]"]
)
def test_a_record_that_is_not_ours(tmp_path, text):
    (tmp_path / "prepared.yaml").write_bytes(text)
    with pytest.raises(ValueError, match="prepared.yaml is not a record of finished steps: delete it"):
        Steps(tmp_path)


def test_room(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage if path == tmp_path.resolve() else None)
    require_space(tmp_path / "not/there/yet", 5_000_000)
    with pytest.raises(
        OSError, match="yet: 7.0 MB are needed and 5.0 MB are free on its disk: make room for 2.0 MB more"
    ):
        require_space(tmp_path / "not/there/yet", 7_000_000)


def test_sizes_for_people():
    assert [readable(n) for n in (0, 999, 1000, 19_336_861_798, 2 * 10**15)] == [
        "0 bytes", "999 bytes", "1.0 kB", "19.3 GB", "2,000,000.0 GB"]  # fmt: skip


def test_a_lock_ends_with_its_process(tmp_path):
    def work():
        with locked(tmp_path):
            (tmp_path / "held").touch()
            wait_for(lambda: (tmp_path / "enough").exists())

    pid = start(work)
    wait_for((tmp_path / "held").exists)
    with pytest.raises(RuntimeError, match="another process"), locked(tmp_path):
        pass
    (tmp_path / "enough").touch()

    def free():
        try:
            with locked(tmp_path):
                return True
        except RuntimeError:
            return False

    wait_for(free)
    assert pid
