"""``jaxpref sweep``: what it prints, what it refuses, and how it goes on."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")
pytest.importorskip("transformers", reason="the extra llm is not installed")

from animal_words import write_model

from jaxpref.cli import app
from jaxpref.cli.sweep import numbers, table
from jaxpref.llm.sweep_files import read_members

SMALL = ("--pairs", "8", "--batch-size", "4", "--block", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("cli") / "model")


@pytest.fixture
def sweep(model, capsys):
    """Return what runs the command: exit code, standard output, standard error."""

    def run(*arguments):
        code = app.run(["sweep", "--model", str(model), *map(str, arguments)])
        written = capsys.readouterr()
        return code, written.out, " ".join(written.err.split())

    return run


def test_it_prints_what_was_learned_and_goes_on(sweep, tmp_path):
    out = tmp_path / "out"
    code, printed, errors = sweep("--out", out, *SMALL, "--p23", "0,1", "--json")
    assert (code, errors) == (0, "")
    content = json.loads(printed)
    assert [record["member"]["p23"] for record in content["members"]] == [0.0, 1.0]

    code, printed, errors = sweep("--out", out, *SMALL, "--p23", "0,1")
    assert (code, printed) == (2, "")
    assert "--out: " in errors and "--resume" in errors

    # The third member is new to the folder, and one whose rate no training survives.
    rest = ("--p23", "0,1", "--learning-rate", "1e-4,1e30", "--resume")
    code, printed, errors = sweep("--out", out, *SMALL, *rest)
    assert code == 3 and "rate=1e+30 and 1 more" in errors
    assert len(read_members(out)) == 4
    assert read_members(out)[content["members"][0]["name"]] == content["members"][0]
    lines = [line for line in printed.splitlines() if "0.0001" in line or "1e+30" in line]
    assert len(lines) == 4 and lines[-1].split()[-4:] == ["-"] * 4
    assert "All: order dog cat bird, p12 0.99, seed 0, beta 0.1" in " ".join(printed.split())


def test_the_table_has_a_column_for_what_varies():
    learned = {f"{kind}{pair}": 0.25 for kind in ("p", "format_mass") for pair in (12, 23, 13)}
    members = [
        {"omega": list(order), "p12": 0.9, "p23": 0.5, "seed": 0, "beta": 0.1, "learning_rate": 1}
        for order in (("dog", "cat", "bird"), ("cat", "dog", "bird"))
    ]
    found = table([{"member": member, "learned": learned} for member in members])
    assert found.rows == (
        ("dog cat bird", *["0.250"] * 4),
        ("cat dog bird", *["0.250"] * 4),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--p23", "0:1"), "--p23: expected numbers, or start:end:step"),
        (("--p23", "1:0:.1"), "--p23: expected numbers, or start:end:step"),
        (("--p23", "0:1:1e-9"), "--p23: expected numbers, or start:end:step"),
        (("--p23", "high"), "got 'high'"),
        (("--p23", "1.5"), "--p23: expected a probability in [0, 1]; got 1.5"),
        (("--p12", "nan"), "--p12: expected a probability in [0, 1]"),
        (("--permutations", "dog,cat"), "--permutations: expected a permutation of dog, cat, bird"),
        (("--seeds", "0"), "--seeds: expected a whole number of at least 1"),
        (("--beta", "0"), "--beta: expected"),
        (("--p23", ".5,.5"), "occurs twice"),
        (("--pairs", "0"), "--pairs: expected"),
        (("--batch-size", "0"), "--batch-size: expected"),
        (("--nouns", "many"), "--nouns: expected"),
        (("--mode", "pmap"), "--mode: expected"),
        (("--compute-dtype", "int8"), "--compute-dtype: expected one of 'float32', 'bfloat16'"),
        (("--processes", "0"), "--processes: expected"),
        (("--chat",), "--chat: expected a chat template"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(sweep, tmp_path, arguments, message):
    out = tmp_path / "out"
    code, printed, errors = sweep("--out", out, *arguments)
    assert (code, printed) == (2, "")
    assert message in errors
    assert not out.exists()


def test_a_model_that_is_none_is_refused(capsys, tmp_path):
    code = app.run(["sweep", "--model", str(tmp_path / "none"), "--out", str(tmp_path / "out")])
    assert code == 2 and "none: expected a folder" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_larger_than_the_embedding_is_refused(model, tmp_path, capsys):
    small = tmp_path / "small"
    shutil.copytree(model, small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "vocab_size": 5}))
    code = app.run(["sweep", "--model", str(small), "--out", str(tmp_path / "out")])
    assert code == 2 and "expected ids below 5" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_context_too_short_for_the_rows_is_refused(model, tmp_path, capsys):
    short = tmp_path / "short"
    shutil.copytree(model, short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 12}))
    code = app.run(["sweep", "--model", str(short), "--out", str(tmp_path / "out")])
    assert code == 2 and "context of 12 tokens" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_range_has_its_end():
    assert numbers("0:1:.05", "--p23") == [round(0.05 * step, 2) for step in range(21)]
    assert numbers(".99", "--p12") == [0.99]
