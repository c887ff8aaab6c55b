"""``jaxpref rewards score`` and ``train``: files in, files out, runs that go on, refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")
pytest.importorskip("transformers", reason="the extra llm is not installed")

from test_cli_dpo import PAIRS, SHAPE, write_tokenizer

from jaxpref._checks import DataError, InputError
from jaxpref.cli import app, reward_models
from jaxpref.llm import decoder_config, initial_model, load_tokenizer, save_model
from jaxpref.llm import reward_scoring as scoring
from jaxpref.llm.reward_models import load_reward_model, reward_model, save_reward_model
from jaxpref.llm.reward_rows import (
    Candidates,
    as_conversation,
    encode_candidates,
    read_candidates,
)
from jaxpref.llm.rows import Tokens

F32 = 5e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language model, a reward model on it, their tokenizer, and pairs."""
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "words").mkdir()
    size = write_tokenizer(folder / "words")
    shape = {**SHAPE, "vocab_size": size, "initializer_range": 0.5}
    plain = initial_model(decoder_config(shape), jax.random.key(0))
    save_model(plain, folder / "plain", tokenizer_from=folder / "words")
    made = reward_model(plain, 3 * np.random.default_rng(0).normal(size=16))
    save_reward_model(made, folder / "reward", tokenizer_from=folder / "words")
    write(folder / "pairs.jsonl", PAIRS)
    return folder


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


@pytest.fixture
def run(capsys):
    """Return what runs the program: exit code, standard output, standard error."""

    def run(*arguments):
        jax.config.update("jax_numpy_dtype_promotion", "standard")
        try:
            code = app.run(["rewards", *map(str, arguments)])
        finally:
            jax.config.update("jax_numpy_dtype_promotion", "strict")
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return run


def test_scores_feed_the_tables_and_are_not_computed_twice(run, folder, tmp_path):
    out = tmp_path / "scores.jsonl"
    arguments = ("score", "--model", folder / "reward", "--data", folder / "pairs.jsonl")
    code, text, _ = run(*arguments, "--out", out, "--json")
    assert code == 0
    found = json.loads(text)
    assert (found["records"], found["computed"], found["form"]) == (3, 6, "pairs")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    model = load_reward_model(folder / "reward")
    tokenizer = load_tokenizer(folder / "reward")
    names = ("chosen", "rejected")
    alone = scoring.score_sequences(
        model, [tokenizer.encode(pair["prompt"] + pair[name]) for pair in PAIRS for name in names]
    )
    found = [row[f"{name}_score"] for row in rows for name in names]
    assert np.abs(np.array(found) - alone).max() < F32
    code, text, _ = run("dominance", out, "--json")
    assert code == 0 and json.loads(text)["dominance"]["pairs"] == 3
    more = [*PAIRS, {"prompt": "a dog ", "chosen": "or", "rejected": "like"}]
    write(tmp_path / "more.jsonl", more)
    code, text, _ = run(*arguments[:3], "--data", tmp_path / "more.jsonl", "--out", out, "--json")
    assert code == 0
    assert [json.loads(text)[name] for name in ("computed", "reused")] == [2, 6]
    assert not list(tmp_path.glob(".*"))


