"""Adapters: they start as nothing, only they train, many share a base, and others can load them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

from tolerances import F32

from jaxpref._checks import InputError
from jaxpref.llm.checkpoints import save_model
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import LanguageModel, hidden_states, initial_model, vocabulary_logits
from jaxpref.llm.lora import (
    LoraOptions,
    adapted_graphdef,
    adapted_model,
    adapters_off,
    initial_adapters,
    join,
    merged_model,
)
from jaxpref.llm.lora_files import load_adapters, save_adapters
from jaxpref.llm.losses import LossSettings
from jaxpref.llm.population import MODES, Members, train_member, train_population
from jaxpref.llm.reference import reference_logps
from jaxpref.llm.resume import latest_checkpoint
from jaxpref.llm.rows import Tokens, completion_width, pack_rows
from jaxpref.llm.trainer import TrainOptions, train_preferences
from jaxpref.llm.training import Batches, Recipe

LLAMA = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
MODEL = initial_model(decoder_config(LLAMA), jax.random.key(0))
GPT2 = decoder_config(
    {"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2}
    | {"n_positions": 32}
)
OPTIONS = LoraOptions(rank=3, alpha=6.0)
TOKENS = jnp.array([[1, 5, 9, 30, 2]], jnp.int32)
ROWS = pack_rows(
    [Tokens((1, 5, 6 + row), ((10 + row, 2), (20 + row, 21, 2))) for row in range(8)],
    max_length=16,
).rows


def logits(model):
    return _logits(model.graphdef, model.params)


@partial(jax.jit, static_argnames="graphdef")
def _logits(graphdef, params):
    return vocabulary_logits(graphdef, params, hidden_states(graphdef, params, TOKENS))


def trained_like(config, options, seed=1):
    """Return adapters that do change something."""
    adapters = initial_adapters(config, options, jax.random.key(seed))
    leaves, structure = jax.tree.flatten(adapters)
    random = np.random.default_rng(seed)
    return structure.unflatten(
        [jnp.asarray(0.3 * random.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    )


# -- adapters on a decoder ------------------------------------------------------------------------


def test_adapters_change_nothing_at_first():
    adapters = initial_adapters(MODEL.config, OPTIONS, jax.random.key(1))
    adapted = adapted_model(MODEL, OPTIONS, adapters)
    np.testing.assert_array_equal(logits(adapted), logits(MODEL))
    merged = merged_model(MODEL, OPTIONS, adapters)
    for one, other in zip(*map(jax.tree.leaves, (merged.params, MODEL.params)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("config", [MODEL.config, GPT2], ids=["llama", "gpt2"])
def test_merged_is_adapted(config):
    model = initial_model(config, jax.random.key(0))
    adapters = trained_like(config, OPTIONS)
    adapted = logits(adapted_model(model, OPTIONS, adapters))
    assert float(jnp.max(jnp.abs(adapted - logits(model)))) > 0.1
    np.testing.assert_allclose(
        adapted, logits(merged_model(model, OPTIONS, adapters)), rtol=1e-4, atol=1e-5
    )


def test_a_projections_start_does_not_depend_on_the_others():
    key = jax.random.key(1)
    every = initial_adapters(MODEL.config, OPTIONS, key)["attention"]["value"]
    one = initial_adapters(MODEL.config, LoraOptions(rank=3, targets=("value",)), key)
    assert list(one) == ["attention"] and list(one["attention"]) == ["value"]
    np.testing.assert_array_equal(one["attention"]["value"]["lora_a"], every["lora_a"])
    assert float(jnp.max(jnp.abs(every["lora_a"]))) <= 0.25  # 1 / sqrt(16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 0}, "rank: expected"),
        ({"alpha": 0.0}, "alpha: expected"),
        ({"targets": ()}, "targets: expected at least one"),
        ({"targets": ("q_proj",)}, "targets: expected one of 'query'"),
        ({"targets": ("up", "up")}, "targets: expected each once"),
    ],
)
def test_bad_options_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        LoraOptions(**given)


def test_what_the_model_cannot_have_is_refused():
    with pytest.raises(InputError, match="rank: expected at most 16, the smaller side of query"):
        initial_adapters(MODEL.config, LoraOptions(rank=17), jax.random.key(0))
    with pytest.raises(InputError, match="targets: expected projections of a gpt2.*; got gate"):
        initial_adapters(GPT2, LoraOptions(targets=("gate",)), jax.random.key(0))
    more = MODEL._replace(params=join(MODEL.params, trained_like(MODEL.config, OPTIONS)))
    with pytest.raises(InputError, match="expected a plain language model"):
        adapted_model(more, OPTIONS, trained_like(MODEL.config, OPTIONS))


# -- training -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result():
    options = TrainOptions(learning_rate=1e-2, steps=6, batch_size=4, seed=1, lora=OPTIONS)
    return train_preferences(MODEL, ROWS, options=options)


def test_training_starts_at_log_2_and_only_the_adapters_move(result):
    """Trap 1, with adapters."""
    first, last = result.metrics[0], result.metrics[-1]
    assert first["loss"] == pytest.approx(math.log(2), rel=F32)
    assert first["reward_margin"] == 0 and first["grad_norm"] > 0
    assert last["loss"] < 0.99 * first["loss"]
    for part in result.adapters.values():
        assert all(np.any(pair["lora_b"]) for pair in part.values())
    for name in ("embedding", "head"):
        np.testing.assert_array_equal(result.model.params[name][...], MODEL.params[name][...])
    adapted = logits(adapted_model(MODEL, OPTIONS, result.adapters))
    np.testing.assert_allclose(logits(result.model), adapted, rtol=1e-3, atol=1e-4)


def test_a_run_goes_on_bit_for_bit_and_states_its_adapters(result, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total):
        if done >= 3:
            raise StopError

    options = TrainOptions(learning_rate=1e-2, steps=6, batch_size=4, seed=1, lora=OPTIONS)
    given = {"out": tmp_path, "save_every": 3}
    with pytest.raises(StopError):
        train_preferences(MODEL, ROWS, options=options, progress=stop, **given)
    last = latest_checkpoint(tmp_path / "checkpoints")
    assert last is not None  # what a run that goes on is held to
    assert last.record["settings"]["lora"] == {"rank": 3, "alpha": 6.0, "targets": None}
    again = train_preferences(MODEL, ROWS, options=options, resume=True, **given)
    for one, other in zip(*map(jax.tree.leaves, (again.adapters, result.adapters)), strict=True):
        np.testing.assert_array_equal(one, other)


# -- populations ----------------------------------------------------------------------------------

COUNT, STEPS, BATCH = 4, 3, 4
FEW = LoraOptions(rank=3, alpha=6.0, targets=("query", "down"))
RECIPE = Recipe(micro_batch=2, clip_norm=1.0, logit_width=completion_width(ROWS))


def population():
    """Members that differ in rows, labels, rates, beta and where their adapters start."""
    random = np.random.default_rng(1)
    shape = (COUNT, STEPS, BATCH)
    batches = Batches(
        jnp.asarray(random.integers(0, 8, shape), jnp.int32),
        jnp.ones(shape, jnp.float32),
        jnp.asarray(random.integers(0, 2, shape), jnp.float32),
        jnp.asarray(random.uniform(1e-3, 1e-2, shape[:2]), jnp.float32),
    )
    ones = np.ones(COUNT, np.float32)
    betas = np.linspace(0.1, 1, COUNT, dtype=np.float32)
    starts = [initial_adapters(MODEL.config, FEW, jax.random.key(k)) for k in range(COUNT)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    return Members(batches, LossSettings(betas, 0 * ones, ones, ones), stacked)


def keep(params, data):
    """Keep what is not the base's."""
    return [leaf for path, leaf in _by_path(params) if "lora" in path]


