r"""Table C3's procedure with a model: small rewrites of two responses that flip a preference.

From a prompt with responses y_i and y_k, p_ik >= 0.99, y_i is rewritten into y_i' until
p_i'k is about 0.98, and y_k into y_j until p_kj <= 0.02; where then p_i'j < 1/2 < p_ij, the
preference between two good and one bad response hangs on the wording (section C.5.2).

Rewrites delete a word or a sentence, or insert a word. Which words, says the gradient of the score
with respect to the embeddings: to first order, a token v in the place t changes the score by
g_t . (e_v - e_t). Every rewrite that is kept was scored by the model itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import InputError, check_count
from ..links import logistic
from ..rewards.quadruples import PAPER_RULE, QuadrupleRule
from .reward_models import RewardModel, sequence_scores
from .reward_rows import Candidates, Prompt, encode_candidates
from .reward_scoring import score_sequences
from .rows import round_up_width

_SENTENCE = re.compile(r"[^.!?]*[.!?]+\s*|[^.!?]+$")


class Rewrite(NamedTuple):
    """A response, its score (nats), and how many words were deleted or inserted to make it."""

    text: str
    score: float
    edits: int


class Flip(NamedTuple):
    """A good response y_i' that loses to a bad y_j, each a few words from one that does not.

    Attributes
    ----------
    source : str
        Where the record stands.
    i, i_prime, k, j : Rewrite
        y_i and y_k as they were, y_i' and y_j as they were made.
    p_ik, p_i_prime_k, p_kj, p_ij, p_i_prime_j : float
        Table C3's five probabilities.
    """

    source: str
    i: Rewrite
    i_prime: Rewrite
    k: Rewrite
    j: Rewrite
    p_ik: float
    p_i_prime_k: float
    p_kj: float
    p_ij: float
    p_i_prime_j: float

    def to_dict(self, *, texts: bool = False) -> dict[str, Any]:
        """Return everything for JSON; the responses' texts only if asked for."""
        content = self._asdict()
        for name in ("i", "i_prime", "k", "j"):
            content[name] = content[name]._asdict()
            if not texts:
                del content[name]["text"]
        return content


class FlipSearch(NamedTuple):
    """What came of the search over many records.

    Attributes
    ----------
    tried : int
        Records looked at.
    strong : int
        Those with p_ik at least as large as the rule asks.
    near : int
        Of these, those for which some y_i' was found.
    flips : tuple of Flip
        And some y_j, in the order of the records.
    """

    tried: int
    strong: int
    near: int
    flips: tuple[Flip, ...]


