"""Checkpoints in the Hugging Face layout: read from safetensors or Flax msgpack, written back.

Every tensor of the file must be one the config asks for, in its shape, and the reverse: a
checkpoint half understood is refused with the name of the file and of the tensor.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError
from safetensors.numpy import save_file

from .._checks import InputError, check_count, closest_names
from ._dtypes import check_dtype
from ._folders import is_folder, replace_folder
from ._names import Place, is_buffer, places
from ._slices import fill_mesh
from ._tensors import SAFETENSORS, Tensors, open_tensors
from .config import DecoderConfig, config_json, decoder_config
from .decoder import LanguageModel, abstract_model
from .distributed import is_first, wait
from .mesh import host_entry, host_whole

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def load_model(
    directory: str | Path, *, dtype: str = "float32", mesh: Mesh | None = None
) -> LanguageModel:
    """Read a model from a Hugging Face folder.

    Parameters
    ----------
    directory : path
        Folder with ``config.json`` and ``model.safetensors``, or several shards and their index,
        or ``flax_model.msgpack`` as transformers up to 4.57 wrote it.
    dtype : {"float32", "bfloat16", "float16", "float64"}
        Type of the parameters and so of the computation, whatever the file's.
    mesh : Mesh, optional
        Devices to spread the parameters over (:func:`jaxpref.llm.mesh.make_mesh`): each reads its
        part of the files, and no more than one part of one parameter is on the host at a time.

    Returns
    -------
    LanguageModel

    Raises
    ------
    InputError
        If a file is missing or cut short, a tensor is missing, unexpected or of another shape
        than the config says, or the config asks for what the decoder does not compute.

    Notes
    -----
    Beyond the model itself, memory holds one stacked parameter at a time (from msgpack: the
    tensors not yet stacked).

    Examples
    --------
    >>> load_model("no/such/folder")
    Traceback (most recent call last):
    ...
    jaxpref._checks.InputError: no/such/folder: expected a folder with a model; there is none
    """
    directory = Path(directory)
    check_dtype(dtype)
    tensors = open_tensors(directory)
    return load_tensors(tensors, decoder_config(directory), directory, dtype, mesh)


def load_tensors(
    tensors: Tensors,
    config: DecoderConfig,
    directory: Path,
    dtype: str,
    mesh: Mesh | None = None,
) -> LanguageModel:
    """Return the decoder that exactly these tensors make; errors as :func:`load_model`."""
    graphdef, abstract = abstract_model(config, dtype)
    there = places(config, flax=tensors.flax)
    prefix = _prefix(tensors)
    there = {path: place._replace(name=_strip(place.name, prefix)) for path, place in there.items()}
    params = read_parameters(tensors, there, abstract, config, directory, dtype, mesh)
    return LanguageModel(config, graphdef, params)


def read_parameters(
    tensors: Tensors,
    there: dict[tuple[str, ...], Place],
    abstract: Any,
    config: Any,
    directory: Path,
    dtype: str,
    mesh: Mesh | None = None,
) -> Any:
    """Return parameters from exactly the tensors that their places name, each in its shape.

    Parameters
    ----------
    tensors : Tensors
    there : dict
        Place of each parameter by its path.
    abstract : tree of jax.ShapeDtypeStruct
        Their shapes; those under ``layers`` are stacked.
    config : DecoderConfig, DebertaConfig
    directory : Path
        Named in messages.
    dtype : str

    Raises
    ------
    InputError
        For a tensor that is missing, unexpected or of another shape.
    """
    _check_tensors(tensors, there, abstract, config, directory)
    if mesh is not None:
        return fill_mesh(tensors, there, abstract, dtype, mesh)
    return _fill(tensors, there, abstract, dtype)


def parameter_shapes(abstract: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Return the shape of each parameter by its path."""
    flat, _ = jax.tree_util.tree_flatten_with_path(abstract)
    return {_path(keys): tuple(leaf.shape) for keys, leaf in flat}


def _path(keys: Any) -> tuple[str, ...]:
    return tuple(key.key for key in keys if isinstance(key, jax.tree_util.DictKey))


def _prefix(tensors: Tensors) -> str:
    """Return the prefix that a file saved from the bare transformer leaves out."""
    bare = ("wte.weight", "wte.embedding")
    return "transformer." if any(name in tensors.files for name in bare) else ""


def _strip(name: str, prefix: str) -> str:
    return name.removeprefix(prefix)


def _tensor_names(place: Place, path: tuple[str, ...], config: Any) -> Iterator[str]:
    """Yield the tensors of a parameter, layer by layer if it is stacked."""
    if path[0] != "layers":
        yield place.name
    else:
        yield from (place.name.format(layer) for layer in range(config.num_hidden_layers))


