"""``jaxpref dpo``: what it writes, what it prints, what it refuses, how it goes on."""

from __future__ import annotations

import json
import shutil
from typing import Any

import jax
import pytest

pytest.importorskip("flax")
pytest.importorskip("transformers")

from jaxpref.cli import app  # noqa: E402
from jaxpref.cli.dpo import PreferenceData, _read  # noqa: E402
from jaxpref.llm.checkpoints import load_model, save_model  # noqa: E402
from jaxpref.llm.config import decoder_config  # noqa: E402
from jaxpref.llm.decoder import initial_model  # noqa: E402

SHAPE = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PAIRS = [
    {"prompt": "do you like a dog", "chosen": "i like a dog", "rejected": "a bird"},
    {"prompt": "a dog or a bird", "chosen": "a dog", "rejected": "i like a bird"},
    {"prompt": "do you like", "chosen": "a dog", "rejected": "a bird"},
]
USER = [{"role": "user", "content": "a dog or a bird"}]
A_DOG, A_BIRD = ({"role": "assistant", "content": text} for text in ("a dog", "a bird"))
RUN = ("--steps", "4", "--batch-size", "2", "--learning-rate", "1e-2")


def write_tokenizer(folder):
    """Write a tokenizer of whole words, made here."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [
        "<unk>",
        "<s>",
        "</s>",
        *sorted({w for p in PAIRS for t in p.values() for w in t.split()}),
    ]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, its tokenizer and a file of pairs."""
    folder = tmp_path_factory.mktemp("dpo")
    (folder / "words").mkdir()
    size = write_tokenizer(folder / "words")
    model = initial_model(decoder_config({**SHAPE, "vocab_size": size}), jax.random.key(0))
    save_model(model, folder / "model", tokenizer_from=folder / "words")
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)))
    return folder


@pytest.fixture
def dpo(folder, capsys):
    """Return what runs the command: exit code, standard output, standard error."""

    def run(*arguments, data="pairs.jsonl"):
        given = ("--data", str(folder / data)) if data else ()
        code = app.run(["dpo", "--model", str(folder / "model"), *given, *map(str, arguments)])
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


