"""The command line: what is misspelt is named, what is wrong is one sentence, every command can say what it takes."""

import re
import shlex
from functools import wraps
from importlib import import_module

import jsonargparse
import pytest
from torch.utils.data import DataLoader

from lib import ROOT, training
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
    assert main(["train", "--config", "lib/recipes/trt_pose_mini.yaml", "--out_dir", "unused", "--data.batch_sise=3"]) == 2
    assert "did you mean 'data.batch_size'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["synthetic", "unused", "--scene.heigth", "3"], "did you mean 'scene.height'?"),
        (["sweep", "grid.yaml", "--worker", "2"], "did you mean 'workers'?"),
        (["frames", "a.mp4", "b", "--select", "sharp"], "one of ['first', 'sharpest', 'blurriest']. Got value: sharp"),
        (["classify", "a.jpg", "--modle", "b"], "--modle b; did you mean 'model'?"),
        (["prepare", "cooc"], "'imagenet', 'mpii'"),
        (["doctor"], "required: file; see python -m lib doctor --help"),
        (["index", "nothing.json"], "nothing.json: no such file or directory"),
    ],
)
def test_what_cannot_be_understood_is_one_line(arguments, words, capsys):
    assert main(arguments) == (1 if arguments[0] == "index" else 2)
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_ctrl_c_is_one_word_and_a_status(monkeypatch, capsys):
    def stop(**_):
        raise KeyboardInterrupt("12 of 40 are written")

    monkeypatch.setattr("lib.data.split.split", stop)
    monkeypatch.setattr("jsonargparse.auto_cli", lambda function, **_: function())
    assert main(["split"]) == 130
    assert capsys.readouterr().err == "stopped: 12 of 40 are written\n"


def test_every_option_of_training_is_explained(capsys):
    for recipe in ("trt_pose_mini", "hrnet_mini"):
        with pytest.raises(SystemExit):
            main(["train", "--config", f"lib/recipes/{recipe}.yaml", "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert "usage: python -m lib train --config RECIPE" in text and "comes before what the recipe says" in text
        ours = re.findall(r"--((?:data|model)\.\w+) (?:[A-Z_]+|\{[^}]*\}|\[ITEM,...\]) (\S+)", text)
        assert len(ours) > 12 and not [name for name, first in ours if first.startswith(("(type", "(required"))]


PAGES = ("README.md", "data/README.md", "pretrained/README.md", "docs/coco-annotator/README.md")


def shown_commands() -> list[str]:
    """Every command that the pages show in a block, whole: without comments, and joined where a line goes on."""
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    lines = [part for line in blocks.replace("\\\n", " ").splitlines() for part in line.split("&&")]
    return sorted({line.strip() for line in lines if re.match(r"\s*(python|torchrun .*) -m lib ", line)})


@pytest.fixture
def only_parsed(monkeypatch):
    """Commands read their arguments, and do nothing."""

    def idle(function):
        return wraps(function)(lambda *_, **__: None)

    def built(cli):
        cli.model = cli.datamodule = None

    def command(arguments):
        training.parse(arguments)

    def chain(arguments):
        *_, recipe = (arguments[i + 1] for i, a in enumerate(arguments) if a == "--config")
        step = [a for i, a in enumerate(arguments) if a.startswith("--step") or arguments[i - 1] == "--step"]
        first = ["--step", "1"] if "steps" in training.read_recipe(ROOT / recipe) else []
        command([a for a in arguments if a not in step] + first)

    monkeypatch.setattr(training._Cli, "instantiate_classes", built)
    monkeypatch.setattr(training, "check", lambda arguments: command(["--out_dir", "runs/preflight", *arguments]))
    monkeypatch.setattr("lib.chain.main", chain)
    monkeypatch.setattr("lib.book.main", lambda *_, **__: 0)
    for name in ("predict.command.predict", "preannotate.command.preannotate", "classify.command.classify"):
        package, _, function = name.rpartition(".")
        module = import_module(f"lib.{package}")
        monkeypatch.setattr(module, function, idle(getattr(module, function)))
    parse = jsonargparse.auto_cli

    def parsed(function, **options):
        named = function if isinstance(function, dict) else {"": function}
        idle_ones = {name: idle(f) for name, f in named.items()}
        return parse(idle_ones if isinstance(function, dict) else idle_ones[""], **options)

    monkeypatch.setattr(jsonargparse, "auto_cli", parsed)


@pytest.mark.parametrize("line", shown_commands())
def test_what_the_pages_show_is_understood(line, only_parsed, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(line, comments=True)
    assert main(arguments[arguments.index("lib") + 1 :]) == 0, capsys.readouterr().err


def test_what_the_pages_show_is_really_looked_at(only_parsed, capsys):
    assert len(shown_commands()) > 40
    assert main(["predict", "a.mp4", "--model", "m.onnx", "--out", "o", "--track", "true"]) == 0
    for wrong in (["index", "a.json", "--oout", "b"], ["predict", "a.mp4", "--modle", "m", "--out", "o"],
                  ["train", "--config", "lib/recipes/hrnet_mini.yaml", "--out_dir", "x", "--trainer.max_epoch", "1"]):  # fmt: skip
        try:
            assert main(wrong) == 2
        except SystemExit as stopped:  # a parser of another kind
            assert stopped.code == 2
