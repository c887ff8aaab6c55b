"""What the tests of meshes run in processes of their own, where devices can be made up.

python mesh_child.py FOLDER                       with 8 devices by XLA_FLAGS: prints JSON
python mesh_child.py FOLDER HOST:PORT,INDEX,COUNT STEPS_BEFORE_A_PAUSE
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")

from jaxpref._checks import InputError  # noqa: E402
from jaxpref.llm import _tensors, distributed  # noqa: E402
from jaxpref.llm.checkpoints import load_model, save_model  # noqa: E402
from jaxpref.llm.config import decoder_config  # noqa: E402
from jaxpref.llm.decoder import initial_model  # noqa: E402
from jaxpref.llm.losses import LossSettings  # noqa: E402
from jaxpref.llm.mesh import make_mesh  # noqa: E402
from jaxpref.llm.population import Members, train_population  # noqa: E402
from jaxpref.llm.reference import digest, reference_logps  # noqa: E402
from jaxpref.llm.rows import Tokens, pack_rows  # noqa: E402
from jaxpref.llm.trainer import TrainOptions, train_preferences  # noqa: E402
from jaxpref.llm.training import Batches, Recipe  # noqa: E402

OPTIONS = TrainOptions(learning_rate=1e-2, steps=6, batch_size=8, micro_batch=8, seed=1)


def make_model():
    config = decoder_config(
        {
            "model_type": "llama",
            "vocab_size": 40,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }
    )
    return initial_model(config, jax.random.key(0))


def make_rows():
    """Return sixteen rows of one width."""
    records = [Tokens((1, 5, 6 + row), ((10 + row, 2), (20 + row, 21, 2))) for row in range(16)]
    return pack_rows(records, max_length=32).rows


def train(model, out, mesh=None, *, resume=False):
    """Train with a checkpoint every three steps; return the losses and the model."""
    found = train_preferences(
        model, make_rows(), options=OPTIONS, out=out, save_every=3, resume=resume, mesh=mesh
    )
    return [record["loss"] for record in found.metrics], found.model


def refused(call):
    try:
        call()
    except InputError as error:
        return str(error)
    return "nothing was refused"


def loading(folder, model):
    """Load shards over a mesh, and say what was read and where it lies."""
    save_model(model, folder / "model", max_shard_bytes=4096)
    read = []
    whole = _tensors.Safetensors.read_slice

    def counting(self, name, index):
        part = whole(self, name, index)
        read.append(part.nbytes)
        return part

    _tensors.Safetensors.read_slice = counting
    loaded = load_model(folder / "model", mesh=make_mesh(fsdp=8))
    kernel = loaded.params["layers"]["feed_forward"]["up"]["kernel"][...]
    return loaded, {
        "files": len(list((folder / "model").glob("*.safetensors"))),
        "read": sum(read),
        "largest_read": max(read),
        "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)),
        "largest_leaf": max(leaf.nbytes for leaf in jax.tree.leaves(model.params)),
        "kernel_shards": sorted({str(shard.data.shape) for shard in kernel.addressable_shards}),
        "same": digest(loaded.params) == digest(model.params),
    }


def population(model) -> list:
    """Train three members two at a time on two devices each, and one after the other on one."""
    rows = make_rows()
    recipe = Recipe(clip_norm=1.0, logit_width=rows.width)
    reference = reference_logps(model.graphdef, model.params, rows, recipe=recipe)
    number = np.random.default_rng(0).integers(0, 16, (3, 2, 4)).astype(np.int32)
    rates = np.full((3, 2), 1e-2, np.float32)
    weights = jnp.ones((3, 2, 4), jnp.float32)
    batches = Batches(jnp.asarray(number), weights, None, jnp.asarray(rates))
    betas = np.array([0.1, 0.2, 0.4], np.float32)
    settings = LossSettings(betas, *(np.full(3, x, np.float32) for x in (0.0, 1.0, 1.0)))
    found = []
    for mesh in (None, make_mesh(fsdp=2, population=2)):
        blocks = train_population(
            model.graphdef,
            model.params,
            rows,
            reference,
            Members(batches, settings),
            recipe=recipe,
            evaluation=total,
            mode="map",
            mesh=mesh,
        )
        found.append(np.concatenate([trained.evaluation for _, trained in blocks]).tolist())
    return found


def total(params, data):
    return sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(params))


def eight(folder: Path) -> dict:
    """Return what eight devices give beside one."""
    model = make_model()
    spread, report = loading(folder, model)
    alone, _ = train(model, folder / "alone")
    together, _ = train(spread, folder / "run", make_mesh(data=2, fsdp=4))
    return {
        "loading": report,
        "alone": alone,
        "together": together,
        "refused": {
            "devices": refused(lambda: make_mesh(fsdp=16)),
            "width": refused(lambda: train(model, None, make_mesh(fsdp=3))),
            "rows": refused(lambda: train(model, None, make_mesh(data=3))),
        },
    }


def move(folder: Path) -> dict:
    """Go on from the middle of that run on four devices, then from the middle of theirs on one."""
    model, out = make_model(), folder / "run"
    shutil.rmtree(out / "checkpoints" / "step-00000006")
    four, end = train(model, out, make_mesh(fsdp=4), resume=True)
    shutil.rmtree(out / "checkpoints" / "step-00000006")
    one, _ = train(model, out, resume=True)
    save_model(end, folder / "end")
    return {
        "four": four,
        "one": one,
        "written": digest(load_model(folder / "end").params) == digest(end.params),
        "population": population(model),
    }


def several(folder: Path, joined: str, pause: int) -> dict:
    """Train as one of several processes; wait before a step for a signal that never comes."""
    distributed.join(joined)
    mesh = make_mesh(data=jax.device_count())

    def progress(done, total):
        (folder / f"at-{jax.process_index()}-{done}").touch()
        while done == pause:
            time.sleep(0.1)

    found = train_preferences(
        make_model(),
        make_rows(),
        options=OPTIONS,
        out=folder / "run",
        save_every=2,
        resume=(folder / "run" / "metrics.jsonl").exists(),
        mesh=mesh,
        progress=progress,
    )
    save_model(found.model, folder / "run" / "model", overwrite=True)
    return {
        "losses": [record["loss"] for record in found.metrics],
        "devices": jax.device_count(),
        "norm": float(sum(np.sum(np.abs(x)) for x in jax.tree.leaves(found.model.params))),
    }


if __name__ == "__main__":
    where, what = Path(sys.argv[1]), sys.argv[2]
    alone = {"eight": eight, "move": move}
    found = alone[what](where) if what in alone else several(where, what, int(sys.argv[3]))
    print(json.dumps(found))
