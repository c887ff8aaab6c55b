"""``--lora`` of ``jaxpref dpo`` and ``jaxpref sweep``: what is written, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")
pytest.importorskip("transformers", reason="the extra llm is not installed")

from animal_words import write_model

from jaxpref.cli import app
from jaxpref.llm.checkpoints import load_model
from jaxpref.llm.lora import merged_model
from jaxpref.llm.lora_files import load_adapters


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("lora") / "model")


@pytest.fixture
def run(model, capsys):
    """Return what runs a command on the model: exit code, standard output, standard error."""

    def run(command, *arguments):
        code = app.run([command, "--model", str(model), *map(str, arguments)])
        written = capsys.readouterr()
        return code, written.out, " ".join(written.err.split())

    return run


def test_dpo_leaves_the_adapter_and_the_model_with_it_merged(run, model, tmp_path):
    out = tmp_path / "out"
    data = ("--animals", "dog,cat,bird", "--pairs", "8", "--batch-size", "4", "--steps", "2")
    how = ("--lora", "2", "--lora-targets", "query,value", "--optimizer", "adamw8bit")
    rate = ("--learning-rate", "1e-2", "--schedule", "constant")
    code, printed, errors = run("dpo", "--out", out, *data, *how, *rate, "--json")
    assert (code, errors) == (0, "")
    assert json.loads(printed)["metrics"]["first"]["reward_margin"] == 0
    base = load_model(model)
    options, adapters = load_adapters(out / "adapter", base.config)
    assert (options.rank, options.targets) == (2, ("query", "value"))
    merged, written = merged_model(base, options, adapters), load_model(out / "model")
    for name in ("query", "key"):
        one, other = (m.params["layers"]["attention"][name]["kernel"] for m in (merged, written))
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    moved = written.params["layers"]["attention"]["query"]["kernel"][...]
    assert np.any(np.asarray(moved != base.params["layers"]["attention"]["query"]["kernel"][...]))


@pytest.mark.slow
def test_a_sweep_of_adapters_goes_on_only_as_one(run, tmp_path):
    out = tmp_path / "out"
    small = ("--out", out, "--pairs", "8", "--batch-size", "4", "--block", "2", "--p23", "0,1")
    code, printed, errors = run("sweep", *small, "--lora", "2", "--learning-rate", "1e-2", "--json")
    assert (code, errors) == (0, "")
    first, second = (record["learned"]["logit12"] for record in json.loads(printed)["members"])
    assert first != second
    code, _, errors = run("sweep", *small, "--learning-rate", "1e-2", "--resume")
    assert code == 2 and "holds a sweep of another lora" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lora", "0"), "--lora: expected"),
        (("--lora", "4000"), "--lora: expected at most"),
        (("--lora", "2", "--lora-alpha", "-1"), "--lora-alpha: expected"),
        (("--lora", "2", "--lora-targets", "q_proj"), "--lora-targets: expected one of 'query'"),
        (("--lora-targets", "query"), "--lora-targets: expected --lora RANK beside it"),
    ],
)
@pytest.mark.parametrize("command", ["dpo", "sweep"])
def test_bad_adapters_are_refused_before_anything_is_written(
    run, tmp_path, command, arguments, message
):
    data = ("--animals", "dog,cat,bird") if command == "dpo" else ()
    code, printed, errors = run(command, "--out", tmp_path / "out", *data, *arguments)
    assert (code, printed) == (2, "") and message in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--precision", "--optimizer"])
def test_a_precision_or_optimizer_that_is_none_is_refused(run, tmp_path, flag):
    animals = ("--animals", "dog,cat,bird")
    code, printed, errors = run("dpo", "--out", tmp_path / "out", *animals, flag, "sgd")
    assert (code, printed) == (2, "") and f"{flag}: expected one of" in errors