def _by_path(tree):
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in found]


@pytest.fixture(scope="module")
def shared():
    adapted = adapted_model(MODEL, FEW, adapters_off(MODEL.config, FEW))
    logps = reference_logps(adapted.graphdef, adapted.params, ROWS, recipe=RECIPE, batch_size=BATCH)
    return adapted.graphdef, MODEL.params, jax.tree.map(jnp.asarray, ROWS), jnp.asarray(logps)


@pytest.fixture(scope="module")
def alone(shared):
    graphdef, *rest = shared
    run = jax.jit(partial(train_member, graphdef, recipe=RECIPE, evaluation=keep))
    members = population()
    found = [
        run(*rest, jax.tree.map(lambda leaf, at=at: jnp.asarray(leaf[at]), members), None)
        for at in range(COUNT)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


@pytest.mark.parametrize(
    "mode", [pytest.param(m, marks=[pytest.mark.slow] * (m != "map")) for m in MODES]
)
def test_each_member_is_its_solo_run(shared, alone, mode):
    graphdef, params, rows, logps = shared
    how = {"recipe": RECIPE, "evaluation": keep, "mode": mode, "block": COUNT, "chunk": 2}
    blocks = train_population(graphdef, params, rows, logps, population(), **how)
    found = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(part for _, part in blocks))
    assert len(found.evaluation) == 4

    def parts(one):  # at a margin of 0 who is ahead is rounding
        return [*one.evaluation, *one.metrics._replace(accuracy=one.metrics.accuracy[:, 1:])]

    for one, other in zip(parts(found), parts(alone), strict=True):
        if mode == "map":
            np.testing.assert_array_equal(one, other)
        else:  # other batched products: Adam turns rounding of small gradients into more
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4)
    start = found.metrics.loss[:, 0]
    np.testing.assert_allclose(start, math.log(2), rtol=F32)


