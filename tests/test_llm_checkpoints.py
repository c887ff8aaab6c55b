"""Checkpoints: every layout read alike, written so that transformers reads them, refused if odd."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

from flax import serialization
from golden.make_golden import CASES, tokens, torch_logits, write_checkpoint
from safetensors.numpy import load_file, save_file

from jaxpref import InputError
from jaxpref.llm import _folders as folders
from jaxpref.llm import checkpoints as module
from jaxpref.llm import (
    decoder_config,
    hidden_states,
    load_model,
    save_model,
    vocabulary_logits,
)
from jaxpref.llm._names import is_buffer, places

PARITY = 2e-5


def equal(first, second) -> bool:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def rewrite(folder: Path, change) -> None:
    """Let `change` edit the tensors of a folder's one file."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file(change(weights) or weights, path)


def reconfigure(folder: Path, **keys) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


@pytest.mark.parametrize("case", ["llama_biases", "llama2_tied", "gpt2"])
@pytest.mark.parametrize("shard", [10**9, 4000], ids=["one file", "shards"])
def test_what_is_written_is_read_back_bit_for_bit(case, shard, tmp_path):
    write_checkpoint(case, tmp_path)
    model = load_model(tmp_path)
    again = load_model(save_model(model, tmp_path / "again", max_shard_bytes=shard))
    assert again.config == model.config and again.graphdef == model.graphdef
    assert equal(again.params, model.params)
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > (shard == 4000)


@pytest.mark.parametrize("case", ["llama3_rope", "mistral_window", "gpt2"])
def test_transformers_computes_the_same_from_what_we_write(case, tmp_path):
    pytest.importorskip("torch", reason="torch is a reference for tests only")
    from transformers import AutoModelForCausalLM

    expected = write_checkpoint(case, tmp_path)
    save_model(load_model(tmp_path), tmp_path / "again", max_shard_bytes=4000)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    rows = tokens(theirs.config.vocab_size)
    assert np.abs(torch_logits(theirs.float().eval(), rows) - expected).max() < PARITY


@pytest.mark.parametrize("case", ["llama3_rope", "llama2_tied", "mistral_window", "gpt2"])
def test_flax_msgpack_reads_like_safetensors(case, tmp_path):
    write_checkpoint(case, tmp_path)
    model = load_model(tmp_path)
    tree = flax_tree(load_file(tmp_path / "model.safetensors"), gpt2=case == "gpt2")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    assert equal(load_model(tmp_path).params, model.params)


def flax_tree(weights, *, gpt2):
    """Return the tree that transformers 4.57.6 kept: kernels, embeddings, scales."""
    tree = {}
    for name, tensor in weights.items():
        *above, last = name.split(".")
        if above[-1] in ("embed_tokens", "wte", "wpe"):
            last = "embedding"
        elif last == "weight" and tensor.ndim == 2:
            last, tensor = "kernel", tensor.T
        elif last == "weight" and gpt2:
            last = "scale"
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = np.ascontiguousarray(tensor)
    return tree


@pytest.mark.parametrize("kind", [jnp.bfloat16, np.float16], ids=["bfloat16", "float16"])
def test_halves_are_read_and_written(kind, tmp_path):
    write_checkpoint("llama_theta", tmp_path, kind)
    wide, same = load_model(tmp_path), load_model(tmp_path, dtype=jnp.dtype(kind).name)
    assert equal(jax.tree.map(lambda p: p.astype(jnp.dtype(kind)), wide.params), same.params)
    written = save_model(same, tmp_path / "again")
    assert load_file(written / "model.safetensors")["model.norm.weight"].dtype == kind
    assert equal(load_model(written, dtype=jnp.dtype(kind).name).params, same.params)


def test_a_bare_gpt2_with_buffers_is_read(tmp_path):
    write_checkpoint("gpt2", tmp_path)
    model = load_model(tmp_path)

    def strip(weights):
        bare = {name.removeprefix("transformer."): w for name, w in weights.items()}
        return bare | {"h.0.attn.bias": np.tri(64, dtype=np.float32)[None, None]}

    rewrite(tmp_path, strip)
    assert equal(load_model(tmp_path).params, model.params)
    assert is_buffer("model.layers.0.self_attn.rotary_emb.inv_freq")


