"""The program as a whole: help, version, exit codes, streams, and real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from jaxpref import __version__
from jaxpref.__main__ import main
from jaxpref._checks import ConvergenceError
from jaxpref.cli import _terminal
from jaxpref.cli._options import Fitting, Reading, grouped
from jaxpref.cli.app import app
from jaxpref.data import bundled_path

EXAMPLE = str(bundled_path("example1"))
COMMANDS = ("sensitivity", "region", "fit", "audit", "demo", "dpo", "sweep", "reproduce")


def run_process(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jaxpref", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert main([]) == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_that_names_its_options(command, capsys):
    assert main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxpref {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fitt"], "Did you mean 'fit'?"),
        (["fit"], "file"),
        (["fit", EXAMPLE, "--nonsense"], "--nonsense"),
        (["fit", EXAMPLE, "--ridge", "much"], "--ridge"),
        (["fit", EXAMPLE, "--top", "-1"], "--top"),
    ],
)
def test_bad_usage_is_two_with_one_line(arguments, said, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxpref: ") and said in err and "--help" in err
    assert err.count("\n") == 1


def test_not_converged_is_three(capsys):
    assert main(["fit", str(bundled_path("baseball")), "--max-steps", "1"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "max_steps" in err and "Traceback" not in err


def raising(error: BaseException):
    def demo():
        raise error

    return demo


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (ConvergenceError("no"), 3)]
)
def test_interruptions_end_quietly(error, code, capsys, monkeypatch):
    monkeypatch.setattr(app.registered_commands[0], "callback", raising(error))
    assert main(["demo"]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") <= 1


def test_what_is_no_users_fault_is_not_hidden(monkeypatch):
    monkeypatch.setattr(app.registered_commands[0], "callback", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["demo"])


def test_a_reader_that_leaves_ends_the_program_quietly(capsys, monkeypatch):
    def gone(text: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(_terminal.os, "dup2", lambda *_: None)
    monkeypatch.setattr(sys.stdout, "write", gone)
    assert main(["sensitivity", "--p-ik", "0.9", "--p-kj", "0.2", "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_grouped_options_reach_the_command_as_groups():
    seen = []

    @grouped
    def command(name: str, reading: Reading, fitting: Fitting, json: bool = False) -> None:
        seen.append((name, reading, fitting, json))

    command(name="x", winner="who", ties="half")
    assert seen == [("x", Reading(winner="who"), Fitting(ties="half"), False)]


# True processes


def test_a_process_prints_one_json_object_and_nothing_else():
    done = run_process("audit", EXAMPLE, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    content = json.loads(done.stdout)
    assert content["command"] == "audit"
    assert content["audit"]["top"][0]["sensitivity"] == pytest.approx(22.370343316289258, rel=1e-12)


def test_a_process_ends_without_a_traceback_on_bad_input(tmp_path):
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    done = run_process("fit", str(empty))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("jaxpref: ") and "empty" in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="pipes end differently there")
def test_a_process_whose_reader_leaves_is_quiet():
    code = f"{sys.executable} -m jaxpref --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_output_without_a_terminal_has_no_colour():
    done = run_process("sensitivity", "--p-ik", "0.99", "--p-kj", "0.02")
    assert done.returncode == 0
    assert "22.37" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_terminal_without_the_characters_gets_escapes():
    point = ("--p-ik", "0.5", "--p-kj", "0.5", "--link", "李")
    done = run_process("sensitivity", *point, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2
    assert "\\u674e" in done.stderr and "Traceback" not in done.stderr