def test_the_base_is_not_copied_for_each_member(shared):
    """Under vmap no array of the program has an axis of members and the base's matrix."""
    graphdef, params, rows, logps = shared
    members = population()
    whole = replace(RECIPE, micro_batch=None)  # in twos, activations have the base's shapes
    one = partial(train_member, graphdef, recipe=whole, evaluation=keep)
    program = jax.make_jaxpr(
        lambda members: jax.vmap(lambda member: one(params, rows, logps, member, None))(members)
    )(members)
    shapes = {aval.shape for aval in _avals(program.jaxpr)}
    assert (COUNT, 2, 16, 3) in shapes  # the adapters have
    kernels = [(COUNT, 2, 16, 24), (COUNT, 16, 24), (COUNT, 40, 16)]
    assert not shapes & set(kernels), shapes & set(kernels)


def _avals(jaxpr):
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _avals(inner)


# -- files ----------------------------------------------------------------------------------------


def test_adapters_come_back_from_files(tmp_path):
    options = LoraOptions(rank=3, alpha=6.0, targets=("query", "down"))
    adapters = trained_like(MODEL.config, options)
    folder = save_adapters(adapters, options, MODEL.config, tmp_path / "adapter", base="base")
    found, again = load_adapters(folder, MODEL.config)
    assert found == options
    assert jax.tree.structure(again) == jax.tree.structure(adapters)
    for one, other in zip(*map(jax.tree.leaves, (again, adapters)), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(InputError, match="expected an empty folder"):
        save_adapters(adapters, options, MODEL.config, folder)
    save_adapters(adapters, options, MODEL.config, folder, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"LORA"', '"IA3"', "expected peft_type LORA"),
        ('"use_dora": false', '"use_dora": true', "use_dora: expected False; got True"),
        ('"r": 3', '"r": 4', r"expected shape \(4, 16\); got \(3, 16\)"),
        ('"r": 3', '"r": "x"', "expected numbers r and lora_alpha"),
        ('"q_proj"', '"c_attn"', "target_modules: expected some of q_proj"),
        ('"down_proj"', '"up_proj"', "missing tensor .*up_proj.lora_A.weight"),
        ('"down_proj"', '"q_proj"', "unexpected tensor .*down_proj"),
        ("{", "", "expected adapter_config.json and"),
    ],
)
def test_adapters_half_understood_are_refused(tmp_path, old, new, message):
    options = LoraOptions(rank=3, targets=("query", "down"))
    save_adapters(trained_like(MODEL.config, options), options, MODEL.config, tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_adapters(tmp_path / "a", MODEL.config)


def test_gpt2_has_no_place_in_pefts_layout(tmp_path):
    options = LoraOptions(rank=2)
    with pytest.raises(InputError, match="fused projections of a gpt2"):
        save_adapters(trained_like(GPT2, options), options, GPT2, tmp_path / "a")


def test_transformers_loads_the_merged_model(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers")
    adapters = trained_like(MODEL.config, OPTIONS)
    save_model(merged_model(MODEL, OPTIONS, adapters), tmp_path / "merged")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        found = theirs(torch.tensor(np.asarray(TOKENS))).logits.numpy()
    ours = logits(adapted_model(MODEL, OPTIONS, adapters))
    np.testing.assert_allclose(found, ours, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own
def test_peft_computes_what_we_do(tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers")
    adapters = trained_like(MODEL.config, OPTIONS)
    save_model(MODEL, tmp_path / "base")
    save_adapters(adapters, OPTIONS, MODEL.config, tmp_path / "adapter")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        found = theirs(torch.tensor(np.asarray(TOKENS))).logits.numpy()
    ours = logits(adapted_model(MODEL, OPTIONS, adapters))
    np.testing.assert_allclose(found, ours, rtol=1e-3, atol=1e-4)
    theirs.save_pretrained(tmp_path / "again")
    options, again = load_adapters(tmp_path / "again", MODEL.config)
    assert options.rank == 3 and options.scale == 2
    for one, other in zip(*map(jax.tree.leaves, (again, adapters)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_graphdefs_of_equal_options_are_one_program():
    one, other = (adapted_graphdef(MODEL.config, LoraOptions(rank=3)) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert one != adapted_graphdef(MODEL.config, OPTIONS)
    assert isinstance(MODEL, LanguageModel)