def test_a_tied_head_may_be_in_the_file_if_it_is_the_embedding(tmp_path):
    write_checkpoint("llama2_tied", tmp_path)
    model = load_model(tmp_path)
    embedding = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]
    rewrite(tmp_path, lambda w: w.update({"lm_head.weight": embedding}))
    assert equal(load_model(tmp_path).params, model.params)
    rewrite(tmp_path, lambda w: w.update({"lm_head.weight": embedding + 1}))
    with pytest.raises(InputError, match=r"lm_head.weight differs from model.embed_tokens.weight"):
        load_model(tmp_path)


def test_every_parameter_has_a_place_of_its_own(tmp_path):
    for case in CASES:
        write_checkpoint(case, tmp_path)
        config = load_model(tmp_path).config
        for flax in (False, True):
            found = [(place.name, place.part) for place in places(config, flax=flax).values()]
            assert len(set(found)) == len(found)


KEY = "model.layers.1.self_attn.k_proj.weight"


def test_a_missing_tensor_is_named_with_the_closest(tmp_path):
    write_checkpoint("llama_theta", tmp_path)
    rewrite(tmp_path, lambda w: w.update({KEY + "s": w.pop(KEY)}))
    expected = f"{tmp_path}: missing tensor {KEY}, .* \\(closest: '{KEY}s'"
    with pytest.raises(InputError, match=expected):
        load_model(tmp_path)


def test_an_unexpected_tensor_is_named_with_its_file(tmp_path):
    write_checkpoint("llama_theta", tmp_path)
    reconfigure(tmp_path, num_hidden_layers=1)
    with pytest.raises(InputError, match=r"model.safetensors: unexpected tensor model.layers.1"):
        load_model(tmp_path)


def test_a_config_that_disagrees_is_told_both_shapes(tmp_path):
    write_checkpoint("llama_theta", tmp_path)
    reconfigure(tmp_path, vocab_size=43)
    with pytest.raises(InputError, match=r"embed_tokens.weight: config.json says shape \(43, 24\)"):
        load_model(tmp_path)


def shards(tmp_path: Path) -> Path:
    write_checkpoint("llama_theta", tmp_path)
    return save_model(load_model(tmp_path), tmp_path / "shards", max_shard_bytes=20_000)


def test_a_missing_shard_is_named(tmp_path):
    folder = shards(tmp_path)
    gone = sorted(folder.glob("model-*"))[1]
    gone.unlink()
    with pytest.raises(InputError, match=f"{gone}: missing, and .*index.json says it holds"):
        load_model(folder)


@pytest.mark.parametrize("cut", [3, 1000], ids=["the last bytes", "much"])
def test_a_truncated_shard_is_named(cut, tmp_path):
    folder = shards(tmp_path)
    short = sorted(folder.glob("model-*"))[-1]
    short.write_bytes(short.read_bytes()[:-cut])
    with pytest.raises(InputError, match=f"{short}: expected a whole safetensors file"):
        load_model(folder)


def test_an_index_that_names_what_a_shard_lacks_is_refused(tmp_path):
    folder = shards(tmp_path)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    first, *_, last = sorted(set(index["weight_map"].values()))
    held = next(name for name, file in index["weight_map"].items() if file == last)
    index["weight_map"][held] = first
    path.write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"{first}: expected the tensor {re.escape(held)}"):
        load_model(folder)
    path.write_text("{}")
    with pytest.raises(InputError, match="expected an index with a weight_map"):
        load_model(folder)


def test_a_truncated_msgpack_is_named(tmp_path):
    write_checkpoint("llama_theta", tmp_path)
    tree = flax_tree(load_file(tmp_path / "model.safetensors"), gpt2=False)
    (tmp_path / "model.safetensors").unlink()
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(serialization.msgpack_serialize(tree)[:-100])
    with pytest.raises(InputError, match="flax_model.msgpack: expected a whole Flax msgpack file"):
        load_model(tmp_path)


