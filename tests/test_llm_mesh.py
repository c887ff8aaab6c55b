"""Meshes of devices: where parameters go, what is read of a file, runs on many devices as on one.

Devices are made up in processes of their own (``mesh_child.py``): here there is one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")

from jax.sharding import PartitionSpec  # noqa: E402

from jaxpref._checks import InputError  # noqa: E402
from jaxpref.llm import distributed  # noqa: E402
from jaxpref.llm._names import places  # noqa: E402
from jaxpref.llm._slices import read_parameter  # noqa: E402
from jaxpref.llm._tensors import open_tensors  # noqa: E402
from jaxpref.llm.checkpoints import load_model, save_model  # noqa: E402
from jaxpref.llm.config import decoder_config  # noqa: E402
from jaxpref.llm.decoder import LanguageModel, abstract_model  # noqa: E402
from jaxpref.llm.mesh import AXES, make_mesh, param_spec, parse_mesh  # noqa: E402
from jaxpref.llm.training import Recipe, init_state  # noqa: E402

CHILD = Path(__file__).with_name("mesh_child.py")
LLAMA = decoder_config(
    {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    }
)
GPT2 = decoder_config(
    {"model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 4}
    | {"n_positions": 32}
)
SAME = 1e-5  # what the sums of a step differ by, taken in another order by several devices


def run_child(*arguments, devices=1):
    """Start the child with so many devices of its own."""
    environment = {
        **os.environ,
        # Compiled with little effort: the devices are made up, and so is the speed.
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "PYTHONPATH": str(CHILD.parents[1]),
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen(
        [sys.executable, str(CHILD), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def of_eight(folder, what):
    """Return what the child prints on eight devices."""
    child = run_child(folder, what, devices=8)
    out, err = child.communicate(timeout=280)
    assert child.returncode == 0, err
    assert "rematerialization" not in err  # the partitioner gave up on some array
    return json.loads(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("eight")


@pytest.fixture(scope="module")
def eight(folder):
    return of_eight(folder, "eight")


@pytest.fixture(scope="module")
def moved(eight, folder):
    return of_eight(folder, "move")


# -- where things go ------------------------------------------------------------------------------


def test_matrices_and_their_moments_are_split_along_the_width():
    _, params = abstract_model(LLAMA, "float32")
    state = jax.eval_shape(lambda params: init_state(params, Recipe()), params)
    flat, _ = jax.tree_util.tree_flatten_with_path(state)
    for keys, leaf in flat:
        spec = param_spec(keys, leaf.shape, 4)
        matrix = leaf.ndim - ("layers" in str(keys)) == 2
        assert ("fsdp" in spec) == matrix, jax.tree_util.keystr(keys)
        if matrix:
            assert leaf.shape[spec.index("fsdp")] == LLAMA.hidden_size


def test_other_large_arrays_are_split_where_they_can_be():
    assert param_spec((), (1 << 16, 3), 4) == PartitionSpec("fsdp")
    assert param_spec((), ((1 << 16) + 1,), 4) == PartitionSpec()
    assert param_spec((), (64,), 4) == PartitionSpec()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data:2", "mesh: expected AXIS=SIZE,... as data=2,fsdp=4; got 'data:2'"),
        ("data=0", "mesh: expected AXIS=SIZE,... as data=2,fsdp=4; got 'data=0'"),
        ("data=2,data=4", "mesh: expected each axis once; got data twice"),
        ("model=2", "mesh: expected one of 'data', 'fsdp', 'population'"),
    ],
)
def test_meshes_that_are_none_are_refused(text, message):
    with pytest.raises(InputError) as error:
        parse_mesh(text)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["localhost", "host:1,2,2", "host:1,0"])
def test_other_processes_need_an_address_and_a_number(text):
    with pytest.raises(InputError, match="distributed: expected auto or HOST:PORT,INDEX,COUNT"):
        distributed.join(text)


# -- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_a_part_of_every_parameter_is_that_part_of_the_whole(config, dtype, tmp_path):
    graphdef, shapes = abstract_model(config, dtype)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), dtype), shapes)
    model = LanguageModel(config, graphdef, params)
    save_model(model, tmp_path / "model")
    tensors, there = open_tensors(tmp_path / "model"), places(config)
    flat, _ = jax.tree_util.tree_flatten_with_path(model.params)
    for keys, leaf in flat:
        path = tuple(key.key for key in keys if isinstance(key, jax.tree_util.DictKey))
        index = tuple(slice(size // 3, size - size // 4) for size in leaf.shape)
        stacked = path[0] == "layers"
        part = read_parameter(tensors, there[path], index, leaf.shape, dtype, stacked)
        np.testing.assert_array_equal(part, np.asarray(leaf)[index], err_msg=str(path))
    for one, other in zip(
        jax.tree.leaves(load_model(tmp_path / "model", dtype=dtype, mesh=make_mesh()).params),
        jax.tree.leaves(model.params),
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        assert one.sharding.mesh.axis_names == AXES


def test_each_device_reads_its_own_part(eight):
    found = eight["loading"]
    assert found["files"] > 1
    assert found["same"]
    assert found["read"] == found["bytes"]
    assert found["largest_read"] * 8 <= found["largest_leaf"]
    assert found["kernel_shards"] == ["(2, 2, 24)"]


# -- training -------------------------------------------------------------------------------------


def test_losses_are_those_of_one_device(eight):
    np.testing.assert_allclose(eight["together"], eight["alone"], rtol=0, atol=SAME)
    assert np.ptp(eight["alone"]) > 1000 * SAME


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["four", "one"])
def test_a_run_goes_on_from_a_checkpoint_of_more_devices(eight, moved, devices):
    """A run of 8 devices on 4, and that on 1."""
    np.testing.assert_allclose(moved[devices], eight["alone"], rtol=0, atol=SAME)


@pytest.mark.slow
def test_a_model_on_a_mesh_is_written_as_one(moved):
    assert moved["written"]


@pytest.mark.slow
def test_members_of_a_population_are_split_over_devices(moved):
    alone, together = moved["population"]
    assert len(set(alone)) == 3
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_meshes_that_do_not_divide_are_refused(eight):
    found = eight["refused"]
    assert found["devices"].endswith("population=1 takes 16 devices; this run has 8")
    assert "fsdp=3 does not divide the model's width, 16; expected one of 1 or 2" in found["width"]
    assert "does not divide the 8 rows that are taken at once" in found["rows"]


# -- several processes ----------------------------------------------------------------------------


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start_two(folder, pause):
    address = f"localhost:{free_port()}"
    return [run_child(folder, f"{address},{index},2", pause) for index in range(2)]


def finish(children):
    found = []
    for child in children:
        out, err = child.communicate(timeout=240)
        assert child.returncode == 0, err
        found.append(json.loads(out))
    return found


@pytest.mark.slow
def test_two_processes_are_one_run_and_go_on_after_one_was_killed(eight, tmp_path):
    children = start_two(tmp_path, pause=4)
    waiting = [tmp_path / f"at-{index}-4" for index in range(2)]
    try:
        deadline = time.monotonic() + 240
        while not all(path.exists() for path in waiting):
            assert time.monotonic() < deadline and all(c.poll() is None for c in children)
            time.sleep(0.2)
        children[1].send_signal(signal.SIGKILL)
        assert children[1].wait(timeout=60) == -signal.SIGKILL
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert not (tmp_path / "run" / "model").exists()
    found = finish(start_two(tmp_path, pause=-1))
    assert [one["devices"] for one in found] == [2, 2]
    assert found[0]["losses"] == found[1]["losses"]
    np.testing.assert_allclose(found[0]["losses"], eight["alone"], rtol=0, atol=SAME)
    written = load_model(tmp_path / "run" / "model")
    norm = sum(np.sum(np.abs(leaf)) for leaf in jax.tree.leaves(written.params))
    assert found[0]["norm"] == pytest.approx(norm, rel=1e-6)