def find_flips(
    model: RewardModel,
    tokenizer: Any,
    candidates: Sequence[Candidates],
    *,
    rule: QuadrupleRule = PAPER_RULE,
    most_edits: int = 12,
    insertions: int = 32,
    max_length: int | None = None,
    as_chat: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FlipSearch:
    """Rewrite the responses of pairs until preferences flip, as Table C3 does by hand.

    Parameters
    ----------
    model : RewardModel
    tokenizer : transformers tokenizer
    candidates : sequence of Candidates
        Pairs; the response that scores higher is y_i.
    rule : QuadrupleRule
        The preferences asked for.
    most_edits : int
        Most words deleted or inserted in one response.
    insertions : int
        Guided insertions tried in each round, besides every deletion.
    max_length : int, optional
        Longest sequence; the model's context by default.
    as_chat : bool
        Render text prompts with the tokenizer's chat template too, dialogues turn by turn.
    progress : callable, optional
        Called with records done and in all.

    Returns
    -------
    FlipSearch

    Raises
    ------
    InputError
        For a record that is no pair.

    Notes
    -----
    Greedy: each round keeps the edit whose score comes nearest to what is wanted, and stops where
    none comes nearer. A flip that is not found may exist.

    References
    ----------
    Ebrahimi et al., "HotFlip", ACL 2018: the first-order ranking of tokens. Xu and Kankanhalli
    (ICLR 2025), section C.5.2.
    """
    check_count("most_edits", most_edits)
    check_count("insertions", insertions, at_least=0)
    writer = _Writer(model, tokenizer, most_edits, insertions, max_length, as_chat)
    strong = near = 0
    flips = []
    for number, record in enumerate(candidates):
        if len(record.texts) != 2:
            raise InputError(f"{record.source}: expected a pair; got {len(record.texts)} responses")
        stage, flip = _one_record(writer, record, rule)
        strong, near = strong + (stage >= 1), near + (stage >= 2)
        flips += [] if flip is None else [flip]
        if progress is not None:
            progress(number + 1, len(candidates))
    return FlipSearch(len(candidates), strong, near, tuple(flips))


def _one_record(
    writer: _Writer, record: Candidates, rule: QuadrupleRule
) -> tuple[int, Flip | None]:
    """Return how far a record came (1: strong, 2: y_i' found) and its flip."""
    prompt = record.texts[0][0]
    scores = writer.scores(prompt, [text for _, text in record.texts])
    better = int(scores[1] > scores[0])
    i, k = (Rewrite(record.texts[n][1], float(scores[n]), 0) for n in (better, 1 - better))
    strong, low, high, weak = (
        float(logistic.margin(p))
        for p in (rule.strong, rule.near - rule.tolerance, rule.near + rule.tolerance, rule.weak)
    )
    if i.score - k.score < strong:
        return 0, None
    i_prime = writer.rewrite(prompt, i, k.score + low, min(k.score + high, i.score))
    if i_prime is None:
        return 1, None
    j = writer.rewrite(prompt, k, max(i_prime.score, k.score - weak), i.score)
    return 2, None if j is None else _flip(record.source, i, i_prime, k, j)


def _flip(source: str, i: Rewrite, i_prime: Rewrite, k: Rewrite, j: Rewrite) -> Flip:
    pairs = ((i, k), (i_prime, k), (k, j), (i, j), (i_prime, j))
    chances = [float(logistic.probability(a.score - b.score)) for a, b in pairs]
    return Flip(source, i, i_prime, k, j, *chances)


class _Writer:
    """A model, and how far it may rewrite."""

    def __init__(
        self,
        model: RewardModel,
        tokenizer: Any,
        most_edits: int,
        insertions: int,
        max_length: int | None,
        as_chat: bool,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.most_edits, self.insertions = most_edits, insertions
        context = model.config.max_position_embeddings
        self.max_length = context if max_length is None else max_length
        self.as_chat = as_chat
        self.words = _words(tokenizer, model.config.vocab_size)

    def sequences(self, prompt: Prompt, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return a prompt with each of some responses as token ids."""
        records = [Candidates("", ("1",), ((prompt, text),), "rewrite") for text in texts]
        encoded = encode_candidates(
            records,
            self.tokenizer,
            max_length=self.max_length,
            config=self.model.config,
            as_chat=self.as_chat,
        )
        return [(*tokens.prompt, *tokens.completions[0]) for tokens in encoded.records]

    def scores(self, prompt: Prompt, texts: Sequence[str]) -> np.ndarray:
        """Return the scores of responses to a prompt."""
        return score_sequences(self.model, self.sequences(prompt, texts))

    def rewrite(self, prompt: Prompt, start: Rewrite, low: float, high: float) -> Rewrite | None:
        """Return a rewrite whose score lies strictly between two bounds, or None."""
        now, wanted = start, (low + high) / 2
        seen = {start.text}
        while not low < now.score < high:
            texts = small_edits(now.text)
            texts += self.insert(prompt, now.text, up=now.score < wanted)
            texts = [text for text in dict.fromkeys(texts) if text not in seen]
            texts = [t for t in texts if word_distance(start.text, t) <= self.most_edits]
            if not texts:
                return None
            found = self.scores(prompt, texts)
            best = int(np.argmin(np.abs(found - wanted)))
            if abs(found[best] - wanted) >= abs(now.score - wanted):
                return None
            edits = word_distance(start.text, texts[best])
            now = Rewrite(texts[best], float(found[best]), edits)
            seen.add(now.text)
        return now if now.edits else None

    def insert(self, prompt: Prompt, text: str, *, up: bool) -> list[str]:
        """Return a response with one word more, those first that move the score most."""
        if not self.insertions or not self.words:
            return []
        (ids,) = self.sequences(prompt, [text])
        slope = embedding_gradient(self.model, ids)
        own = len(ids) - min(len(self.tokenizer.encode(text, add_special_tokens=False)), len(ids))
        table = _table(self.model)
        numbers = np.array(list(self.words))
        gain = (
            slope[own:] @ table[numbers].T
            - np.sum(slope[own:] * table[list(ids[own:])], 1)[:, None]
        )
        order = np.argsort(-gain if up else gain, axis=None)[: self.insertions]
        lead, parts = _cut(text)
        count = len(parts) // 2 + 1
        found = []
        for place, word in zip(*np.unravel_index(order, gain.shape), strict=True):
            at = round(place / max(len(gain) - 1, 1) * count)
            found.append(lead + _with(parts, at, self.words[int(numbers[word])]))
        return found


def _words(tokenizer: Any, rows: int) -> dict[int, str]:
    """Return the tokens that are words of their own, by id."""
    found = {}
    for number in range(min(len(tokenizer), rows)):
        word = tokenizer.decode([number]).strip()
        if word.isalpha() and (len(word) > 2 or word.lower() in ("i", "a", "no", "so", "we")):
            found[number] = word
    return found


def _table(model: RewardModel) -> np.ndarray:
    part = model.params["backbone"] if _is_decoder(model) else model.params
    return np.asarray(part["embedding"][...], np.float32)


def _is_decoder(model: RewardModel) -> bool:
    return model.config.architecture != "deberta-v2"


def embedding_gradient(model: RewardModel, ids: Sequence[int]) -> np.ndarray:
    """Return the gradient of a sequence's score with respect to each token's embedding.

    Parameters
    ----------
    model : RewardModel
    ids : sequence of int
        The sequence's tokens, T of them.

    Returns
    -------
    ndarray of float32, shape (T, D)
    """
    width = round_up_width(len(ids))
    tokens = np.zeros(width, np.int32)
    tokens[: len(ids)] = ids
    found = _gradient(
        model.params,
        jnp.asarray(tokens),
        jnp.asarray([len(ids)], jnp.int32),
        config=model.config,
        graphdef=model.graphdef,
    )
    return np.asarray(found, np.float32)[: len(ids)]


@partial(jax.jit, static_argnames=("config", "graphdef"))
def _gradient(
    params: Any, tokens: jax.Array, length: jax.Array, *, config: Any, graphdef: Any
) -> jax.Array:
    """Return the gradient, by giving every place a row of the embedding of its own."""
    decoder = isinstance(params, dict)
    part = params["backbone"] if decoder else params
    table = part["embedding"][...]
    places = jnp.arange(tokens.shape[0], dtype=jnp.int32) + len(table)

    def score(rows: jax.Array) -> jax.Array:
        other = type(part)(dict(part))
        other["embedding"] = part["embedding"].replace(jnp.concatenate([table, rows]))
        whole = {**params, "backbone": other} if decoder else other
        return sequence_scores(config, graphdef, whole, places[None], length)[0]

    return jax.grad(score)(table[tokens])


def small_edits(text: str) -> list[str]:
    r"""Return a text without one of its words, and without one of its sentences.

    The white space between what is left stays; of the two gaps beside a word, that with more line
    breaks.

    >>> small_edits("Yes. Why not?")
    ['Why not?', 'Yes. not?', 'Yes. Why', 'Yes.']
    >>> small_edits("First:\none")
    ['one', 'First:']
    """
    lead, parts = _cut(text)
    words = len(parts) // 2 + 1
    found = [_without(parts, 2 * n) for n in range(words) if words > 1]
    sentences = [part for part in _SENTENCE.findall(text.strip()) if part.strip()]
    if len(sentences) > 1:
        rest = ("".join(sentences[:n] + sentences[n + 1 :]) for n in range(len(sentences)))
        found += [part.strip() for part in rest]
    return [lead + line for line in dict.fromkeys(found)]


def _cut(text: str) -> tuple[str, list[str]]:
    """Return a text's white space at the start, and its words and the gaps between them in turn."""
    body = text.strip()
    return text[: text.find(body)], re.split(r"(\s+)", body)


def _without(parts: list[str], at: int) -> str:
    """Return words and gaps without one word, and without one of the gaps beside it."""
    if at == 0 or at == len(parts) - 1:
        return "".join(parts[2:] if at == 0 else parts[:-2])
    gap = max(parts[at - 1], parts[at + 1], key=lambda gap: gap.count("\n"))
    return "".join([*parts[: at - 1], gap, *parts[at + 2 :]])


def _with(parts: list[str], at: int, word: str) -> str:
    """Return words and gaps with one word more, before the word numbered `at` or at the end.

    >>> _with(["a", " ", "b"], 1, "new"), _with(["a"], 1, "new"), _with([""], 0, "new")
    ('a new b', 'a new', 'new')
    """
    place = 2 * at
    if place > len(parts):
        return "".join([*parts, " ", word]).strip()
    return "".join([*parts[:place], word, " ", *parts[place:]]).strip()


def word_distance(one: str, other: str) -> int:
    """Return how many words have to be deleted and inserted to make one text the other.

    Myers' greedy algorithm (1986): as many steps as words, and the square of the edits.

    >>> word_distance("why not go", "why go now")
    2
    """
    left, right = one.split(), other.split()
    far = {1: 0}  # words of `one` used, by how many more of them than of `other`
    edits = 0
    while True:
        for ahead in range(-edits, edits + 1, 2):
            insert = ahead == -edits or (ahead < edits and far[ahead - 1] < far[ahead + 1])
            at = far[ahead + 1] if insert else far[ahead - 1] + 1
            while at < min(len(left), len(right) + ahead) and left[at] == right[at - ahead]:
                at += 1
            far[ahead] = at
            if at >= len(left) and at - ahead >= len(right):
                return edits
        edits += 1
