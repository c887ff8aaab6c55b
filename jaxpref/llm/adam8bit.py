"""AdamW whose two moments take a byte each: blocks of codes under a scale of their own.

Codes are linear in the root of a moment, int8 with its sign and uint8, so those of the moments are
spaced by squares. Of the second moment the root is what an update is divided by: a linear code of
the moment itself puts to 0 whatever is under a 22nd of the block's largest root, and diverges. The
first is rounded to the nearest code. The second is rounded at random, without bias: a step changes
it by 0.1%, far less than the distance of two codes, and to the nearest it would stand still.

References
----------
Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", ICLR 2022:
blocks, the bytes, and which tensors stay in 32 bits. Its codes are a table; these are formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from .._checks import check_count, check_option
from . import precision
from .precision import by_layers

BLOCK = 256
MIN_SIZE = 4096
CODES = ("root", "linear")

Mask = Callable[[str, Any], bool]
"""From a leaf's path, as ``"['layers']['up']"``, and the leaf: whether it is quantised."""


class Blocks(NamedTuple):
    """A tensor in bytes.

    Attributes
    ----------
    codes : int8 or uint8 array
        In the tensor's shape, so that it is sharded as the tensor is.
    scales : float32 array
        The largest magnitude of each block (of roots). Blocks lie along the last axis, shape
        (..., ceil(n / block)), or where that is shorter than one, along the whole flattened
        tensor, shape (blocks,).
    """

    codes: Array
    scales: Array


