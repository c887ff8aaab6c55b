"""Sweeps: what a member sees, what a sweep leaves behind, and how it goes on."""

from __future__ import annotations

import json
import shutil
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")
pytest.importorskip("transformers", reason="the extra llm is not installed")

from animal_words import write_model
from tolerances import F32

from jaxpref._checks import InputError
from jaxpref.llm.animals import ORDERED_PAIRS, PERMUTATIONS, SUPPORT
from jaxpref.llm.sweep import (
    Member,
    SweepOptions,
    learned,
    member_batches,
    prepare,
    speaks_chat,
    sweep,
    sweep_grid,
)
from jaxpref.llm.sweep_files import append_members, read_members
from jaxpref.llm.tokenizers import load_tokenizer

sweeps = import_module("jaxpref.llm.sweep")  # the package has the function under this name
OPTIONS = SweepOptions(pairs=8, batch_size=4, block=2)
DOGS = ("dog", "cat", "bird")
MEMBERS = [
    *sweep_grid(omegas=[DOGS], p12=[0.99], p23=[0.0, 1.0], learning_rates=[1e-2]),
    Member(("bird", "dog", "cat"), 0.5, 0.5, seed=3, beta=0.3, learning_rate=1e30),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("sweep") / "model")


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    """A sweep of three members: its folder, its records, its progress."""
    out, seen = tmp_path_factory.mktemp("sweeps") / "done", []
    records = sweep(
        model, MEMBERS, out=out, options=OPTIONS, progress=lambda n, total: seen.append((n, total))
    )
    return out, records, seen


# -- what a member is ----------------------------------------------------------------------------


def test_a_grid_has_every_combination_once():
    grid = sweep_grid(omegas=PERMUTATIONS, p12=[0.99], p23=[0, 0.5, 1], seeds=[0, 1])
    assert len(grid) == 36 == len({member.name for member in grid})
    assert [member.p23 for member in grid[:3]] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p23": [0.5, 1.5]}, "p23: expected a probability"),
        ({"p12": [-0.1]}, "p12: expected a probability"),
        ({"omegas": [("dog", "dog", "cat")]}, "omega: expected a permutation"),
        ({"betas": [0.0]}, "beta: expected"),
        ({"learning_rates": [-1.0]}, "learning_rate: expected"),
        ({"seeds": [-1]}, "seed: expected"),
        ({"seeds": []}, "at least one"),
        ({"p23": [0.5, 0.5]}, "p23=0.5 .* occurs twice"),
    ],
)
def test_a_grid_that_means_nothing_is_refused(change, message):
    given = {"omegas": [DOGS], "p12": [0.99], "p23": [0.5], **change}
    with pytest.raises(InputError, match=message):
        sweep_grid(**given)


@pytest.mark.parametrize(
    "change", [{"pairs": 0}, {"nouns": "many"}, {"mode": "pmap"}, {"schedule": "up"}]
)
def test_options_are_checked(change):
    with pytest.raises(InputError, match=f"{next(iter(change))}: expected"):
        SweepOptions(**change)


def test_neighbours_differ_by_the_labels_that_p23_turns_and_by_nothing_else():
    options = SweepOptions(pairs=256, batch_size=16)
    grid = sweep_grid(omegas=[DOGS], p12=[0.99], p23=[0.0, 0.5, 1.0])
    batches = member_batches(grid, options).batches
    assert batches.rows.shape == (3, 16, 16) and options.steps == 16
    for number in (1, 2):
        np.testing.assert_array_equal(batches.rows[number], batches.rows[0])
    pair = np.unravel_index(batches.rows[0], SUPPORT)[1]
    names = np.asarray(ORDERED_PAIRS)[pair]
    assert not (np.sort(names, axis=-1) == [0, 2]).all(axis=-1).any()
    is_23 = (names > 0).all(axis=-1)
    cat_wins = (names[..., 0] == 1) ^ (np.asarray(batches.reversed) > 0)  # cat against bird
    share = [cat_wins[number][is_23].mean() for number in range(3)]
    assert share[0] == 0 and share[2] == 1 and 0.3 < share[1] < 0.7
    turned = np.asarray(batches.reversed)
    np.testing.assert_array_equal(turned[0][~is_23], turned[2][~is_23])


def test_seeds_and_orders_of_the_animals_sample_anew():
    options = SweepOptions(pairs=64, batch_size=16)
    grid = sweep_grid(omegas=PERMUTATIONS, p12=[0.5], p23=[0.5], seeds=[0, 1])
    rows = member_batches(grid, options).batches.rows
    assert len({np.asarray(row).tobytes() for row in rows}) == 12


def test_what_was_learned_is_told_in_the_members_own_order():
    mass = np.full((6, 2), 0.1)
    mass[ORDERED_PAIRS.index((2, 0))] = [0.6, 0.2]  # asked "bird or dog": bird 0.6, dog 0.2
    mass[ORDERED_PAIRS.index((0, 2))] = [0.1, 0.3]  # asked "dog or bird": dog 0.1, bird 0.3
    found = learned(Member(("bird", "dog", "cat"), 0.5, 0.5), np.log(mass))
    assert found["p12"] == pytest.approx(0.9 / 1.2)
    assert found["p12_by_direction"] == pytest.approx([0.75, 0.75])
    assert found["format_mass12"] == pytest.approx((0.8 + 0.4) / 2)
    assert found["p23"] == found["p13"] == pytest.approx(0.5)
    other = learned(Member(("dog", "cat", "bird"), 0.5, 0.5), np.log(mass))
    assert other["p13"] == pytest.approx(1 - found["p12"])


