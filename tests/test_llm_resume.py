"""Checkpoints and how a run goes on: bit for bit, after whatever stopped it."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax", reason="the extra llm is not installed")


from jaxpref._checks import InputError
from jaxpref.llm import resume
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import initial_model
from jaxpref.llm.metrics import MetricsLog, read_metrics
from jaxpref.llm.resume import (
    CheckpointError,
    differences,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from jaxpref.llm.rows import Tokens, pack_rows
from jaxpref.llm.trainer import TrainOptions, train_preferences

# Where a save or restore fails, orbax drops coroutines that it has not awaited, which complain when
# they are collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

STATE = {"a": jnp.arange(6.0, dtype=jnp.float32).reshape(2, 3), "b": (jnp.int32(4), jnp.ones(2))}
OPTIONS = TrainOptions(learning_rate=1e-2, steps=10, batch_size=4, seed=1)


def make_model():
    config = decoder_config(
        {
            "model_type": "llama",
            "vocab_size": 40,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        }
    )
    return initial_model(config, jax.random.key(0))


def make_rows():
    """Return eight rows of different lengths."""
    records = [Tokens((1, 5, 6 + row), ((10 + row, 2), (20 + row, 21, 2))) for row in range(4)]
    records += [Tokens((1, *range(3, 20)), ((10 + row, 2), (20 + row, 2))) for row in range(4)]
    return pack_rows(records, max_length=32).rows


@pytest.fixture(autouse=True)
def collected():
    """Let what a test leaves behind be collected while the filter above holds."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, train_preferences(model, make_rows(), options=OPTIONS, out=out)


def assert_same_bits(left, right):
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


class StopError(Exception):
    pass


def stop_after(step):
    def progress(done, total):
        if done >= step:
            raise StopError

    return progress


# -- runs -----------------------------------------------------------------------------------------


def test_ten_steps_are_five_and_five_bit_for_bit(model, whole, tmp_path):
    """Trap 7: parameters, optimiser, order of the data; and the log is cut back to match."""
    with pytest.raises(StopError):
        train_preferences(
            model,
            make_rows(),
            options=OPTIONS,
            out=tmp_path,
            save_every=5,
            progress=stop_after(7),
        )
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] > 5
    result = train_preferences(
        model, make_rows(), options=OPTIONS, out=tmp_path, save_every=5, resume=True
    )
    assert_same_bits(result.model.params, whole[1].model.params)
    log, other = ((folder / "metrics.jsonl").read_bytes() for folder in (tmp_path, whole[0]))
    assert log == other
    assert len(result.metrics) == 10


def test_a_finished_run_goes_on_to_nothing(model, whole):
    out, result = whole
    again = train_preferences(model, make_rows(), options=OPTIONS, out=out, resume=True)
    assert_same_bits(again.model.params, result.model.params)
    assert again.metrics == result.metrics
    assert again.tokens == 0


def test_a_run_with_other_settings_is_refused_and_they_are_named(model, whole):
    options = replace(OPTIONS, beta=0.2, seed=2)
    with pytest.raises(InputError, match=r"beta was 0\.1, now 0\.2; seed was 1, now 2"):
        train_preferences(model, make_rows(), options=options, out=whole[0], resume=True)
    changed = model._replace(params=jax.tree.map(lambda leaf: leaf + 1, model.params))
    other = model._replace(config=replace(model.config, norm_eps=1e-3))  # weights alone are not all
    for start in (changed, other):
        with pytest.raises(InputError, match="model was .*…, now .*…"):
            train_preferences(start, make_rows(), options=OPTIONS, out=whole[0], resume=True)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
import test_llm_resume as test
from jaxpref.llm import resume

write = resume._write_state
def write_and_die(path, state):
    write(path, state)
    if path.parent.name.endswith("6"):
        os.kill(os.getpid(), signal.SIGKILL)  # state written, not yet renamed