class Adam8bitState(NamedTuple):
    """Moments in the parameters' structure: :class:`Blocks`, or float32 arrays where not quantised.

    There is no key: the random rounding follows from the count and the leaf's place.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]  # optax's name of it
    mu: Any
    nu: Any


@dataclass(frozen=True)
class _Adam:
    """The numbers of an update, and how moments are kept."""

    b1: float
    b2: float
    eps: float
    eps_root: float
    block: int
    code: str


def quantised_by_default(path: str, leaf: Any, *, min_size: int = MIN_SIZE) -> bool:
    """Whether a tensor's moments are kept in bytes: not of embeddings, nor of small tensors.

    Leaves under ``layers`` hold one tensor a layer: the size of one counts.

    Parameters
    ----------
    path : str
        As ``jax.tree_util.keystr`` writes it.
    leaf : array
    min_size : int
        Elements of the smallest tensor that is quantised.

    Examples
    --------
    >>> quantised_by_default("['layers']['up']['kernel']", jnp.zeros((2, 64, 64)))
    True
    >>> quantised_by_default("['layers']['norm']['scale']", jnp.zeros((64, 4000)))
    False
    >>> quantised_by_default("['embedding']", jnp.zeros((4096, 64)))
    False
    """
    shape = leaf.shape[1:] if "'layers'" in path else leaf.shape
    return "embedding" not in path and math.prod(shape) >= min_size


def adamw_8bit(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: float = 0.0,
    block: int = BLOCK,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    """Return AdamW with moments in bytes, as :func:`scale_by_adam_8bit` keeps them.

    Parameters
    ----------
    learning_rate : float or schedule
    b1, b2, eps, eps_root, weight_decay : float
        As in ``optax.adamw``, but without decay unless it is asked for.
    block, mask
        As in :func:`scale_by_adam_8bit`.

    Examples
    --------
    >>> import optax
    >>> params = {"up": jnp.ones((64, 256))}
    >>> optimizer = adamw_8bit(1e-3)
    >>> state = optimizer.init(params)
    >>> updates, state = optimizer.update(params, state, params)
    >>> print(round(float(updates["up"][0, 0]), 6))
    -0.001
    """
    parts = [scale_by_adam_8bit(b1, b2, eps, eps_root, block=block, mask=mask)]
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay))
    return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate))


def scale_by_adam_8bit(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    *,
    block: int = BLOCK,
    mask: Mask | None = None,
    code: str = "root",
) -> optax.GradientTransformation:
    """Return Adam's direction, from moments kept in bytes.

    Parameters
    ----------
    b1, b2, eps, eps_root : float
        As in ``optax.scale_by_adam``.
    block : int
        Elements that share a scale: 2 + 8 / `block` bytes a parameter, 2.03 at 256.
    mask : callable, optional
        ``mask(path, leaf)``: whether a leaf is quantised; :func:`quantised_by_default`.
    code : {"root", "linear"}
        How the second moment is written. "linear" is there to be compared with: it diverges.

    Returns
    -------
    optax.GradientTransformation
        Its updates have the gradients' dtype; state is :class:`Adam8bitState`.

    Raises
    ------
    InputError
        If an option is none of those.

    Notes
    -----
    The update itself is taken from the moments before they are rounded. Works under jit, scan,
    vmap and donation; stacked leaves of many millions are updated a layer at a time, so that only
    a layer is ever whole in float32. A NaN or infinite gradient makes its block NaN. Not for
    differentiating through training: the codes have no derivative.
    """
    check_count("block", block)
    check_option("code", code, CODES)
    adam = _Adam(b1, b2, eps, eps_root, block, code)
    mask = mask or quantised_by_default

    def init(params: Any) -> Adam8bitState:
        def zero(dtype: str) -> Any:
            return jax.tree_util.tree_map_with_path(
                lambda path, leaf: (
                    _zero(leaf, dtype, block)
                    if mask(jax.tree_util.keystr(path), leaf)
                    else jnp.zeros(leaf.shape, jnp.float32)
                ),
                params,
            )

        return Adam8bitState(jnp.zeros((), jnp.int32), zero("int8"), zero("uint8"))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        count = jnp.asarray(optax.safe_increment(state.count))
        leaves, structure = jax.tree.flatten(updates)
        moments = (structure.flatten_up_to(tree) for tree in (state.mu, state.nu))
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), count), len(leaves))
        found = [
            _update_leaf(leaf, mu, nu, key, count, adam)
            for leaf, mu, nu, key in zip(leaves, *moments, keys, strict=True)
        ]
        directions, mu, nu = (structure.unflatten(part) for part in zip(*found, strict=True))
        return directions, Adam8bitState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def bytes_per_parameter(state: Adam8bitState) -> float:
    """Return the bytes of the quantised tensors' moments for each of their parameters.

    Examples
    --------
    >>> state = scale_by_adam_8bit().init({"up": jnp.ones((64, 256)), "bias": jnp.ones(256)})
    >>> print(bytes_per_parameter(state))
    2.03125
    """
    blocks = [leaf for leaf in _moments(state) if isinstance(leaf, Blocks)]
    size = sum(leaf.codes.size for leaf in blocks) / 2
    return sum(leaf.codes.nbytes + leaf.scales.nbytes for leaf in blocks) / size


def share_quantised(state: Adam8bitState) -> float:
    """Return the share of the parameters whose moments are in bytes, in [0, 1]."""
    leaves = _moments(state)
    sizes = [(leaf.codes if isinstance(leaf, Blocks) else leaf).size for leaf in leaves]
    held = sum(size for size, leaf in zip(sizes, leaves, strict=True) if isinstance(leaf, Blocks))
    return held / sum(sizes)


def _moments(state: Adam8bitState) -> list[Any]:
    return jax.tree.leaves((state.mu, state.nu), is_leaf=lambda leaf: isinstance(leaf, Blocks))


# --- one leaf -----------------------------------------------------------------------------------


def _update_leaf(
    gradient: Array, mu: Any, nu: Any, key: Array, count: Array, adam: _Adam
) -> tuple[Array, Any, Any]:
    """Return the direction of a leaf and its new moments."""
    if not isinstance(mu, Blocks):
        return _plain(gradient, mu, nu, count, adam)
    layered = gradient.ndim >= 3 and gradient.shape[-1] >= adam.block
    if layered and gradient.size > precision.LAYERED_FROM:
        return _by_layers(gradient, mu, nu, key, count, adam)
    return _quantised(gradient, mu, nu, key, count, adam)


def _plain(
    gradient: Array, mu: Array, nu: Array, count: Array, adam: _Adam
) -> tuple[Array, Array, Array]:
    """Return the direction and the moments of Adam (Kingma and Ba, algorithm 1)."""
    exact = gradient.astype(jnp.float32)
    mu = adam.b1 * mu + (1 - adam.b1) * exact
    nu = adam.b2 * nu + (1 - adam.b2) * exact * exact
    time = count.astype(jnp.float32)
    mean = mu / (1 - jnp.float32(adam.b1) ** time)
    square = nu / (1 - jnp.float32(adam.b2) ** time)
    direction = mean / (jnp.sqrt(square + adam.eps_root) + adam.eps)
    return direction.astype(gradient.dtype), mu, nu


def _quantised(
    gradient: Array, mu: Blocks, nu: Blocks, key: Array, count: Array, adam: _Adam
) -> tuple[Array, Blocks, Blocks]:
    linear = adam.code == "linear"
    first, second = (_decode(part, adam.block) for part in (mu, nu))
    first = first * jnp.abs(first)
    second = second if linear else second * second
    direction, first, second = _plain(gradient, first, second, count, adam)
    second = second if linear else jnp.sqrt(second)
    return (
        direction,
        _encode_first(first, gradient.astype(jnp.float32), adam.block),
        _encode_second(second, adam.block, key, floor=not linear),
    )


def _by_layers(
    gradient: Array, mu: Blocks, nu: Blocks, key: Array, count: Array, adam: _Adam
) -> tuple[Array, Blocks, Blocks]:
    """Update one layer after the other, in the buffers that hold them."""

    def layer(part: Any, key: Array) -> Any:
        gradient, mu, nu = part
        return _quantised(gradient, mu, nu, key, count, adam)

    return by_layers(layer, (gradient, mu, nu), key)


# --- codes --------------------------------------------------------------------------------------


def _in_blocks(x: Array, block: int) -> Array:
    """Return a tensor's elements in blocks on the last axis, zeros filling up the last ones."""
    x = x if x.ndim and x.shape[-1] >= block else x.reshape(-1)
    spare = -x.shape[-1] % block
    if spare:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, spare)])
    return x.reshape(*x.shape[:-1], -1, block)