def test_a_folder_without_weights_says_what_would_do(tmp_path):
    with pytest.raises(InputError, match="expected model.safetensors or flax_model.msgpack"):
        load_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pytorch_model.bin, which has to be converted"):
        load_model(tmp_path)
    save_file({"a": np.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="config.json: expected a config.json"):
        load_model(tmp_path)


def test_nothing_is_replaced_unasked_and_nothing_lost_on_a_full_disk(tmp_path, monkeypatch):
    write_checkpoint("llama_theta", tmp_path)
    model = load_model(tmp_path)
    target = save_model(model, tmp_path / "kept")
    with pytest.raises(InputError, match="or overwrite=True; it has files"):
        save_model(model, target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", full)
        with pytest.raises(InputError, match="kept: cannot be written: .*No space left"):
            save_model(model, target, overwrite=True)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["kept"]
    save_model(model, target, overwrite=True)
    assert equal(load_model(target).params, model.params)


KILLED = """
import os, pathlib, runpy, sys
folders = runpy.run_path(sys.argv[1])
made, target = map(pathlib.Path, sys.argv[2:])
first = os.rename
os.rename = lambda *paths: os._exit(9) if paths == (made, target) else first(*paths)
folders["replace_folder"](made, target)
"""


@pytest.mark.parametrize("shard", [10**9, 4000], ids=["one file", "shards"])
def test_nothing_is_lost_between_the_two_renames_that_replace_a_folder(shard, tmp_path):
    write_checkpoint("llama2_tied", tmp_path)
    old = load_model(tmp_path)
    new = old._replace(params=jax.tree.map(jnp.zeros_like, old.params))
    target = save_model(old, tmp_path / "kept", max_shard_bytes=shard)

    def kill():
        made = save_model(new, tmp_path / "made", max_shard_bytes=shard)
        child = [sys.executable, "-c", KILLED, folders.__file__, made, target]
        assert subprocess.run([str(part) for part in child], check=False).returncode == 9
        assert not target.exists()
        return made

    made = kill()
    assert equal(load_model(target).params, old.params) and equal(
        load_model(made).params, new.params
    )
    shutil.rmtree(made)
    shutil.rmtree(kill())
    with pytest.raises(InputError, match="or overwrite=True; it has files"):
        save_model(new, target)
    assert equal(load_model(target).params, old.params)
    shutil.rmtree(kill())
    assert decoder_config(target) == old.config
    save_model(new, target, overwrite=True, max_shard_bytes=shard)
    assert equal(load_model(target).params, new.params)
    names = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert names == {"kept"}  # and nothing stands aside


def test_a_rename_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    for name in ("made", "kept", ".kept.before"):  # the last of a process killed long ago
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    first = os.rename

    def rename(source, target):
        if source.name == "made":
            raise OSError(errno.EIO, "Input/output error")
        first(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(folders.os, "rename", rename)
        folders.replace_folder(tmp_path / "made", tmp_path / "kept")
    assert (tmp_path / "kept" / "name").read_text() == "kept"
    folders.replace_folder(tmp_path / "made", tmp_path / "kept")
    assert (tmp_path / "kept" / "name").read_text() == "made"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_tokenizer_files_come_along(tmp_path):
    write_checkpoint("llama_theta", tmp_path)
    model = load_model(tmp_path)
    with pytest.raises(InputError, match="expected a folder with tokenizer files"):
        save_model(model, tmp_path / "one", tokenizer_from=tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    written = save_model(model, tmp_path / "one", tokenizer_from=tmp_path)
    assert (written / "tokenizer.json").read_text() == "{}"


@pytest.mark.shared_data
def test_stories260k_has_its_published_loss(shared_data):
    from jaxpref.llm import encode_prompt, load_tokenizer

    folder = shared_data / "stories260K"
    model = load_model(folder)
    text = (
        "Once upon a time, there was a little girl named Lily. "
        "She loved to play with her toys in the park."
    )
    ids = encode_prompt(load_tokenizer(folder, config=model.config), text)
    rows = jnp.asarray([ids], jnp.int32)
    hidden = hidden_states(model.graphdef, model.params, rows)
    logps = jax.nn.log_softmax(vocabulary_logits(model.graphdef, model.params, hidden))[0, :-1]
    loss = -np.mean([float(logps[place, token]) for place, token in enumerate(ids[1:])])
    assert abs(loss - 0.2541) < 5e-5  # four digits are printed