def _check_tensors(
    tensors: Tensors,
    there: dict[tuple[str, ...], Place],
    abstract: Any,
    config: Any,
    directory: Path,
) -> None:
    """Require exactly the config's tensors, each in its shape."""
    known: set[str] = set()
    for path, shape in parameter_shapes(abstract).items():
        place = there[path]
        expected = place.file_shape(shape[1:] if path[0] == "layers" else shape)
        for name in _tensor_names(place, path, config):
            known.add(name)
            _check_one(tensors, name, expected, directory)
    extra = sorted(name for name in tensors.files if name not in known and not is_buffer(name))
    if config.tie_word_embeddings:
        extra = [name for name in extra if not _is_tied_copy(tensors, name, there)]
    if extra:
        raise InputError(
            f"{tensors.files[extra[0]]}: unexpected tensor {extra[0]} ({len(extra)} in all): "
            f"{directory / 'config.json'} describes a {config.architecture} of "
            f"{config.num_hidden_layers} layers without it"
        )


def _check_one(tensors: Tensors, name: str, expected: tuple[int, ...], directory: Path) -> None:
    if name not in tensors.files:
        raise InputError(
            f"{directory}: missing tensor {name}, which config.json asks for"
            f"{closest_names(name, tensors.files)}"
        )
    if tensors.shape(name) != expected:
        raise InputError(
            f"{tensors.files[name]}: tensor {name}: config.json says shape {expected}; "
            f"got {tensors.shape(name)}"
        )


def _is_tied_copy(tensors: Tensors, name: str, there: dict[tuple[str, ...], Place]) -> bool:
    """Whether a tensor is the embedding again, as files of tied models may have it."""
    if name not in ("lm_head.weight", "lm_head.kernel"):
        return False
    embedding = there["embedding",].name
    head = tensors.read(name).T if tensors.flax else tensors.read(name)
    if head.shape == tensors.shape(embedding) and np.array_equal(head, tensors.read(embedding)):
        return True
    raise InputError(
        f"{tensors.files[name]}: tensor {name} differs from {embedding}, and config.json says "
        "tie_word_embeddings"
    )


def _fill(tensors: Tensors, there: dict[tuple[str, ...], Place], abstract: Any, dtype: str) -> Any:
    """Read every parameter, one after the other, in the decoder's layout."""
    left = _uses(there)

    def read(keys: Any, leaf: Any) -> jax.Array:
        path = _path(keys)
        place = there[path]
        stack = np.empty(leaf.shape, jnp.dtype(dtype))
        if path[0] != "layers":
            stack[...] = place.from_file(tensors.read(place.name))
        else:
            for layer in range(leaf.shape[0]):
                stack[layer] = place.from_file(tensors.read(place.name.format(layer)))
        left[place.name] -= 1
        if not left[place.name]:
            _forget(tensors, place.name, leaf.shape[0] if path[0] == "layers" else 0)
        return jnp.asarray(stack)

    return jax.tree_util.tree_map_with_path(read, abstract)


def _uses(there: dict[tuple[str, ...], Place]) -> dict[str, int]:
    """Count the parameters that are parts of each tensor."""
    count: dict[str, int] = defaultdict(int)
    for place in there.values():
        count[place.name] += 1
    return count


def _forget(tensors: Tensors, name: str, layers: int) -> None:
    for one in [name.format(layer) for layer in range(layers)] or [name]:
        tensors.forget(one)


