"""Who an answer prefers: rules for short English answers about two named options.

An answer counts only where the rules are sure; everything else is *unparsable* and is counted as
such by the probes, never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jaxpref._checks import InputError

from .animals import ANIMALS

# What an answer says before the option that it does not prefer.
_AGAINST = r"(?:over|than|instead of|compared (?:to|with)|outweighs?|beats?|versus|vs\.?)"
# Words that turn an answer round, or take it back.
_DOUBT = re.compile(
    r"\b(?:not|never|neither|nor|less|least|worse|hates?|dislikes?|avoids?|both|either|equally|"
    r"but|depends?|cannot|unsure|no)\b|n't\b"
)
# Words of which an answer that names one option alone must have one.
_TAKES_SIDES = re.compile(
    r"\b(?:prefer\w*|choos\w*|chose|choice|pick\w*|select\w*|opt|favou?r\w*|lik(?:e|es|ed)|"
    r"lov(?:e|es|ed)|lean\w*|drawn|side|gravitat\w*|appeal\w*|attractive|better|best|more|top|"
    r"rather|inclin\w*|satisfied|affinity|partial|prioriti\w*|resonat\w*|go with|go for)\b"
)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?\n]*")


def preferred(text: str, first: str, second: str, *, known: Sequence[str] = ANIMALS) -> str | None:
    """Return which of two options an answer prefers, or None where that is not clear.

    Each sentence that names an option is judged by itself, and all must agree. Clauses that weigh
    the options without taking sides ("between X and Y", "considering X and Y", "X or Y") are set
    aside. Of what is left: with both options, the winner is the one that does not stand behind
    "over", "than", "instead of", "compared to", "outweighs" and the like, if exactly one does; with
    one option, that one, where it is all there is or the sentence takes sides ("I just prefer X").
    A sentence that is a question, negates ("not", "less", "neither", ...), or names another of the
    known options is not clear.

    Parameters
    ----------
    text : str
        The answer.
    first, second : str
        The options as singular nouns: "dog" is found in "a dog", "Dogs" and "the dog".
    known : sequence of str
        All options; a sentence that names one not asked about is not clear.

    Returns
    -------
    str or None
        `first`, `second` or None.

    Raises
    ------
    InputError
        If `first` and `second` are the same.

    Notes
    -----
    Rules for short English answers, tested on the paper's 30 templates (appendix C.2), either
    option preferred, and on answers that must not be parsed. They err towards None.

    Examples
    --------
    >>> preferred("Given the options, I'd opt for a dog instead of a cat.", "cat", "dog")
    'dog'
    >>> preferred("Between dogs and cats, cats come out on top for me.", "cat", "dog")
    'cat'
    >>> preferred("I don't prefer a dog.", "cat", "dog") is None
    True
    """
    if first == second:
        raise InputError(f"second: expected an option other than {first!r}; got the same")
    options = (first.lower(), second.lower())
    others = [name.lower() for name in known if name.lower() not in options]
    verdicts = set()
    for sentence in _SENTENCE.findall(text.lower().replace("\u2019", "'")):
        if _mentions(sentence, (*options, *others)):
            verdicts.add(_verdict(sentence, options, others))
    found = verdicts.pop() if len(verdicts) == 1 else None
    return None if found is None else (first, second)[options.index(found)]


def _noun(options: Sequence[str]) -> str:
    """Return a pattern that matches one of the options with its article or plural."""
    return rf"(?:(?:a|an|the) )?\b({'|'.join(map(re.escape, options))})s?\b"


def _mentions(sentence: str, options: Sequence[str]) -> list[str]:
    return re.findall(_noun(options), sentence)


def _verdict(sentence: str, options: tuple[str, str], others: Sequence[str]) -> str | None:
    """Return the option that a sentence prefers, or None."""
    if "?" in sentence or _DOUBT.search(sentence) or (others and _mentions(sentence, others)):
        return None
    noun = _noun(options)
    sentence = re.sub(rf"(\bprefer\w* {noun}) to {noun}", r"\1 over \3", sentence)
    rest = _without_weighing(sentence, noun)
    losers = re.findall(rf"\b{_AGAINST} (?:(?:in|for|with|to|by) )?{noun}", rest)
    named = _mentions(rest, options)
    for loser in losers:
        named.remove(loser)
    winners = set(named)
    if len(winners) != 1 or winners & set(losers):
        return None
    alone = re.fullmatch(rf"\W*{noun}\W*", rest.strip()) is not None
    return winners.pop() if losers or alone or _TAKES_SIDES.search(rest) else None


def _without_weighing(sentence: str, noun: str) -> str:
    """Return a sentence without the clauses that name both options and take no side."""
    both = rf"{noun}(?: and | or | against | with | to | versus ){noun}"
    weighing = r"between|considering|weighing|comparing|of|from|with only|given"
    sentence = re.sub(rf"\b(?:{weighing}) {both}", " ", sentence)
    return re.sub(rf"{noun} or {noun}", " ", sentence)