def _out_of_blocks(blocks: Array, shape: tuple[int, ...], block: int) -> Array:
    """Return the tensor that :func:`_in_blocks` was given."""
    along = bool(shape) and shape[-1] >= block
    lead, width = (shape[:-1], shape[-1]) if along else ((), math.prod(shape))
    return blocks.reshape(*lead, -1)[..., :width].reshape(shape)


def _zero(leaf: Any, dtype: str, block: int) -> Blocks:
    scales = jax.eval_shape(partial(_in_blocks, block=block), leaf).shape[:-1]
    return Blocks(jnp.zeros(leaf.shape, dtype), jnp.zeros(scales, jnp.float32))


def _decode(blocks: Blocks, block: int) -> Array:
    """Return what the codes stand for, in float32."""
    steps = jnp.iinfo(blocks.codes.dtype).max
    exact = _in_blocks(blocks.codes, block).astype(jnp.float32)
    exact = exact * (blocks.scales[..., None] / steps)
    return _out_of_blocks(exact, blocks.codes.shape, block)


def _units(x: Array, block: int, steps: int) -> tuple[Array, Array]:
    """Return the scale of each block and the step of its codes, 1 in a block of zeros."""
    scales = jnp.max(jnp.abs(_in_blocks(x, block)), axis=-1)
    units = jnp.where(scales == 0, jnp.ones_like(scales), scales / steps)
    each = jnp.broadcast_to(units[..., None], (*units.shape, block))
    return scales, _out_of_blocks(each, x.shape, block)


def _encode_first(x: Array, gradient: Array, block: int) -> Blocks:
    """Return the root of a first moment, with its sign, in int8.

    Where the gradient is too small for a code it is rounded towards 0: to the nearest, a code of 9
    that decays by a tenth stays 9 for ever, while the second moment beside it goes to nothing.
    """
    scales, unit = _units(jnp.sqrt(jnp.abs(x)), block, 127)
    codes = jnp.sqrt(jnp.abs(x)) / unit
    still = jnp.sqrt(jnp.abs(gradient)) < 0.5 * unit
    codes = jnp.sign(x) * jnp.where(still, jnp.floor(codes), jnp.round(codes))
    return Blocks(jnp.clip(codes, -127, 127).astype(jnp.int8), scales)


def _encode_second(x: Array, block: int, key: Array, *, floor: bool) -> Blocks:
    """Return what is not negative in uint8, rounded at random; with `floor` only 0 becomes 0."""
    scales, unit = _units(x, block, 255)
    dice = jax.random.bits(key, x.shape, "uint16").astype(jnp.float32) / 65536
    codes = jnp.floor(x / unit + dice)
    codes = jnp.where((x > 0) & (codes < 1), 1.0, codes) if floor else codes
    return Blocks(jnp.clip(codes, 0, 255).astype(jnp.uint8), scales)
