"""What a training will take, before it is allocated: memory, operations, and what would fit.

Parameters and optimizer come from the shapes of the training state; activations from tracing the
step's forward pass and listing what its backward pass keeps (``jax.eval_shape`` and its kin: no
array is made, nothing is compiled). What the compiler adds was measured on a processor, with
models of one to twelve layers, against its own account of the compiled step
(``benchmarks/bench_plan.py``):

- while a layer runs backwards, about :data:`WORKING` of what it computes again is there at a time,
  and copies of :data:`COPIED` of what was kept for it;
- the update holds a second tree of the gradient's size; that of moments in bytes holds
  :data:`UPDATING` values of float32 a weight, of large stacks for one layer at a time;
- layers that are unrolled have no stack of gradients up front: it grows as activations go;
- bfloat16 is computed in float32 on a processor, and kept so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp

from .._checks import check_count
from .adam8bit import BLOCK, quantised_by_default
from .attention import best_attention
from .config import DecoderConfig
from .decoder import _UNROLLED_LAYERS, abstract_model
from .lora import LoraOptions, adapted_graphdef, initial_adapters
from .mesh import param_spec
from .precision import LAYERED_FROM
from .rows import Rows
from .trainer import TrainOptions
from .training import Recipe, init_state, policy_logps

WORKING, COPIED, UPDATING = 0.9, 0.6, 6.0


@dataclass(frozen=True)
class Workload:
    """What a step sees.

    Attributes
    ----------
    width : int
        Tokens a row: of a shared row, its prompt and all its completions.
    completion : int, optional
        Most completion tokens of a row, where logits are taken; `width` when left out.
    completions : int
        Completions a row.
    rows : int, optional
        Rows of the whole table; one step's when left out.
    """

    width: int
    completion: int | None = None
    completions: int = 2
    rows: int | None = None

    def __post_init__(self) -> None:
        for name in ("width", "completions"):
            check_count(name, getattr(self, name))


class Item(NamedTuple):
    """One line of a budget."""

    name: str
    bytes: int
    note: str


class Plan(NamedTuple):
    """The budget of a training on one device of the mesh.

    Attributes
    ----------
    items : tuple of Item
        What is there at the peak of memory.
    total : int
        Their sum, in bytes.
    tokens : int
        Tokens of a step over all devices, padding counted.
    parameters : int
    model_flops : float
        6 N a token: forward and backward passes of all N parameters.
    hardware_flops : float
        8 N a token where whole layers are computed again, else as `model_flops`.
    attention_flops : float
        12 layers x tokens x width x heads x head_dim: scores and mixing, masked ones counted; in
        neither of the above.
    recipe : Recipe
    """

    items: tuple[Item, ...]
    total: int
    tokens: int
    parameters: int
    model_flops: float
    hardware_flops: float
    attention_flops: float
    recipe: Recipe


def plan_training(
    config: DecoderConfig,
    options: TrainOptions,
    workload: Workload,
    *,
    mesh: dict[str, int] | None = None,
    platform: str | None = None,
) -> Plan:
    """Return what a training takes on each device.

    Parameters
    ----------
    config : DecoderConfig
        Of a ``config.json``; no weights are looked at.
    options : TrainOptions
    workload : Workload
    mesh : dict, optional
        Sizes of the axes ``data`` and ``fsdp``, as :func:`jaxpref.llm.mesh.parse_mesh` returns.
    platform : {"cpu", "gpu"}, optional
        Where it will run; this machine's when left out.

    Returns
    -------
    Plan

    Examples
    --------
    >>> from jaxpref.llm import decoder_config
    >>> config = decoder_config({"model_type": "llama", "vocab_size": 64, "hidden_size": 32,
    ...     "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2})
    >>> plan = plan_training(config, TrainOptions(batch_size=4), Workload(width=24))
    >>> [item.name for item in plan.items][:2], plan.model_flops == 6 * plan.parameters * 96
    (['parameters', 'optimizer'], True)
    """
    mesh, platform = {"data": 1, "fsdp": 1, **(mesh or {})}, platform or jax.default_backend()
    ways = mesh["data"] * mesh["fsdp"]
    recipe = _recipe(config, options, workload, ways, platform)
    _, state, frozen = abstract_state(config, options, recipe)
    batch = options.batch_size * options.accumulate
    rows = -(-(recipe.micro_batch or batch) // ways)
    items = [
        Item("frozen parameters", _bytes(frozen, mesh), _dtypes(frozen)),
        Item("parameters", _bytes(state.params, mesh), _dtypes(state.params)),
        Item("optimizer", _bytes(state.optimizer, mesh), options.optimizer),
        Item("rows and reference", _table_bytes(workload, batch), "copied to every device"),
    ]
    parts = recipe.micro_batch is not None
    copied = _copied((state.params, frozen), recipe, mesh)
    traced = _traced(config, options.lora, _memory_only(recipe), workload.width)
    gradient = _gradient_bytes(state.params, recipe, mesh, platform)
    direction = _update_bytes(state.params, recipe, mesh, platform)
    items += _peak(config, recipe, traced, gradient, direction, copied, rows, parts)
    items = [item for item in items if item.bytes]
    count = _count(state.params if frozen is None else frozen)
    tokens = batch * workload.width
    heads = config.num_attention_heads * config.head_dim
    return Plan(
        tuple(items),
        sum(item.bytes for item in items),
        tokens,
        count,
        6.0 * count * tokens,
        (8.0 if recipe.remat == "full" else 6.0) * count * tokens,
        12.0 * config.num_hidden_layers * tokens * workload.width * heads,
        recipe,
    )


def abstract_state(
    config: DecoderConfig, options: TrainOptions, recipe: Recipe
) -> tuple[Any, Any, Any]:
    """Return a training's graphdef and the shapes of its state and of what is frozen beside it."""
    narrow = recipe.stochastic or (options.lora is not None and options.precision != "float32")
    small = Recipe(optimizer=recipe.optimizer, stochastic=recipe.stochastic)
    return _abstract_state(config, options.lora, small, "bfloat16" if narrow else "float32")


@lru_cache(maxsize=16)
def _abstract_state(
    config: DecoderConfig, lora: LoraOptions | None, recipe: Recipe, dtype: str
) -> tuple[Any, Any, Any]:
    model = _shapes(config, lora, dtype)
    state = jax.eval_shape(lambda params: init_state(params, recipe), model.trained)
    return model.graphdef, state, model.frozen


def _recipe(
    config: DecoderConfig, options: TrainOptions, workload: Workload, ways: int, platform: str
) -> Recipe:
    """Return the program's recipe as it would be on `platform`."""
    batch = options.batch_size * options.accumulate
    recipe = options.recipe(workload.completions, config.sliding_window, devices=ways)
    if platform != "cpu" and options.micro_batch is None:
        recipe = replace(recipe, micro_batch=options.batch_size)
    if recipe.micro_batch is not None and recipe.micro_batch >= batch:
        recipe = replace(recipe, micro_batch=None)
    dtype = recipe.compute_dtype or ("bfloat16" if recipe.stochastic else "float32")
    attention = options.attention or best_attention(dtype, config.head_dim, platform)
    recipe = replace(recipe, attention=attention)
    if platform == "cpu":  # what narrow types would be computed in
        recipe = replace(recipe, compute_dtype=None)
    return replace(recipe, logit_width=min(workload.completion or workload.width, workload.width))


def _bytes(tree: Any, mesh: dict[str, int]) -> int:
    """Return the bytes of a tree on one device."""
    total = 0
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        split = "fsdp" in param_spec(keys, leaf.shape, mesh["fsdp"])
        total += math.prod(leaf.shape) * leaf.dtype.itemsize // (mesh["fsdp"] if split else 1)
    return total


def _dtypes(tree: Any) -> str:
    return ", ".join(sorted({str(leaf.dtype) for leaf in jax.tree.leaves(tree)}))


def _table_bytes(workload: Workload, batch: int) -> int:
    rows = workload.rows or batch
    return rows * (3 * workload.width + workload.completions) * 4


def _gradient_bytes(params: Any, recipe: Recipe, mesh: dict[str, int], platform: str) -> int:
    """Return the bytes of a gradient: of the passes' type, or of the parameters' if narrower."""
    widest = max(leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    size = min(jnp.dtype(recipe.compute_dtype or "float32").itemsize, widest)
    return _bytes(params, mesh) // widest * (max(size, 4) if platform == "cpu" else size)


def _update_bytes(params: Any, recipe: Recipe, mesh: dict[str, int], platform: str) -> int:
    """Return what the update holds beside parameters, moments and the gradient.

    That is a direction of the gradient's size; of tensors whose moments are bytes, those in
    float32 besides, of large stacks for one layer at a time, where the direction takes the
    gradient's place.
    """
    if recipe.optimizer != "adamw8bit":
        return _gradient_bytes(params, recipe, mesh, platform)
    plain, decoded, layer = 0, 0, 0
    for keys, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        count = leaf.size // (
            mesh["fsdp"] if "fsdp" in param_spec(keys, leaf.shape, mesh["fsdp"]) else 1
        )
        if not quantised_by_default(jax.tree_util.keystr(keys), leaf):
            plain += count
        elif leaf.ndim >= 3 and leaf.shape[-1] >= BLOCK and leaf.size > LAYERED_FROM:
            layer = max(layer, count // leaf.shape[0])
        else:
            decoded += count
    size = min(jax.tree.leaves(params)[0].dtype.itemsize, 4)
    return plain * size + int(UPDATING * 4 * (decoded + layer))


def _peak(
    config: DecoderConfig,
    recipe: Recipe,
    traced: _Traced,
    gradient: int,
    direction: int,
    copied: int,
    rows: int,
    parts: bool,
) -> list[Item]:
    """Return what the step holds besides its arguments, in its backward pass or its update."""
    head, kept, layer = (part.bytes(rows) for part in traced)
    layers = config.num_hidden_layers
    unrolled = layers <= _UNROLLED_LAYERS and recipe.remat == "none"
    logits = rows * (recipe.logit_chunk or 0) * config.vocab_size * 4
    working = 0 if unrolled else int(WORKING * max(layer - kept, 0) + COPIED * kept)
    backward = [
        Item("gradients", 0 if unrolled and not parts else gradient, "of the backward pass"),
        Item("sum of gradients", gradient if parts and not unrolled else 0, "over micro-batches"),
        Item("copy of parameters", copied, f"for the passes, {recipe.compute_dtype or 'float32'}"),
        Item("activations", layers * kept, f"kept for {layers} layers, remat {recipe.remat}"),
        Item("a layer at work", working, "computed again, or running backwards"),
        Item("hidden states, logits", head + logits, _logit_note(recipe, rows, config)),
    ]
    update = [
        Item("gradients", gradient, "of the update"),
        Item("update at work", direction, f"direction and moments, {recipe.optimizer}"),
    ]
    return max(backward, update, key=lambda items: sum(item.bytes for item in items))


def _copied(trees: Any, recipe: Recipe, mesh: dict[str, int]) -> int:
    """Return the bytes of parameters cast for the passes, and of a layer gathered from others."""
    size = jnp.dtype(recipe.compute_dtype or "float32").itemsize
    wider = [leaf for leaf in jax.tree.leaves(trees) if leaf.dtype.itemsize > size]
    cast = _count(wider) * size // mesh["fsdp"]
    if mesh["fsdp"] == 1:
        return cast
    leaves = jax.tree.leaves(trees)
    layers = max(leaf.shape[0] for leaf in leaves if leaf.ndim == 3)
    stacked = sum(math.prod(leaf.shape) for leaf in leaves if leaf.ndim == 3) // layers
    table = max(math.prod(leaf.shape) for leaf in leaves if leaf.ndim == 2)
    return cast + (stacked + table) * size


class _Shapes(NamedTuple):
    """What trains, and what stays as it is beside it, without an array."""

    graphdef: Any
    trained: Any
    frozen: Any

    def logps(self, trained: Any, frozen: Any, rows: Rows, recipe: Recipe) -> Any:
        """Return the log-probabilities, to be traced."""
        return policy_logps(self.graphdef, trained, rows, recipe, frozen)


def _shapes(config: DecoderConfig, lora: LoraOptions | None, dtype: str) -> _Shapes:
    graphdef, params = abstract_model(config, dtype)
    if lora is None:
        return _Shapes(graphdef, params, None)
    adapters = jax.eval_shape(lambda: initial_adapters(config, lora, jax.random.key(0)))
    return _Shapes(adapted_graphdef(config, lora, dtype=dtype), adapters, params)


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _logit_note(recipe: Recipe, rows: int, config: DecoderConfig) -> str:
    at_once = min(recipe.logit_chunk or 10**9, recipe.logit_width or 10**9)
    return f"{rows} rows x {at_once} positions x {config.vocab_size} at a time"


class _PerRow(NamedTuple):
    """Bytes that grow with the rows."""

    fixed: int
    each: int

    def bytes(self, rows: int) -> int:
        """Return them for so many rows."""
        return max(self.fixed + rows * self.each, 0)


class _Traced(NamedTuple):
    """What the backward pass keeps: once, a layer, and a layer that computes nothing again."""

    head: _PerRow
    kept: _PerRow
    layer: _PerRow


def _memory_only(recipe: Recipe) -> Recipe:
    """Return what of a recipe bears on the activations."""
    names = ("completions", "compute_dtype", "logit_width", "logit_chunk", "remat", "attention")
    found = Recipe(**{name: getattr(recipe, name) for name in names})
    if recipe.stochastic:  # parameters are of the passes' type
        return replace(found, compute_dtype="bfloat16")
    return found


@lru_cache(maxsize=64)
def _traced(config: DecoderConfig, lora: LoraOptions | None, recipe: Recipe, width: int) -> _Traced:
    """Trace what the backward pass keeps: linear in layers and rows, so two of each say it."""

    def linear(recipe: Recipe) -> tuple[_PerRow, _PerRow]:
        found = {
            (layers, rows): _residuals(config, lora, recipe, width, layers, rows)
            for layers in (1, 2)
            for rows in (1, 2)
        }
        each = {layers: found[layers, 2] - found[layers, 1] for layers in (1, 2)}
        fixed = {layers: found[layers, 1] - each[layers] for layers in (1, 2)}
        layer = _PerRow(fixed[2] - fixed[1], each[2] - each[1])
        return _PerRow(fixed[1] - layer.fixed, each[1] - layer.each), layer

    head, kept = linear(recipe)
    if recipe.remat == "none":
        return _Traced(head, kept, kept)
    return _Traced(head, kept, linear(replace(recipe, remat="none"))[1])


def _residuals(
    config: DecoderConfig,
    lora: LoraOptions | None,
    recipe: Recipe,
    width: int,
    layers: int,
    rows: int,
) -> int:
    """Return the bytes that the backward pass of the log-probabilities keeps, parameters aside."""
    dtype = recipe.compute_dtype or "float32"
    model = _shapes(replace(config, num_hidden_layers=layers), lora, dtype)
    row = jax.ShapeDtypeStruct((rows, width), jnp.int32)
    # The copies of parameters have their own line; cuDNN's kernel is traced on no processor.
    plain = replace(recipe, compute_dtype=None, attention="direct")
    scores = (width, width) if recipe.attention == "cudnn" else ()

    def kept(trained: Any, frozen: Any, rows: Rows) -> Any:
        return jax.vjp(lambda trained: model.logps(trained, frozen, rows, plain), trained)[1]

    traced = jax.make_jaxpr(kept)(model.trained, model.frozen, Rows(row, row, row)).jaxpr
    arguments = {id(variable) for variable in traced.invars}
    sizes = {
        id(variable): math.prod(variable.aval.shape) * variable.aval.dtype.itemsize
        for variable in traced.outvars
        if not isinstance(variable, jax.extend.core.Literal)
        and id(variable) not in arguments
        and (not scores or variable.aval.shape[-2:] != scores)  # which it does not keep
    }
    return sum(sizes.values())