def save_model(
    model: LanguageModel,
    directory: str | Path,
    *,
    tokenizer_from: str | Path | None = None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> Path:
    """Write a model as a folder that transformers (and ``load_model``) reads.

    Parameters
    ----------
    model : LanguageModel
        The model; its parameters keep their type.
    directory : path
        Where to. Written beside it in ``.NAME.*`` and renamed when complete: a full disk leaves
        what was there, and so does a killed process, which may leave that folder too. One killed
        in the moment between the two renames that replace a folder leaves the old one as
        ``.NAME.before``; what next reads or writes `directory` puts it back.
    tokenizer_from : path, optional
        Folder whose tokenizer files are copied.
    max_shard_bytes : int
        Largest file; more is split, with an index. Also the memory needed, beyond the model.
    overwrite : bool
        Replace a folder that is not empty, as a whole.

    Returns
    -------
    Path
        `directory`.

    Raises
    ------
    InputError
        If `directory` is a file, or not empty without `overwrite`, or cannot be written, or
        `tokenizer_from` holds no tokenizer.
    """
    return write_checkpoint(
        directory,
        list(model_pieces(model.params, places(model.config), model.config.num_hidden_layers)),
        config_json(model.config, dtype=_dtype(model.params)),
        tokenizer_from=tokenizer_from,
        max_shard_bytes=max_shard_bytes,
        overwrite=overwrite,
    )


def write_checkpoint(
    directory: str | Path,
    pieces: list[Piece],
    config: dict[str, Any],
    *,
    tokenizer_from: str | Path | None = None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> Path:
    """Write tensors and a config as a folder; what is not said here as :func:`save_model`.

    Parameters
    ----------
    directory : path
    pieces : list of Piece
        The tensors, in order.
    config : dict
        Of ``config.json``.
    """
    directory = Path(directory)
    check_count("max_shard_bytes", max_shard_bytes)
    if not is_first():  # its parts of the tensors are asked for, in the order of the files
        for piece in pieces:
            piece.array()
        wait("model written")
        return directory
    _check_target(directory, overwrite)
    copied = _tokenizer_files(tokenizer_from)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{directory.name}.", dir=directory.parent, ignore_cleanup_errors=True
        ) as parent:
            made = Path(parent) / directory.name
            made.mkdir()
            _write_weights(pieces, made, max_shard_bytes)
            _write_json(made / "config.json", config)
            for path in copied:
                shutil.copyfile(path, made / path.name)
            replace_folder(made, directory)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{directory}: cannot be written: {error}") from None
    wait("model written")
    return directory


def _check_target(directory: Path, overwrite: bool) -> None:
    there = is_folder(directory)
    if directory.exists() and not there:
        raise InputError(f"{directory}: expected a folder to write; it is a file")
    if there and any(directory.iterdir()) and not overwrite:
        raise InputError(f"{directory}: expected an empty folder, or overwrite=True; it has files")


def _tokenizer_files(source: str | Path | None) -> list[Path]:
    if source is None:
        return []
    found = [path for name in _TOKENIZER_FILES if (path := Path(source) / name).is_file()]
    if not found:
        raise InputError(f"{source}: expected a folder with tokenizer files; there are none")
    return found


def _dtype(params: Any) -> str:
    return str(jax.tree.leaves(params)[0].dtype)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class Piece(NamedTuple):
    """One tensor to write: the parameters it is made of, in order, and its layer."""

    name: str
    sources: list[tuple[Any, Place]]
    layer: int | None

    def nbytes(self) -> int:
        """Return the tensor's size."""
        return sum(
            leaf.nbytes // (1 if self.layer is None else len(leaf)) for leaf, _ in self.sources
        )

    def array(self) -> np.ndarray:
        """Return the tensor in the file's layout."""
        parts = [
            host_whole(leaf) if self.layer is None else host_entry(leaf, self.layer)
            for leaf, _ in self.sources
        ]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return np.ascontiguousarray(whole.T if self.sources[0][1].transposed else whole)


def model_pieces(
    params: Any, there: dict[tuple[str, ...], Place], num_layers: int
) -> Iterator[Piece]:
    """Yield the tensors of the PyTorch layout, fused ones from their parts."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    leaves = {_path(keys): leaf for keys, leaf in flat}
    grouped: dict[str, list[tuple[Any, Place]]] = defaultdict(list)
    stacked = set()
    for path, place in there.items():
        grouped[place.name].append((leaves[path], place))
        if path[0] == "layers":
            stacked.add(place.name)
    for name, sources in grouped.items():
        sources.sort(key=lambda source: source[1].part or 0)
        if name not in stacked:
            yield Piece(name, sources, None)
            continue
        for layer in range(num_layers):
            yield Piece(name.format(layer), sources, layer)


def _write_weights(pieces: list[Piece], directory: Path, max_bytes: int) -> None:
    """Write one file, or several of at most `max_bytes` and their index."""
    shards: list[list[Piece]] = [[]]
    size = total = 0
    for piece in pieces:
        if shards[-1] and size + piece.nbytes() > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.nbytes()
        total += piece.nbytes()
    names = _shard_names(len(shards))
    for name, shard in zip(names, shards, strict=True):
        tensors = {piece.name: piece.array() for piece in shard}
        save_file(tensors, directory / name, metadata={"format": "pt"})
    if len(shards) > 1:
        held = {
            piece.name: name for name, shard in zip(names, shards, strict=True) for piece in shard
        }
        index = {"metadata": {"total_size": total}, "weight_map": held}
        _write_json(directory / f"{SAFETENSORS}.index.json", index)


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return [SAFETENSORS]
    return [f"model-{shard + 1:05d}-of-{count:05d}.safetensors" for shard in range(count)]