def test_one_response_a_row_makes_a_file_for_quadruples(run, folder, tmp_path):
    words = ["a", "dog", "bird", "like", "a dog", "a dog"]
    rows = [{"prompt": "do you ", "response": w, "model": f"m{n}"} for n, w in enumerate(words)]
    write(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "out.jsonl"
    code, text, _ = run(
        "score", "--model", folder / "reward", "--data", tmp_path / "rows.jsonl", "--out", out,
        "--json",
    )  # fmt: skip
    found = json.loads(text)
    assert code == 0 and (found["computed"], found["reused"]) == (5, 0)
    assert any("2 responses have exactly the score" in note for note in found["notes"])
    code, text, _ = run("quadruples", out, "--json")
    assert code == 0 and json.loads(text)["scores"]["most_responses"] == 6


def test_prompts_of_one_response_are_told_with_the_option_they_need(tmp_path):
    rows = [{"prompt_id": p, "response_id": r, "score": s} for p, r, s in
            (("x", "1", 0.5), ("x", "2", 1.5), ("y", "1", 0.25))]  # fmt: skip
    write(tmp_path / "scores.jsonl", rows)
    (note,) = reward_models._notes(tmp_path / "scores.jsonl", [])
    assert note == "For --drop-lone: 1 prompt with one response, which compare nothing."


def test_training_learns_and_leaves_a_model_that_scores(run, folder, tmp_path):
    out = tmp_path / "run"
    arguments = (
        "train", "--model", folder / "plain", "--data", folder / "pairs.jsonl", "--out", out,
        "--steps", "12", "--batch-size", "3", "--learning-rate", "1e-2", "--held-out", "0",
        "--save-every", "6", "--json",
    )  # fmt: skip
    code, text, _ = run(*arguments)
    assert code == 0
    found = json.loads(text)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert abs(lines[0]["loss"] - np.log(2)) < F32  # a fresh head prefers nothing
    assert found["metrics"]["last"]["loss"] < 0.3 and found["held_out"] is None
    trained = load_reward_model(out / "model")
    code, text, _ = run(*arguments, "--resume")
    assert code == 0
    again = load_reward_model(out / "model")
    assert np.array_equal(trained.params["score"], again.params["score"])


def test_responses_are_rewritten_until_a_preference_flips(run, folder, tmp_path):
    random, words = np.random.default_rng(5), "do you like a dog or bird i".split()
    rows = [
        {
            "prompt": "do you like ",
            **{name: " ".join(random.choice(words, size=5)) for name in both},
        }
        for both in [("chosen", "rejected")] * 6
    ]
    write(tmp_path / "rows.jsonl", [{"prompt": "a", "chosen": "dog", "rejected": "dog"}, *rows])
    rule = ("--strong", "0.9", "--near", "0.8", "--tolerance", "0.1", "--weak", "0.4")
    start = ("rewrite", "--model", folder / "reward", "--data", tmp_path / "rows.jsonl")
    out = tmp_path / "flips.json"
    code, text, error = run(*start, *rule, "--most-edits", "5", "--insertions", "8", "--out", out)
    assert code == 0, error
    found = json.loads(out.read_text())
    assert found["tried"] == 6 >= found["strong"] >= found["near"] >= len(found["flips"]) > 0
    for flip in found["flips"]:
        assert flip["p_ik"] >= 0.9 and 0.7 < flip["p_i_prime_k"] < 0.9 and flip["p_kj"] <= 0.4
        assert flip["p_i_prime_j"] < 0.5 < flip["p_ij"]
        assert flip["i_prime"]["text"] != flip["i"]["text"] and flip["j"]["edits"] <= 5
    text = " ".join(text.split())
    assert f"6 pairs: {found['strong']} with p_ik >= 0.9" in text and "words changed" in text
    for arguments, message in (
        (("--strong", "1"), "--strong: expected a probability strictly between 0 and 1; got 1"),
        (("--near", "0.999"), "--near, --tolerance: expected p_i'k to stay between 1/2 and 1"),
        (("--out", tmp_path / "no" / "x.json"), "no such folder"),
        (("--max-length", "999"), "--max-length: expected at most the model's context, 64"),
    ):
        code, _, error = run(*start, *arguments)
        assert code == 2 and message in error, error
    write(tmp_path / "lone.jsonl", [{"prompt": "a", "responses": ["dog", "bird", "or"]}])
    code, _, error = run(*start[:3], "--data", tmp_path / "lone.jsonl")
    assert code == 2 and "line 1: expected a pair; got 3 responses" in error


@pytest.mark.slow
def test_rankings_train_with_plackett_luce_and_report_what_is_held_out(run, folder, tmp_path):
    rows = [
        {"prompt": f"do you {word}", "responses": ["a dog", "a bird", "or"]}
        for word in ("like", "a", "or", "bird")
    ]
    write(tmp_path / "ranked.jsonl", rows)
    arguments = ("train", "--model", folder / "reward", "--data", tmp_path / "ranked.jsonl")
    rest = ("--steps", "2", "--batch-size", "2", "--held-out", "0.5", "--json")
    code, text, _ = run(*arguments, "--out", tmp_path / "run", "--loss", "plackett_luce", *rest)
    assert code == 0 and json.loads(text)["held_out"]["pairs"] == 2
    code, _, message = run(*arguments, "--out", tmp_path / "no", *rest)
    assert code == 2 and "bradley_terry compares two responses, the rows hold 3" in message
    assert not (tmp_path / "no").exists()


def test_bad_input_is_refused_with_its_row(run, folder, tmp_path):
    good = {"prompt": "a", "chosen": "dog", "rejected": "bird"}
    for row, message in (
        ({"prompt": "a", "chosen": "dog"}, "line 2: expected the key 'rejected'"),
        ({"prompt": "a", "chosen": "", "rejected": "dog"}, "line 2: chosen: expected a response"),
        ({"chosen": "a", "rejected": "dog"}, "line 2: chosen: expected a prompt beside it"),
        ({"prompt": "a", "responses": "dog"}, "line 2: responses: expected a list"),
        (
            {"prompt": [{"role": "user", "content": "a"}], "chosen": "dog", "rejected": "or"},
            "line 2: prompt: expected text; got a conversation",
        ),
    ):
        write(tmp_path / "bad.jsonl", [good, row])
        out = tmp_path / "scores.jsonl"
        code, _, error = run(
            "score", "--model", folder / "reward", "--data", tmp_path / "bad.jsonl", "--out", out
        )
        assert code == 2 and message in error and not out.exists(), error
    for arguments, message in (
        (("--model", folder / "plain"), "expected a head for rewards"),
        (("--model", folder / "reward", "--max-length", "999"), "--max-length: expected at most"),
        (("--model", folder / "reward", "--out", folder / "pairs.jsonl"), "holds no scores of"),
        (
            ("--model", folder / "reward", "--out", tmp_path / "s.csv"),
            "in .jsonl or .ndjson",
        ),
        (("--model", folder / "reward", "--out", tmp_path / "s"), "for JSON lines; got 's'"),
    ):
        code, _, error = run("score", "--data", folder / "pairs.jsonl", *arguments)
        assert code == 2 and message in error, error
        assert not (tmp_path / "s").exists() and not (tmp_path / "s.csv").exists()
    pairs = ("--data", folder / "pairs.jsonl", "--held-out", "0", "--warmup", "9")
    code, _, error = run("train", "--model", folder / "plain", *pairs, "--out", tmp_path / "run")
    assert code == 2 and "--warmup: expected fewer than the 1 steps; got 9" in error
    assert not (tmp_path / "run").exists()


# Below the command ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(folder):
    """The reward model."""
    return load_reward_model(folder / "reward")


def test_buckets_and_padding_change_no_score(model):
    random = np.random.default_rng(1)
    sequences = [random.integers(1, 9, size=n).tolist() for n in (3, 17, 9, 40, 1, 16)]
    bucketed = scoring.score_sequences(model, sequences, batch_tokens=64)
    padded = scoring.score_sequences(model, sequences, batch_tokens=64, bucket=False)
    assert np.abs(bucketed - padded).max() < F32
    for bad, message in (([[1], []], r"sequences\[1\]: expected at least one"),
                         ([[1] * 65], "at most the model's context, 64"),
                         ([[1, 99]], r"expected ids in \[0, ")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            scoring.score_sequences(model, bad)


def test_a_stopped_run_goes_on_where_it_was(model, tmp_path, monkeypatch):
    records = [Tokens((1,), ((2, 3), (4,))), Tokens((1, 5), ((6,),))]
    whole = scoring.score_records(model, records)
    store = scoring.ScoreStore(tmp_path / "part")
    scoring.score_records(model, records[:1], store=store)
    with (tmp_path / "part").open("a") as file:
        file.write('["cut o')  # the writer died here
    again = scoring.ScoreStore(tmp_path / "part")
    result = scoring.score_records(model, records, store=again)
    assert (result.computed, result.reused) == (1, 2)
    assert np.allclose(np.concatenate(result.scores), np.concatenate(whole.scores), atol=F32)
    other = model._replace(params={**model.params, "score": model.params["score"] + 1})
    assert scoring.score_records(other, records, store=again).computed == 3
    # The same weights, used otherwise, are another model.
    rough = model._replace(config=replace(model.config, norm_eps=0.5))
    assert scoring.score_records(rough, records, store=again).computed == 3
    cut = model._replace(pad_token_id=3)
    assert scoring.score_records(cut, records, store=again).computed == 3


def test_a_score_that_is_no_number_names_its_record(model):
    broken = model._replace(params={**model.params, "score": model.params["score"] * np.nan})
    with pytest.raises(DataError, match="pairs.jsonl: line 7: expected a finite score; .* nan"):
        scoring.score_records(broken, [Tokens((1,), ((2,),), "pairs.jsonl: line 7")])


def test_sequences_are_cut_from_the_left_alike(folder):
    tokenizer = load_tokenizer(folder / "words")

    def encode(prompt, *responses, max_length):
        record = Candidates("p", ("1", "2"), tuple((prompt, r) for r in responses), "line 1")
        return encode_candidates([record], tokenizer, max_length=max_length)

    ids = {w: tokenizer.convert_tokens_to_ids(w) for w in ("do", "you", "like", "a", "dog", "or")}
    whole = encode("do you like ", "a dog", "or", max_length=9)
    assert whole.truncated == 0
    assert whole.records[0].prompt == (1, ids["do"], ids["you"], ids["like"])
    cut = encode("do you like ", "a dog", "or", max_length=5)
    assert cut.truncated == 1
    assert cut.records[0].prompt == (1, ids["you"], ids["like"])
    assert cut.records[0].completions == ((ids["a"], ids["dog"]), (ids["or"],))
    long = encode("do you ", "a dog or a dog or", "like", max_length=4).records[0]
    assert long.prompt == (1,) and long.completions[0] == (ids["a"], ids["dog"], ids["or"])


def test_prompts_of_several_files_are_told_apart(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    write(folder / "a.jsonl", [{"prompt": "Tea?", "response": word} for word in ("Yes", "No")])
    write(folder / "b.jsonl", [{"prompt": "2 + 2?", "response": "4"},
                               {"prompt": "Tea?", "response": "Now"},
                               {"prompt": "2 + 3?", "responses": ["5", "6"]}])  # fmt: skip
    found = read_candidates(folder)
    first, second, third = "a.jsonl: line 1", "b.jsonl: line 1", "b.jsonl: line 3"
    assert [record.prompt_id for record in found] == [first, first, second, first, third]
    assert len({(record.prompt_id, record.names) for record in found}) == 5
    assert [record.prompt_id for record in read_candidates(folder / "a.jsonl")] == ["line 1"] * 2


def test_dialogues_become_conversations_and_are_scored_whole(tmp_path):
    dialogue = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Tea?\n\nAssistant:"
    assert [m["content"] for m in as_conversation(dialogue)] == ["Hi", "Hello", "Tea?"]
    write(tmp_path / "hh.jsonl", [{"chosen": dialogue + " Yes", "rejected": dialogue + " Yes"}])
    (record,) = read_candidates(tmp_path / "hh.jsonl")
    assert record.paired and record.texts == ((dialogue, " Yes"),) * 2
    chat = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes"}]
    write(tmp_path / "chat.jsonl", [{"chosen": chat, "rejected": chat[:1]}])
    with pytest.raises(DataError, match="rejected: expected a conversation ending with"):
        read_candidates(tmp_path / "chat.jsonl")
