"""Sweeps over preferences: members alone and together, what is held out, and how they go on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")
pytest.importorskip("transformers", reason="the extra llm is not installed")

from tolerances import F32

from jaxpref._checks import InputError
from jaxpref.llm.checkpoints import load_model, save_model
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import initial_model
from jaxpref.llm.held_out import held_out_metrics, rows_in_parts, split_rows_by_prompt
from jaxpref.llm.losses import LossSettings
from jaxpref.llm.preference_sweep import (
    PreferenceMember,
    PreferenceSweepOptions,
    preference_batches,
    preference_grid,
    sweep_preferences,
)
from jaxpref.llm.reference import reference_logps
from jaxpref.llm.rows import Tokens, completion_lengths, pack_rows, row_widths
from jaxpref.llm.sweep_files import read_members
from jaxpref.llm.train_options import TrainOptions
from jaxpref.llm.trainer import train_preferences
from jaxpref.llm.training import Recipe

SHAPE = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 24,
    "tie_word_embeddings": True,
}
TRAINING = TrainOptions(batch_size=4, steps=5, micro_batch=2)
OPTIONS = PreferenceSweepOptions(training=TRAINING, held_out=0.25, block=2)
MEMBERS = [
    PreferenceMember(beta=0.1, learning_rate=1e-2, seed=0),
    PreferenceMember(beta=0.5, learning_rate=2e-2, seed=1, label_smoothing=0.2),
    PreferenceMember(beta=0.1, learning_rate=1e30, seed=0),
]


def encode(count=12, completions=2, prompts=None, seed=0, lengths=2):
    """Return rows of made-up tokens; every prompt is another unless their number is given."""
    rng, records = np.random.default_rng(seed), []
    for number in range(count):
        prompt = number if prompts is None else number % prompts
        words = tuple(
            np.random.default_rng(100 + prompt).integers(3, 40, 2 + prompt % lengths).tolist()
        )
        answers = tuple((*rng.integers(3, 40, 1 + n % 3).tolist(), 2) for n in range(completions))
        records.append(Tokens((1, prompt % 40, *words), answers, f"row {number}"))
    return pack_rows(records, max_length=24)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    return save_model(initial_model(decoder_config(SHAPE), jax.random.key(0)), folder)


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    """A sweep of three members: its folder, its records, its progress."""
    out, seen = tmp_path_factory.mktemp("sweeps") / "done", []
    records = sweep_preferences(
        model,
        encode(),
        MEMBERS,
        out=out,
        options=OPTIONS,
        progress=lambda n, total: seen.append((n, total)),
    )
    return out, records, seen


# -- what a member is ----------------------------------------------------------------------------


def test_a_grid_has_every_combination_once():
    grid = preference_grid(
        betas=[0.1, 0.2], learning_rates=[1e-5, 1e-4], seeds=range(3), label_smoothings=[0, 0.1]
    )
    assert len(grid) == 24 == len({member.name for member in grid})
    assert [member.seed for member in grid[:4]] == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"betas": [0.0]}, "beta: expected"),
        ({"learning_rates": [-1.0]}, "learning_rate: expected"),
        ({"seeds": [-1]}, "seed: expected"),
        ({"seeds": []}, "at least one"),
        ({"label_smoothings": [0.5]}, "label_smoothing: expected"),
        ({"betas": [0.1, 0.1]}, "beta=0.1 .* occurs twice"),
    ],
)
def test_a_grid_that_means_nothing_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        preference_grid(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"held_out": 0.0}, "held_out: expected a share above 0"),
        ({"held_out": 0.95}, "held_out: expected a share above 0"),
        ({"split_seed": -1}, "split_seed: expected"),
        ({"mode": "pmap"}, "mode: expected"),
        ({"block": 0}, "block: expected"),
        ({"training": TrainOptions(precision="bfloat16-stochastic")}, "precision: expected"),
    ],
)
def test_options_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        PreferenceSweepOptions(**change)


# -- what is held out ----------------------------------------------------------------------------


def test_records_of_a_prompt_are_held_out_together():
    rows = encode(30, prompts=10).rows
    for seed in range(5):
        split = split_rows_by_prompt(rows, 0.3, seed)
        assert sorted([*split.trained, *split.held_out]) == list(range(30))
        prompts = [{row % 10 for row in part} for part in split]
        assert not prompts[0] & prompts[1] and len(split.held_out) == 9
    assert len({tuple(split_rows_by_prompt(rows, 0.3, seed).held_out) for seed in range(5)}) > 1


def test_where_no_prompt_fits_the_share_the_smallest_is_held_out():
    records = [Tokens((1, prompt), ((2,), (3,))) for prompt in (5, 5, 5, 5, 6, 6, 6)]
    split = split_rows_by_prompt(pack_rows(records, max_length=8).rows, 0.1, seed=0)
    assert split.held_out.tolist() == [4, 5, 6]
    with pytest.raises(InputError, match="held_out: expected records of at least two prompts"):
        split_rows_by_prompt(pack_rows(records[:3], max_length=8).rows, 0.1, seed=0)


def test_no_member_sees_a_held_out_row_and_each_sees_all_others():
    split = split_rows_by_prompt(encode(13).rows, 0.25, 0)
    training = TrainOptions(batch_size=4, epochs=2)
    batches = preference_batches(MEMBERS, split.trained, training).batches
    weights = np.asarray(batches.weights)
    for number in range(len(MEMBERS)):
        seen = np.asarray(batches.rows)[number][weights[number] > 0]
        np.testing.assert_array_equal(np.sort(seen), np.repeat(split.trained, 2))
    np.testing.assert_array_equal(batches.rows[0], batches.rows[2])  # the same seed
    assert (batches.rows[0] != batches.rows[1]).any()


def test_held_out_rows_come_back_in_their_places():
    rows = encode(11, lengths=9).rows
    held = np.array([1, 4, 5, 8, 10])
    parts, answers, order = rows_in_parts(rows, held, 2)
    widths = [part.width for part in parts]
    assert len(widths) > 1 and widths == sorted(set(widths)) and len(answers) == len(parts)
    assert sorted(order[order >= 0]) == list(range(5))
    place = 0
    for part in parts:
        for piece in np.asarray(part.tokens).reshape(-1, part.width):
            own = order[place]
            if own >= 0:
                whole = rows.tokens[held[own]]
                np.testing.assert_array_equal(piece, whole[: part.width])
                assert not whole[part.width :].any()
            place += 1


def test_held_out_metrics_are_those_of_the_rewards_that_the_loss_compares():
    reference = np.array([[-4.0, -4.0, -4.0], [-1.0, -2.0, -3.0]])
    change = np.array([[2.0, -1.0, 0.0], [1.0, 3.0, 0.0]])
    given = (reference + change, reference, np.array([[1, 2, 4], [2, 2, 2]]))
    found = held_out_metrics("plackett_luce_dpo", *given, LossSettings(beta=0.5))
    assert found["accuracy"] == 0.5
    assert found["chosen_change"] == 1.5 and found["rejected_change"] == pytest.approx(0.5)
    assert found["reward_margin"] == pytest.approx(0.5 * 1.0)
    policy, before, lengths = (array[:, :2] for array in given)
    settings = LossSettings(beta=2.0, target_margin=0.5)
    simpo = held_out_metrics("simpo", policy, before, lengths, settings)
    rates = policy / lengths
    margins = 2.0 * (rates[:, 0] - rates[:, 1])
    assert simpo["reward_margin"] == pytest.approx(np.mean(margins))
    losses = np.log1p(np.exp(-(margins - 0.5)))
    assert simpo["loss"] == pytest.approx(np.mean(losses))
    assert simpo["loss_error"] == pytest.approx(np.abs(losses[0] - losses[1]) / 2)
    one = held_out_metrics("dpo", policy[:1], before[:1], lengths[:1], LossSettings())
    assert np.isnan(one["loss_error"])


# -- a sweep -------------------------------------------------------------------------------------


def test_a_sweep_returns_and_leaves_a_record_a_member(done):
    out, records, seen = done
    assert [record["name"] for record in records] == [member.name for member in MEMBERS]
    assert seen == [(0, 3), (2, 3), (3, 3)]
    assert list(read_members(out)) == [member.name for member in MEMBERS]
    assert [record["diverged"] for record in records] == [False, False, True]
    assert set(records[2]["held_out"].values()) == {None}
    stated = json.loads((out / "sweep.json").read_text())
    assert stated["rows"] == 9 and len(stated["held_out_records"]) == 3
    assert stated["options"]["held_out"] == 0.25 and "beta" not in stated["options"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_member_is_the_run_of_train_preferences(done, model, number):
    encoded, member = encode(), MEMBERS[number]
    split = split_rows_by_prompt(encoded.rows, OPTIONS.held_out, OPTIONS.split_seed)
    start = load_model(model)
    solo = train_preferences(
        start, encoded.rows.take(split.trained), options=member.options(TRAINING)
    )
    record = done[1][number]
    assert solo.steps == 5  # the last tenth of which is one
    for name, value in record["last_steps"].items():
        assert value == pytest.approx(solo.metrics[-1][name], rel=F32, abs=F32), name
    held, recipe = encoded.rows.take(split.held_out), Recipe(micro_batch=1)
    before, after = (
        reference_logps(start.graphdef, params, held, recipe=recipe).astype(np.float64)
        for params in (start.params, solo.model.params)
    )
    lengths = np.asarray(completion_lengths(held, 2))
    settings = LossSettings(beta=member.beta, label_smoothing=member.label_smoothing)
    expected = held_out_metrics("dpo", after, before, lengths, settings)
    moved = max(abs(expected["chosen_change"]), abs(expected["rejected_change"]))
    assert moved > 0.01, "nothing was learned to compare"
    for name, value in expected.items():
        assert record["held_out"][name] == pytest.approx(value, rel=F32, abs=F32), name


def test_a_sweep_goes_on_where_it_stopped_and_ends_in_the_same_bits(done, model, tmp_path):
    out = tmp_path / "stopped"
    shutil.copytree(done[0], out)
    lines = (out / "members.jsonl").read_text().splitlines(keepends=True)
    (out / "members.jsonl").write_text(lines[0] + lines[1][:50])  # died in a line
    seen = []
    records = sweep_preferences(
        model,
        encode(),
        MEMBERS,
        out=out,
        options=OPTIONS,
        resume=True,
        progress=lambda n, total: seen.append((n, total)),
    )
    assert seen == [(1, 3), (3, 3)]
    assert records == done[1]


def test_another_sweeps_folder_is_refused(done, model):
    def go_on(encoded, options):
        sweep_preferences(model, encoded, MEMBERS, out=done[0], options=options, resume=True)

    with pytest.raises(InputError, match=r"another held_out \(was 0.25, now 0.5\)"):
        go_on(encode(), replace(OPTIONS, held_out=0.5))
    with pytest.raises(InputError, match=r"another steps \(was 5, now 6\)"):
        go_on(encode(), replace(OPTIONS, training=replace(TRAINING, steps=6)))
    with pytest.raises(InputError, match="sweep of another data"):
        go_on(encode(seed=1), OPTIONS)
    with pytest.raises(InputError, match="not empty"):
        sweep_preferences(model, encode(), MEMBERS, out=done[0], options=OPTIONS)


def test_a_sweep_that_died_before_it_began_can_begin(model, tmp_path, monkeypatch):
    (tmp_path / "reference").mkdir()
    from jaxpref.llm import sweep_driver

    begun = []
    monkeypatch.setattr(sweep_driver, "_here", lambda *given: begun.append(given))
    with pytest.raises(KeyError):  # nothing ran, so nothing is there to return
        sweep_preferences(model, encode(), MEMBERS, out=tmp_path, options=OPTIONS)
    assert begun and (tmp_path / "sweep.json").is_file()


@pytest.mark.parametrize(
    ("given", "training", "message"),
    [
        ({"completions": 3}, {}, "loss: 'dpo' compares two completions, the rows hold 3"),
        ({"count": 4, "prompts": 1}, {}, "held_out: expected records of at least two prompts"),
        ({}, {"warmup": 5, "steps": None}, "warmup: expected fewer than the 3 steps; got 5"),
        ({}, {"attention": "cudnn"}, "attention: 'cudnn' needs"),
        ({}, {"loss": "ipo"}, "label_smoothing: 'ipo' does not read it"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(model, tmp_path, given, training, message):
    options = replace(OPTIONS, training=replace(TRAINING, **training))
    with pytest.raises(InputError, match=message):
        sweep_preferences(model, encode(**given), MEMBERS[:2], out=tmp_path / "o", options=options)
    assert not (tmp_path / "o").exists()


def test_the_loss_of_a_reward_model_is_refused_and_nothing_is_written(model, tmp_path):
    options = replace(OPTIONS, training=replace(TRAINING, loss="bradley_terry"))
    with pytest.raises(InputError, match="loss: 'bradley_terry' is that of a reward model"):
        sweep_preferences(model, encode(), MEMBERS[:1], out=tmp_path / "o", options=options)
    assert not (tmp_path / "o").exists()


def test_rows_longer_than_the_context_are_refused_and_nothing_is_written(model, tmp_path):
    records = [Tokens((1, n, *[5] * 20), ((7, 2), (8, 9, 7, 2))) for n in range(4)]
    encoded = pack_rows(records, max_length=40)
    with pytest.raises(InputError, match="max_length: expected at most the model's context, 24"):
        sweep_preferences(model, encoded, MEMBERS[:1], out=tmp_path / "out", options=OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("change", ["lora", "vmap", "rankings", "widths"])
def test_other_ways_find_the_same(model, tmp_path, change):
    """Adapters, rankings, members at once and rows cut to several widths, against runs alone."""
    from jaxpref.llm.lora import LoraOptions

    training, encoded = (
        TRAINING,
        encode(
            completions=3 if change == "rankings" else 2, lengths=9 if change == "widths" else 2
        ),
    )
    if change == "lora":
        training = replace(training, lora=LoraOptions(2))
    if change == "widths":
        training = replace(training, steps=24)
        assert len(row_widths(encoded.rows, 3)) == 2
    if change == "rankings":
        training = replace(training, loss="plackett_luce_dpo")
    mode = "vmap" if change == "vmap" else None
    members = [member._replace(label_smoothing=0.0) for member in MEMBERS[:2]]
    records = sweep_preferences(
        model,
        encoded,
        members,
        out=tmp_path / "out",
        options=replace(OPTIONS, training=training, mode=mode),
    )
    split = split_rows_by_prompt(encoded.rows, OPTIONS.held_out, OPTIONS.split_seed)
    for member, record in zip(members, records, strict=True):
        solo = train_preferences(
            load_model(model),
            encoded.rows.take(split.trained),
            completions=encoded.completions,
            options=member.options(training),
        )
        ends = solo.metrics[-max(1, solo.steps // 10) :]
        for name, value in record["last_steps"].items():
            expected = np.mean([step[name] for step in ends])
            assert value == pytest.approx(expected, rel=F32, abs=F32), name