def test_it_trains_goes_on_and_leaves_what_transformers_loads(dpo, folder, tmp_path):
    out = tmp_path / "out"
    code, printed, errors = dpo("--out", out, *RUN, "--json")
    assert (code, errors) == (0, "")
    summary = json.loads(printed)
    assert (summary["steps"], summary["rows"]) == (4, 3)
    assert summary["metrics"]["first"]["reward_margin"] == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert (out / "model" / "tokenizer.json").is_file()
    from transformers import AutoConfig, AutoTokenizer

    assert AutoConfig.from_pretrained(out / "model").hidden_size == 16
    assert len(AutoTokenizer.from_pretrained(out / "model")("a dog")["input_ids"]) == 3
    start, end = load_model(folder / "model"), load_model(out / "model")
    assert start.config == end.config

    before = (out / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(out / "checkpoints" / "step-00000004")
    code, printed, errors = dpo("--out", out, *RUN, "--resume")
    assert (code, errors) == (0, "")
    assert "reward margin (nats)" in printed and "Written: " in printed
    assert (out / "model" / "model.safetensors").read_bytes() == before

    code, printed, errors = dpo("--out", out, *RUN, "--resume", "--beta", "0.3", "--seed", "1")
    assert (code, printed) == (2, "")
    assert "beta was 0.1, now 0.3" in errors and "seed was 0, now 1" in errors


def test_a_folder_in_use_is_refused_without_resume(dpo, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, errors = dpo("--out", tmp_path)
    assert code == 2 and "--out: " in errors and "is not empty" in errors
    code, _, errors = dpo("--out", tmp_path, "--resume")
    assert code == 2 and "holds no run to go on with" in errors
    code, _, errors = dpo("--out", tmp_path / "notes.txt")
    assert code == 2 and "is a file" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_wrong_model_is_told_before_the_data_are_read(dpo, folder, tmp_path):
    unread = ("--out", tmp_path / "out")
    code, printed, errors = dpo(*unread, "--model", tmp_path / "none", data="no-such-file.jsonl")
    assert (code, printed) == (2, "")
    assert "--model: expected a folder with a model; there is no" in errors
    code, _, errors = dpo(*unread, "--model", folder / "words", data="no-such-file.jsonl")
    assert code == 2 and "expected a config.json" in errors
    code, _, errors = dpo(*unread, data="no-such-file.jsonl")
    assert code == 2 and "no-such-file.jsonl" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--beta", "-1"), "--beta: expected a finite number above 0; got -1"),
        (("--label-smoothing", "0.7"), "--label-smoothing: expected a number in [0, 0.5)"),
        (("--loss", "dop"), "--loss: expected one of"),
        (("--loss", "bradley_terry"), "--loss: 'bradley_terry' is that of a reward model"),
        (("--loss", "kto_pair", "--accumulate", "2"), "--accumulate: 'kto_pair' needs the whole"),
        (("--attention", "cudnn"), "--attention: 'cudnn' needs a GPU"),
        (("--save-every", "0"), "--save-every: expected a whole number of at least 1; got 0"),
        (("--weight-decay", "nan"), "--weight-decay: expected a finite number"),
        (("--steps", "2", "--warmup", "2"), "--warmup: expected fewer than the 2 steps; got 2"),
        (
            ("--warmup", "3", "--batch-size", "2"),
            "--warmup: expected fewer than the 2 steps; got 3",
        ),
        (("--epochs", "3", "--warmup", "3"), "--warmup: expected fewer than the 3 steps; got 3"),
        (("--steps", "3", "--epochs", "2"), "--steps, --epochs: expected one of the two"),
        (("--max-length", "65"), "--max-length: expected at most the model's context, 64; got 65"),
        (("--max-length", "4"), "records: none can be used"),
        (("--too-long", "cut"), "--too-long: expected one of"),
        (("--animals", "dog,cat,bird"), "--data, --animals: expected one of the two; got both"),
        (("--p23", "0.5"), "--p23: expected together with --animals; got no --animals"),
        (("--data-seed", "0"), "--data-seed: expected together with --animals"),
        (("--rejected-template", "same"), "--rejected-template: expected together with --animals"),
        (("--plan", "--slots", "fixed"), "--slots: expected together with --animals"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(dpo, tmp_path, arguments, message):
    code, printed, errors = dpo("--out", tmp_path / "out", *arguments)
    assert (code, printed) == (2, "")
    assert message in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--data, --animals: expected one of the two; got neither"),
        (("--animals", "dog,cat"), "--animals: expected a permutation of dog, cat, bird"),
        (("--animals", "dog,cat,bird", "--p23", "1.5"), "--p23: expected a probability in [0, 1]"),
        (("--animals", "dog,cat,bird", "--pairs", "0"), "--pairs: expected a whole number"),
        (("--animals", "dog,cat,bird", "--nouns", "the"), "--nouns: expected one of 'article'"),
        (("--animals", "dog,cat,bird", "--slots", "same"), "--slots: expected one of 'random'"),
        (
            ("--animals", "dog,cat,bird", "--rejected-template", "own"),
            "--rejected-template: expected one of 'same', 'random'; got 'own'",
        ),
        (("--animals", "dog,cat,bird", "--unusable", "drop"), "--unusable: expected together with"),
    ],
)
def test_animal_data_that_cannot_be_is_refused(dpo, tmp_path, arguments, message):
    code, printed, errors = dpo("--out", tmp_path / "out", *arguments, data=None)
    assert (code, printed) == (2, "")
    assert message in errors


def test_the_animals_are_sampled_as_asked():
    from jaxpref.llm.animals import sample_pairs

    def records(**options):
        return _read(PreferenceData(animals="cat, dog,bird", pairs=30, **options)).records

    order = ("cat", "dog", "bird")
    left_out = sample_pairs(order, 0.99, 0.5, key=0, count=30)
    assert records() == left_out.records()
    given: dict[str, Any] = {"rejected_template": "random", "slots": "fixed"}
    asked = sample_pairs(order, 0.2, 0.7, key=4, count=30, **given)
    found = records(p12=0.2, p23=0.7, data_seed=4, nouns="bare", **given)
    assert found == asked.records(nouns="bare")
    assert not {record.prompt for record in found} <= {record.prompt for record in records()}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": USER, "chosen": [A_DOG], "rejected": [A_BIRD]},
            "prompt: expected text; got a conversation, and the tokenizer has no chat template",
        ),
        ({"prompt": "a dog", "chosen": "a dog", "rejected": "a dog"}, "equal responses"),
        ({"prompt": "a dog", "chosen": "", "rejected": "a dog"}, "an empty response"),
        ({"prompt": "a dog", "chosen": "a dog"}, "expected the key 'rejected'"),
    ],
)
def test_records_that_say_nothing_are_refused_with_their_line(dpo, folder, tmp_path, row, message):
    (folder / "bad.jsonl").write_text("\n".join(map(json.dumps, [PAIRS[0], row])))
    code, _, errors = dpo("--out", tmp_path / "out", data="bad.jsonl")
    assert code == 2
    assert "bad.jsonl: line 2" in errors and message in errors
    assert not (tmp_path / "out").exists()