# -- a sweep -------------------------------------------------------------------------------------


def test_a_sweep_returns_and_leaves_a_record_a_member(done):
    out, records, seen = done
    assert [record["name"] for record in records] == [member.name for member in MEMBERS]
    assert seen == [(0, 3), (2, 3), (3, 3)]
    assert list(read_members(out)) == [member.name for member in MEMBERS]
    low, high, lost = records
    assert low["log_mass"] != high["log_mass"]  # two steps are too few to say in which direction
    assert low["last_steps"]["loss"] > 0 and not low["diverged"]
    assert lost["diverged"] and lost["learned"]["p13"] is None
    assert lost["member"]["omega"] == ["bird", "dog", "cat"]


def test_a_sweep_goes_on_where_it_stopped_and_ends_in_the_same_bits(done, model, tmp_path):
    out = tmp_path / "stopped"
    shutil.copytree(done[0], out)
    lines = (out / "members.jsonl").read_text().splitlines(keepends=True)
    (out / "members.jsonl").write_text(lines[0] + lines[2] + lines[1][:50])  # died in a line
    seen = []
    records = sweep(
        model,
        MEMBERS,
        out=out,
        options=OPTIONS,
        resume=True,
        progress=lambda n, total: seen.append((n, total)),
    )
    assert seen == [(2, 3), (3, 3)]
    assert records == done[1]
    assert len((out / "members.jsonl").read_text().splitlines()) == 3


def test_a_sweep_that_is_done_trains_nothing(done, model, monkeypatch):
    monkeypatch.setattr(sweeps, "run_members", None)
    assert sweep(model, MEMBERS, out=done[0], options=OPTIONS, resume=True) == done[1]


def test_another_sweeps_folder_is_refused(done, model, tmp_path):
    with pytest.raises(InputError, match="not empty"):
        sweep(model, MEMBERS, out=done[0], options=OPTIONS)
    other = SweepOptions(pairs=12, batch_size=4)
    with pytest.raises(InputError, match=r"another pairs \(was 8, now 12\)"):
        sweep(model, MEMBERS, out=done[0], options=other, resume=True)
    with pytest.raises(InputError, match="sweep of another model"):
        another = write_model(tmp_path / "another", seed=1)
        sweep(another, MEMBERS, out=done[0], options=OPTIONS, resume=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no sweep"):
        sweep(model, MEMBERS, out=tmp_path / "notes", options=OPTIONS, resume=True)
    with pytest.raises(InputError, match="is a file"):
        sweep(model, MEMBERS, out=tmp_path / "notes" / "mine.txt", options=OPTIONS)


def test_lines_are_whole_or_not_there(tmp_path):
    path = tmp_path / "members.jsonl"
    path.write_text('{"name": "a"}\n{"name": "b"}')  # whole but for its newline: not there yet
    assert list(read_members(tmp_path)) == ["a"]
    append_members(path, [{"name": "c", "value": float("nan")}])
    assert read_members(tmp_path)["c"] == {"name": "c", "value": None}
    path.write_bytes(b'{"name": "a"}\n\xff\xfe\n')  # no text
    with pytest.raises(InputError, match="line 2 is no record"):
        read_members(tmp_path)
    path.write_text('{"name": "a"}\n3\n')
    with pytest.raises(InputError, match="line 2 is no record"):
        read_members(tmp_path)
    with pytest.raises(InputError, match="cannot write"):
        append_members(tmp_path / "none" / "members.jsonl", [{"name": "c"}])


# -- chat models ---------------------------------------------------------------------------------


def test_a_chat_model_is_asked_in_its_template(model, tmp_path, monkeypatch):
    nothing = lambda *_, **__: np.zeros((3600, 2), np.float32)  # noqa: E731
    monkeypatch.setattr(sweeps, "reference_logps", nothing)
    talker = write_model(tmp_path / "talker", chat=True)
    assert speaks_chat(talker) and not speaks_chat(model)
    plain, chat = (prepare(talker, SweepOptions(chat=chat)) for chat in (False, True))
    ids = load_tokenizer(talker).get_vocab()
    opened, closed = ids["[INST]"], ids["[/INST]"]
    for setting, count in ((plain, 0), (chat, 1)):
        for rows in (setting.rows, setting.probe.rows):
            tokens, segments = np.asarray(rows.tokens), np.asarray(rows.segments)
            prompt = np.where(segments == 1, tokens, -1)
            assert ((prompt == opened).sum(axis=1) == count).all()
            assert ((prompt == closed).sum(axis=1) == count).all()
            assert ((tokens == 1).sum(axis=1) == 1).all(), "one beginning of sequence"


def test_a_chat_without_a_template_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="chat: expected a chat template"):
        sweep(model, MEMBERS, out=tmp_path / "out", options=SweepOptions(chat=True))
    assert not (tmp_path / "out").exists()


# -- several processes ---------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_find_what_one_finds(done, model, tmp_path):
    out = tmp_path / "two"
    records = sweep(model, MEMBERS, out=out, options=OPTIONS, processes=2)
    assert sorted(path.name for path in out.glob("members*")) == [
        "members-1.jsonl",
        "members-2.jsonl",
    ]
    for mine, theirs in zip(records, done[1], strict=True):
        mine_mass, their_mass = (
            jnp.asarray(np.asarray(r["log_mass"], float)) for r in (mine, theirs)
        )
        np.testing.assert_allclose(mine_mass, their_mass, rtol=F32, atol=F32)
        assert json.loads(json.dumps(mine))["member"] == theirs["member"]
    assert jax.config.read("jax_enable_x64")
