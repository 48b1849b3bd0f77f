"""The command line: what is misspelt is named, what is wrong is one sentence, every command can say what it takes."""

from importlib import import_module

import pytest
from torch.utils.data import DataLoader

from lib.__main__ import COMMANDS, main


def test_without_a_command_all_are_listed(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_and_helps(command, capsys):
    module, function, _ = COMMANDS[command]
    target = getattr(import_module(module), function)
    assert all(map(callable, target.values())) if isinstance(target, dict) else callable(target)
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_a_misspelt_command_names_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "'train'" in capsys.readouterr().err


def test_an_error_is_one_sentence_and_debug_shows_the_stack(tmp_path, capsys):
    arguments = ["neck", str(tmp_path / "nothing.json"), str(tmp_path / "out.json")]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "nothing.json" in error and "Traceback" not in error
    with pytest.raises(FileNotFoundError):
        main(["--debug", *arguments])


def test_an_error_in_a_process_that_reads_samples_is_one_sentence_too(monkeypatch, capsys):
    def read(**_):
        list(DataLoader([0], num_workers=1, collate_fn=broken))

    monkeypatch.setattr("lib.data.split.split", read)
    monkeypatch.setattr("jsonargparse.auto_cli", lambda function, **_: function())
    assert main(["split"]) == 1
    assert capsys.readouterr().err == "error: a.jpg: the image is cut off\n"


def broken(samples):
    raise ValueError("a.jpg: the image is cut off")


def test_a_misspelt_recipe_key_stops_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", "lib/recipes/trt_pose_mini.yaml", "--out_dir", "unused", "--data.batch_sise=3"])
    assert stop.value.code == 2
    assert "data.batch_size" in capsys.readouterr().err