def test_rankings_of_three_need_a_loss_for_them(dpo, folder, tmp_path):
    row = {"prompt": "a dog", "responses": ["a dog", "a bird", "i like a bird"]}
    (folder / "ranked.jsonl").write_text(json.dumps(row))
    code, _, errors = dpo("--out", tmp_path / "out", data="ranked.jsonl")
    assert code == 2 and "expected 'plackett_luce_dpo'" in errors
    assert not (tmp_path / "out").exists()


def test_prompts_longer_than_the_context_are_left_out_or_named(dpo, folder, tmp_path):
    long = {"prompt": "a dog " * 40, "chosen": "a dog", "rejected": "a bird"}
    (folder / "long.jsonl").write_text(json.dumps(long))
    code, _, errors = dpo("--out", tmp_path / "out", data="long.jsonl")
    assert code == 2 and "fills the context of 64 tokens" in errors
    code, _, errors = dpo("--out", tmp_path / "out", "--too-long", "error", data="long.jsonl")
    assert code == 2 and "long.jsonl: line 1" in errors


def test_a_model_that_is_not_whole_is_refused(dpo, folder, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(folder / "model", broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    data = ("--data", str(folder / "pairs.jsonl"), "--out", str(tmp_path / "out"))
    assert app.run(["dpo", "--model", str(broken), *data]) == 2
    assert "model.safetensors" in capsys.readouterr().err
    assert app.run(["dpo", "--model", str(tmp_path / "none"), *data]) == 2
    assert "none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# -- devices --------------------------------------------------------------------------------------


def test_a_plan_needs_no_folder_and_says_what_would_fit(dpo):
    code, printed, errors = dpo("--plan", *RUN)
    assert (code, errors) == (0, "")
    assert "optimizer" in printed and "Fits: " in printed and "6 N a token" in printed
    code, printed, errors = dpo("--plan", *RUN, "--json", "--memory", "80KB")
    found = json.loads(printed)
    assert code == 2 and not found["fits"]
    assert found["change"]["total_bytes"] <= 80_000 < found["total_bytes"]
    assert "--plan: takes " in errors and "it would take" in errors
    code, _, errors = dpo("--plan", *RUN, "--memory", "100B")
    assert code == 2 and "nothing that was tried makes it fit" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--out: expected a folder for what comes of it, or --plan"),
        (("--out", "x", "--mesh", "data=0"), "--mesh: expected AXIS=SIZE"),
        (("--out", "x", "--mesh", "fsdp=64"), "takes 64 devices; this run has"),
        (("--out", "x", "--mesh", "population=2"), "--mesh: expected data and fsdp"),
        (("--out", "x", "--memory", "1GiB"), "--memory: expected together with --plan"),
        (("--plan", "--memory", "much"), "--memory: expected a size as 139GiB or 80GB"),
        (("--out", "x", "--distributed", "x"), "--distributed: expected auto or HOST:PORT"),
        (("--plan", "--remat", "some"), "--remat: expected one of 'none', 'dots', 'full'"),
    ],
)
def test_devices_that_cannot_be_are_refused(dpo, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, printed, errors = dpo(*options)
    assert (code, printed) == (2, "")
    assert message in errors
    assert not list(tmp_path.iterdir())