resume._write_state = write_and_die
test.train_preferences(
    test.make_model(), test.make_rows(), options=test.OPTIONS, out=Path(sys.argv[1]), save_every=3
)
"""


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_a_save_goes_on_bit_for_bit(model, whole, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy())
    assert done.returncode == -signal.SIGKILL, done.stderr
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [".part-00000006", "step-00000003"]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == 6
    result = train_preferences(
        model, make_rows(), options=OPTIONS, out=tmp_path, save_every=3, resume=True
    )
    assert_same_bits(result.model.params, whole[1].model.params)
    log, other = ((folder / "metrics.jsonl").read_bytes() for folder in (tmp_path, whole[0]))
    assert log == other
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000009", "step-00000010"]


# -- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_gives_back_every_bit(tmp_path):
    path = save_checkpoint(tmp_path / "new", 3, STATE, {"settings": {"beta": 0.1}})
    found = latest_checkpoint(tmp_path / "new")
    assert found is not None and (found.step, found.path) == (3, path)
    assert found.record["settings"] == {"beta": 0.1}
    loaded = load_checkpoint(found, STATE)
    assert jax.tree.structure(loaded) == jax.tree.structure(STATE)
    assert_same_bits(loaded, STATE)


def test_two_checkpoints_are_kept_and_half_written_ones_swept_away(tmp_path):
    (tmp_path / ".part-00000009").mkdir()
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, STATE, {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000002", "step-00000003"]
    assert latest_checkpoint(tmp_path / "none") is None


def test_a_full_disk_is_named_and_the_last_checkpoint_kept(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, STATE, {})

    def full(path, state):
        path.mkdir()
        (path / "half").write_text("written")
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [28]")

    monkeypatch.setattr(resume, "_write_state", full)
    pattern = r"cannot write the checkpoint .*step-00000002: no space left on device; the last "
    with pytest.raises(CheckpointError, match=pattern + r"whole one is .*step-00000001"):
        save_checkpoint(tmp_path, 2, STATE, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    with pytest.raises(CheckpointError, match="there is no earlier one"):
        save_checkpoint(tmp_path / "other", 2, STATE, {})


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root"
)
def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        save_checkpoint(disk, 1, STATE, {})
        noise = np.random.default_rng(0).random(100_000)
        with pytest.raises(CheckpointError, match="step-00000002: no space left on device"):
            save_checkpoint(disk, 2, {"a": jnp.asarray(noise)}, {})
        last = latest_checkpoint(disk)
        assert last is not None and last.step == 1
        assert_same_bits(load_checkpoint(last, STATE), STATE)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path):
    save_checkpoint(tmp_path, 1, STATE, {})
    path = save_checkpoint(tmp_path, 2, STATE, {})
    (path / "state" / "manifest.ocdbt").write_bytes(b"")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    with pytest.raises(CheckpointError, match="step-00000002.*delete it to go on from the one"):
        load_checkpoint(found, STATE)
    (path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read the checkpoint .*step-00000002"):
        latest_checkpoint(tmp_path)


def test_arrays_of_another_shape_are_refused(tmp_path):
    save_checkpoint(tmp_path, 1, STATE, {})
    found = latest_checkpoint(tmp_path)
    assert found is not None
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        load_checkpoint(found, {**STATE, "a": jnp.zeros((2, 4), jnp.float32)})


def test_what_differs_is_named():
    assert differences({"a": 1, "b": (1, 2)}, {"a": 1, "b": [1, 2]}) == []
    assert differences({"a": 1}, {"a": None, "c": "x"}) == [
        "a was 1, now null",
        "c was null, now x",
    ]


# -- metrics --------------------------------------------------------------------------------------


def test_a_log_is_cut_back_to_a_step_and_forgets_a_line_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write({"step": step, "loss": step / 2} for step in (1, 2, 3))
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    with MetricsLog(path, after_step=2) as log:
        log.write([{"step": 3, "loss": float("nan")}])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 1.0},
        {"step": 3, "loss": None},
    ]


def test_a_log_that_is_none_is_refused_with_its_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nhello\n')
    with pytest.raises(InputError, match="line 2 is no record of metrics"):
        read_metrics(path)
