"""Reward models: a decoder or DeBERTa with a head of one number for a whole sequence.

A decoder's score is its last token's hidden state times one vector. That vector is the
sequence-classification head of a checkpoint (``score.weight``, one label), or the row of its
vocabulary head that belongs to one token: Llama-3.1-Nemotron-70B-Reward-HF is a plain Llama whose
reward is the logit of token 0 behind the conversation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import InputError
from ._dtypes import at_least_float32, check_dtype
from ._names import Place, places
from ._tensors import Some, Tensors, open_tensors
from .checkpoints import load_model, load_tensors, model_pieces, write_checkpoint
from .config import ARCHITECTURES, DecoderConfig, config_json, decoder_config
from .deberta import DebertaConfig, deberta_config, deberta_scores, load_deberta
from .decoder import LanguageModel, hidden_states
from .rows import FIRST_COMPLETION, Rows, row_mask

HEAD = "score.weight"
_VOCABULARY = ("lm_head.weight", "model.embed_tokens.weight")


class RewardModel(NamedTuple):
    """A reward model taken apart: what is static, and the arrays.

    Parameters
    ----------
    config : DecoderConfig or DebertaConfig
        The shape of what lies below the head.
    graphdef : nnx.GraphDef
        Static and hashable.
    params : dict or nnx.State
        A decoder's: ``backbone``, as ``LanguageModel`` holds it, and ``score``, shape (D,).
    pad_token_id : int or None
        The token that the checkpoint pads with: trailing ones do not count as the last token.
    """

    config: DecoderConfig | DebertaConfig
    graphdef: Any
    params: Any
    pad_token_id: int | None = None


def load_reward_model(
    directory: str | Path, *, dtype: str = "float32", reward_token: int | None = None
) -> RewardModel:
    """Read a reward model from a Hugging Face folder.

    Parameters
    ----------
    directory : path
        Folder with ``config.json`` and safetensors: a sequence classifier of one label on a
        decoder (Llama, Mistral, Nemotron, GPT-2) or on DeBERTa-v2 or -v3, or a plain language
        model with `reward_token`.
    dtype : {"float32", "bfloat16", "float16", "float64"}
        Type of the parameters and so of the computation; the score itself is at least float32.
    reward_token : int, optional
        Of a language model without a head for rewards: the token whose logit, behind the last
        token, is the score. 0 for Llama-3.1-Nemotron-70B-Reward-HF.

    Returns
    -------
    RewardModel

    Raises
    ------
    InputError
        If a file is missing or not whole, tensors do not fit the config, the head has more than
        one label, or there is none and no `reward_token` (or both).

    Examples
    --------
    >>> load_reward_model("no/such/folder")
    Traceback (most recent call last):
    ...
    jaxpref._checks.InputError: no/such/folder: expected a folder with a model; there is none
    """
    directory = Path(directory)
    check_dtype(dtype)
    tensors = open_tensors(directory)
    keys = _config(directory)
    if keys.get("model_type") == "deberta-v2":
        return _load_deberta(tensors, keys, directory, dtype, reward_token)
    config = decoder_config(directory)
    score = _head(tensors, keys, directory, reward_token)
    if HEAD in tensors.files:
        config = replace(config, tie_word_embeddings=True)  # it has no vocabulary head
        tensors = Some(tensors, lambda name: name != HEAD)
    model = load_tensors(tensors, config, directory, dtype)
    made = reward_model(model, score)
    return made._replace(pad_token_id=keys.get("pad_token_id"))


def reward_model(model: LanguageModel, score: Any = None) -> RewardModel:
    """Return a language model with a head for rewards in place of its vocabulary's.

    Parameters
    ----------
    model : LanguageModel
        What lies below; where its embedding is not tied, the vocabulary head is left out.
    score : array, shape (D,), optional
        The head; zeros, with which every preference starts at 1/2, if left out.

    Returns
    -------
    RewardModel

    Examples
    --------
    >>> from jaxpref.llm import decoder_config, initial_model
    >>> config = decoder_config({"model_type": "llama", "vocab_size": 11, "hidden_size": 8,
    ...     "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2})
    >>> made = reward_model(initial_model(config, jax.random.key(0)))
    >>> made.params["score"].shape
    (8,)
    """
    from .decoder import abstract_model

    config = replace(model.config, tie_word_embeddings=True)
    kind = jax.tree.leaves(model.params)[0].dtype
    graphdef, _ = abstract_model(config, str(kind))
    backbone = type(model.params)({k: v for k, v in dict(model.params).items() if k != "head"})
    width = config.hidden_size
    head = jnp.zeros(width, kind) if score is None else jnp.asarray(score).astype(kind)
    if head.shape != (width,):
        raise InputError(f"score: expected shape ({width},); got {head.shape}")
    return RewardModel(config, graphdef, {"backbone": backbone, "score": head})


def starting_model(directory: str | Path, *, dtype: str = "float32") -> RewardModel:
    """Read what training starts from: a reward model, or a language model given a fresh head.

    Parameters and errors as :func:`load_reward_model`.
    """
    if HEAD in open_tensors(Path(directory)).files:
        return load_reward_model(directory, dtype=dtype)
    return reward_model(load_model(directory, dtype=dtype))


def _config(directory: Path) -> Mapping[str, Any]:
    path = directory / "config.json"
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: expected a config.json; there is no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a readable JSON file; got {error}") from None
    if not isinstance(keys, dict):
        raise InputError(f"{path}: expected a JSON object; got {type(keys).__name__}")
    return keys


def _head(
    tensors: Tensors, keys: Mapping[str, Any], directory: Path, reward_token: int | None
) -> np.ndarray:
    """Return the vector that a last hidden state is multiplied with."""
    if HEAD in tensors.files:
        if reward_token is not None:
            raise InputError(
                f"reward_token: expected none for {directory}, which has a head of its own ({HEAD})"
            )
        check_one_label(tensors, HEAD, keys)
        return tensors.read(HEAD)[0]
    if reward_token is None:
        raise InputError(
            f"{directory}: expected a head for rewards ({HEAD}); there is none. For a language "
            "model whose reward is the logit of one token, name it: reward_token=0 "
            "(--reward-token 0) for Llama-3.1-Nemotron-70B-Reward-HF"
        )
    name = next((name for name in _VOCABULARY if name in tensors.files), None)
    if name is None:
        raise InputError(f"{directory}: expected the tensor {_VOCABULARY[0]}; there is none")
    rows = tensors.shape(name)[0]
    if not 0 <= reward_token < rows:
        raise InputError(f"reward_token: expected an id in [0, {rows}); got {reward_token}")
    return tensors.read(name)[reward_token]


def check_one_label(tensors: Tensors, name: str, keys: Mapping[str, Any]) -> None:
    """Require a head of one label; the message names those it has."""
    count = tensors.shape(name)[0]
    if count != 1:
        labels = keys.get("id2label") or {}
        named = f": {', '.join(map(str, labels.values()))}" if len(labels) == count else ""
        raise InputError(
            f"{tensors.files[name]}: {name}: expected one label, the reward; got {count}{named}"
        )


def _load_deberta(
    tensors: Tensors,
    keys: Mapping[str, Any],
    directory: Path,
    dtype: str,
    reward_token: int | None,
) -> RewardModel:
    if reward_token is not None:
        raise InputError(f"reward_token: expected none for {directory}, which predicts no tokens")
    if "classifier.weight" not in tensors.files:
        raise InputError(f"{directory}: expected a head for rewards (classifier.weight)")
    check_one_label(tensors, "classifier.weight", keys)
    config = deberta_config(keys, source=str(directory / "config.json"))
    graphdef, params = load_deberta(tensors, config, directory, dtype)
    return RewardModel(config, graphdef, params, config.pad_token_id)


# Scores ---------------------------------------------------------------------------------------


def sequence_scores(
    config: DecoderConfig | DebertaConfig,
    graphdef: Any,
    params: Any,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    *,
    attention: str = "direct",
) -> Float[Array, " B"]:
    """Return the score of each sequence, padded behind.

    Parameters
    ----------
    config, graphdef, params
        The model, as ``RewardModel`` holds it; `config` and `graphdef` static under jit.
    tokens : int32 array, shape (B, T)
        Token ids; whatever stands at and behind a row's length is padding.
    lengths : int32 array, shape (B,)
        Tokens of each row, from 1 to T. A decoder is read at the last of them.
    attention : {"direct", "xla", "cudnn"}
        As in :func:`jaxpref.llm.hidden_states`; of no part in DeBERTa.

    Returns
    -------
    array, shape (B,)
        Scores (nats), at least float32.
    """
    if isinstance(config, DebertaConfig):
        return deberta_scores(graphdef, params, tokens, lengths)
    hidden = hidden_states(graphdef, params["backbone"], tokens, attention=attention)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return _score(last, params["score"])


def row_scores(
    graphdef: Any,
    params: Any,
    rows: Rows,
    *,
    completions: int = 2,
    sliding_window: int | None = None,
    attention: str = "direct",
    remat: str = "none",
) -> Float[Array, "R K"]:
    """Return the score of every completion of shared rows, as each sequence alone would have.

    Parameters
    ----------
    graphdef, params
        A reward model on a decoder.
    rows : Rows
        ``prompt | completion | completion | ...`` with restarted positions.
    completions : int
        K.
    sliding_window : int, optional
        The model's.
    attention, remat : str
        As in :func:`jaxpref.llm.hidden_states`.

    Returns
    -------
    array, shape (R, K)
        Scores (nats), at least float32. Differentiable.
    """
    tokens, positions, segments = (jnp.asarray(field) for field in rows)
    mask = row_mask(segments, positions, sliding_window)
    hidden = hidden_states(
        graphdef,
        params["backbone"],
        tokens,
        positions=positions,
        mask=mask,
        attention=attention,
        remat=remat,
    )
    which = jnp.arange(FIRST_COMPLETION, FIRST_COMPLETION + completions, dtype=segments.dtype)
    index = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    last = jnp.max(jnp.where(segments[:, None, :] == which[:, None], index, 0), axis=-1)
    # A product with one-hot rows: its transpose is no scatter, which is slow on a processor.
    chosen = jax.nn.one_hot(last, tokens.shape[1], dtype=hidden.dtype)
    return _score(jnp.einsum("rkt,rtd->rkd", chosen, hidden), params["score"])


def _score(hidden: Float[Array, "... D"], head: Float[Array, " D"]) -> Float[Array, "..."]:
    exact = at_least_float32(hidden.dtype)
    return jnp.einsum("...d,d->...", hidden, head, preferred_element_type=exact)


def last_token(ids: Any, pad_token_id: int | None) -> int:
    """Return how many tokens count: up to the last that is not the padding token.

    transformers reads a sequence classifier there, by the ids; a sequence of padding alone counts
    as its first token.

    >>> last_token([5, 7, 2, 2], 2), last_token([5, 7], None), last_token([2, 2], 2)
    (2, 2, 1)
    """
    count = len(ids)
    while pad_token_id is not None and count > 1 and ids[count - 1] == pad_token_id:
        count -= 1
    return count


# Writing --------------------------------------------------------------------------------------


def save_reward_model(
    model: RewardModel,
    directory: str | Path,
    *,
    tokenizer_from: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a reward model as a sequence classifier that transformers (and this package) reads.

    Parameters and errors as :func:`jaxpref.llm.save_model`; the model's must be a decoder's.
    """
    config = model.config
    if not isinstance(config, DecoderConfig):
        raise InputError("model: expected a reward model on a decoder; got one on DeBERTa")
    backbone = model.params["backbone"]
    tree = {**dict(backbone), "score": model.params["score"][None]}
    there = {**places(config), ("score",): Place(HEAD)}
    content = config_json(config, dtype=str(model.params["score"].dtype))
    name = ARCHITECTURES[config.architecture]
    name = name.replace("ForCausalLM", "").replace("LMHeadModel", "")
    content["architectures"] = [f"{name}ForSequenceClassification"]
    content |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    if model.pad_token_id is not None:
        content["pad_token_id"] = model.pad_token_id
    pieces = list(model_pieces(tree, there, config.num_hidden_layers))
    return write_checkpoint(
        directory, pieces, content, tokenizer_from=tokenizer_from, overwrite=overwrite
    )
