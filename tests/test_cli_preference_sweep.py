"""``jaxpref sweep --data``: what it prints, what it refuses, and how it goes on."""

from __future__ import annotations

import json

import jax
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")
pytest.importorskip("transformers", reason="the extra llm is not installed")

from test_cli_dpo import PAIRS, SHAPE, write_tokenizer

from jaxpref.cli import app
from jaxpref.cli._preference_sweep import ranked, table
from jaxpref.llm.checkpoints import save_model
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import initial_model
from jaxpref.llm.sweep_files import read_members

RUN = ("--steps", "3", "--batch-size", "2", "--held-out", "0.4", "--seeds", "2", "--block", "2")
SEVERAL = [
    {**pair, "prompt": f"{pair['prompt']} {more}"} for pair in PAIRS for more in ("a dog", "i like")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, its tokenizer and a file of pairs."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "words").mkdir()
    size = write_tokenizer(folder / "words")
    model = initial_model(decoder_config({**SHAPE, "vocab_size": size}), jax.random.key(0))
    save_model(model, folder / "model", tokenizer_from=folder / "words")
    write(folder / "pairs.jsonl", SEVERAL)
    return folder


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def sweep(folder, capsys):
    """Return what runs the command: exit code, standard output, standard error."""

    def run(*arguments, data="pairs.jsonl"):
        given = ("--data", str(folder / data)) if data else ()
        code = app.run(["sweep", "--model", str(folder / "model"), *given, *map(str, arguments)])
        written = capsys.readouterr()
        return code, written.out, " ".join(written.err.split())

    return run


def test_it_compares_policies_on_held_out_records_and_goes_on(sweep, folder, tmp_path):
    out = tmp_path / "out"
    code, printed, errors = sweep("--out", out, *RUN, "--betas", ".1,.2", "--json")
    assert (code, errors) == (0, "")
    content = json.loads(printed)
    asked = [(record["member"]["beta"], record["member"]["seed"]) for record in content["members"]]
    assert asked == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    assert (content["rows"], content["held_out"], content["left_out"]) == (4, 2, {})
    least = min(content["members"], key=lambda record: record["held_out"]["loss"])
    assert content["best"] == least["name"]
    stated = json.loads((out / "sweep.json").read_text())
    assert stated["files"] == str(folder / "pairs.jsonl") and stated["rows"] == 4

    code, printed, errors = sweep("--out", out, *RUN, "--betas", ".1,.2")
    assert (code, printed) == (2, "")
    assert "--out: " in errors and "--resume" in errors

    # Two members are new to the folder: those whose rate no training survives.
    more = ("--betas", ".1", "--learning-rates", "1e-4,1e30", "--resume")
    code, printed, errors = sweep("--out", out, *RUN, *more)
    assert code == 3 and "rate=1e+30" in errors and "and 1 more" in errors
    kept = read_members(out)
    assert len(kept) == 6
    assert [kept[record["name"]] for record in content["members"]] == content["members"]
    lines = [line.split() for line in printed.splitlines() if "0.0001" in line or "1e+30" in line]
    assert len(lines) == 4 and float(lines[0][2]) <= float(lines[1][2])
    assert [line[2:] for line in lines[2:]] == [["-"] * 6] * 2
    words = " ".join(printed.split())
    assert "4 records to train on, 2 held out." in words
    assert "All: dpo, beta 0.1, smooth 0." in words


def test_the_table_says_where_losses_cannot_be_compared():
    members = [
        {"beta": beta, "learning_rate": 1e-4, "label_smoothing": 0.0, "target_margin": 1.0}
        | {"sft_weight": 1.0, "seed": 0}
        for beta in (0.1, 0.2, 0.3)
    ]
    names = ("loss", "loss_error", "accuracy", "reward_margin", "chosen_change", "rejected_change")
    records = [
        {"member": member, "held_out": dict.fromkeys(names, loss)}
        for member, loss in zip(members, (None, 0.5, 0.25), strict=True)
    ]
    assert [record["member"]["beta"] for record in ranked(records)] == [0.3, 0.2, 0.1]
    found = table(records, "dpo")
    assert found.rows == (("0.3", *["0.25"] * 6), ("0.2", *["0.5"] * 6), ("0.1", *["-"] * 6))
    assert "compare policies" not in found.note and "smooth 0, seed 0." in found.note
    assert "The loss changes with beta: compare policies" in table(records, "ipo").note


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--p23", ".5"), "--p23: of the paper's animals; expected without --data"),
        (("--pairs", "8", "--no-chat"), "--pairs, --chat: of the paper's animals"),
        (("--compute-dtype", "bfloat16"), "--compute-dtype: of the paper's animals"),
        (("--betas", "0"), "--beta: expected a finite number above 0"),
        (("--beta", "much"), "--beta: expected numbers, or start:end:step"),
        (("--learning-rates", "1e-4,1e-4"), "occurs twice"),
        (("--seeds", "0"), "--seeds: expected a whole number"),
        (("--label-smoothing", ".7"), "--label-smoothing: expected a number in [0, 0.5)"),
        (("--target-margin", "2"), "--target-margin: expected with --loss simpo; got dpo"),
        (("--loss", "sft", "--beta", ".1,.2"), "--beta: 'sft' does not read it"),
        (("--loss", "dop"), "--loss: expected one of"),
        (("--loss", "bradley_terry"), "--loss: 'bradley_terry' is that of a reward model"),
        (("--loss", "kto_pair", "--accumulate", "2"), "--accumulate: 'kto_pair' needs the whole"),
        (("--held-out", "0"), "--held-out: expected a share above 0 and at most 0.9"),
        (("--split-seed", "-1"), "--split-seed: expected a whole number"),
        (("--precision", "bfloat16-stochastic"), "--precision: expected 'float32' or 'bfloat16'"),
        (("--steps", "2", "--warmup", "2"), "--warmup: expected fewer than the 2 steps; got 2"),
        (("--epochs", "1", "--warmup", "9"), "--warmup: expected fewer than the 1 steps; got 9"),
        (("--max-length", "65"), "--max-length: expected at most the model's context, 64; got 65"),
        (("--mode", "pmap"), "--mode: expected"),
        (("--processes", "0"), "--processes: expected"),
        (("--lora", "0"), "--lora: expected"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(sweep, tmp_path, arguments, message):
    code, printed, errors = sweep("--out", tmp_path / "out", *arguments)
    assert (code, printed) == (2, "")
    assert message in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--held-out", ".2"), "--held-out: of a user's own preferences; expected together with"),
        (("--steps", "3", "--remat", "full"), "--steps, --remat: of a user's own preferences"),
        (("--too-long", "drop"), "--too-long: of a user's own preferences"),
    ],
)
def test_options_of_preferences_need_preferences(sweep, tmp_path, arguments, message):
    code, printed, errors = sweep("--out", tmp_path / "out", *arguments, data=None)
    assert (code, printed) == (2, "")
    assert message in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**PAIRS[0], "prompt": "a dog"}] * 3, "--held-out: expected records of at least two"),
        ([PAIRS[0], {**PAIRS[1], "rejected": "a dog"}], "bad.jsonl: line 2: equal responses"),
        ([PAIRS[0], {"prompt": "a dog", "chosen": "a dog"}], "expected the key 'rejected'"),
        (
            [
                {"prompt": prompt, "responses": ["a dog", "a bird", "i like"]}
                for prompt in ("a", "i", "do", "you")
            ],
            "--loss: 'dpo' compares two completions, the rows hold 3",
        ),
    ],
)
def test_records_that_will_not_do_are_refused(sweep, folder, tmp_path, rows, message):
    write(folder / "bad.jsonl", rows)
    code, printed, errors = sweep("--out", tmp_path / "out", data="bad.jsonl")
    assert (code, printed) == (2, "")
    assert message in errors
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_told(sweep, tmp_path):
    code, _, errors = sweep("--out", tmp_path / "out", data="none.jsonl")
    assert code == 2 and "none.jsonl" in errors


@pytest.mark.slow
def test_rankings_train_in_two_processes_with_adapters(sweep, folder, tmp_path):
    rows = [
        {"prompt": f"{first} {second}", "responses": ["a dog", "a bird", "i like a bird"]}
        for first in ("a", "i", "do")
        for second in ("you", "like")
    ]
    write(folder / "ranked.jsonl", rows)
    own = ("--loss", "plackett_luce_dpo", "--lora", "2", "--processes", "2", "--json")
    code, printed, errors = sweep("--out", tmp_path / "out", *RUN, *own, data="ranked.jsonl")
    assert (code, errors) == (0, "")
    assert len(json.loads(printed)["members"]) == 2
    assert sorted(path.name for path in (tmp_path / "out").glob("members*")) == [
        "members-1.jsonl",
        "members-2.jsonl",
    ]
