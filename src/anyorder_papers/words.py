"""Words for searching: stems of a text, and the field's thesaurus."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from types import MappingProxyType

from anyorder_papers.errors import PapersError

STOP = frozenset(
    {
        "a", "about", "all", "also", "an", "and", "any", "are", "as", "at", "be", "but", "by",
        "can", "do", "does", "each", "for", "from", "has", "have", "how", "i", "if", "in",
        "into", "is", "it", "its", "many", "may", "more", "much", "my", "no", "not", "of", "off",
        "on", "one", "only", "or", "other", "our", "out", "over", "so", "some", "something",
        "such", "than", "that", "the", "their", "them", "then", "there", "these", "they", "this",
        "those", "to", "too", "up", "use", "used", "using", "very", "want", "was", "we", "what",
        "when", "where", "which", "while", "who", "whose", "why", "will", "with", "without",
        "you", "your",
    }
)  # fmt: skip
SHORTEST_STEM = 3

_ORDINALS = frozenset({"zero", "zeroth", "first", "second", "third", "fourth", "higher", "high"})

# Longest first; the first one that leaves a long enough stem is replaced. British and American #
# spellings have the same stem: optimise, optimizer and optimisation all become "optim".
_SUFFIXES = (
    ("isations", ""), ("izations", ""), ("isation", ""), ("ization", ""), ("fulness", ""),
    ("ational", ""), ("isers", ""), ("izers", ""), ("iser", ""), ("izer", ""), ("ising", ""),
    ("izing", ""), ("ments", ""), ("ation", ""), ("ations", ""), ("ingly", ""), ("ities", ""),
    ("ised", ""), ("ized", ""), ("ises", ""), ("izes", ""), ("ment", ""), ("tion", "t"),
    ("tions", "t"), ("ings", ""), ("ness", ""), ("ical", "ic"), ("ally", ""), ("ise", ""),
    ("ize", ""), ("ing", ""), ("ers", ""), ("ies", "i"), ("ity", ""), ("ed", ""), ("er", ""),
    ("es", ""), ("ly", ""), ("al", ""), ("y", "i"), ("e", ""), ("s", ""),
)  # fmt: skip


def stem(word: str) -> str:
    """Approximate the stem of a lower-case English word.

    The result has at least three letters and is meant for comparison only.
    """
    if word.endswith("ss"):
        return word
    for ending, replacement in _SUFFIXES:
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST_STEM:
            cut = word[: -len(ending)] + replacement
            # running -> runn -> run, but not pass -> pas
            if len(cut) > SHORTEST_STEM and cut[-1] == cut[-2] and cut[-1] not in "aeiosl":
                cut = cut[:-1]
            return cut
    return word


def tokens(text: str) -> list[str]:
    """Return the stems of a text in order, without stop words; hyphens and accents are ignored.

    An ordinal followed by "order" is one token, such as ``"zeroth-order"``: "order" alone occurs in
    half of the catalogue and is not informative.
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    found: list[str] = []
    for word in re.findall(r"\w+", plain):
        if word == "order" and found and found[-1] in _ORDINALS:
            found.append(f"{found[-1]}-order")
        elif word not in STOP:
            found.append(stem(word))
    return found


def expand(
    query: Sequence[str], thesaurus: Mapping[tuple[str, ...], frozenset[str]], weight: float
) -> dict[str, float]:
    """Return the weights of stems: 1 for those of the query, ``weight`` for related ones.

    Args:
        query: Stems of the query.
        thesaurus: Related stems by phrase, as from :func:`thesaurus`.
        weight: Weight of a related stem, 0 to 1.
    """
    wanted = dict.fromkeys(query, 1.0)
    for phrase in _phrases(query, thesaurus):
        for word in thesaurus[phrase]:
            wanted[word] = max(wanted.get(word, 0.0), weight)
    return wanted


@cache
def thesaurus() -> Mapping[tuple[str, ...], frozenset[str]]:
    """Return the thesaurus: related stems for each phrase (as stems).

    Raises:
        PapersError: If the file does not have the expected format.
    """
    file = resources.files("anyorder_papers") / "thesaurus.toml"
    return build_thesaurus(tomllib.loads(file.read_text(encoding="utf-8")))


def build_thesaurus(
    document: Mapping[str, list[Mapping[str, list[str]]]],
) -> Mapping[tuple[str, ...], frozenset[str]]:
    """Convert the document to related stems by phrase.

    Args:
        document: ``same``: groups of synonymous ``words``. ``leads``: ``from`` phrases that are
            expanded to ``to`` phrases, but not vice versa.

    Raises:
        PapersError: If an entry lacks one of these or a phrase consists of stop words.
    """
    related: dict[tuple[str, ...], set[str]] = {}
    for entry in document.get("same", []):
        _relate(related, entry, "words", "words")
    for entry in document.get("leads", []):
        _relate(related, entry, "from", "to")
    return MappingProxyType({phrase: frozenset(words) for phrase, words in related.items()})


def _relate(
    related: dict[tuple[str, ...], set[str]],
    entry: Mapping[str, list[str]],
    asked: str,
    wanted: str,
) -> None:
    if not entry.get(asked) or not entry.get(wanted):
        raise PapersError(f"thesaurus: expected '{asked}' and '{wanted}' in {dict(entry)}")
    words = {word for phrase in entry[wanted] for word in tokens(phrase)}
    for text in entry[asked]:
        phrase = tuple(tokens(text))
        if not phrase:
            raise PapersError(f"thesaurus: {text!r} consists of stop words only")
        related.setdefault(phrase, set()).update(words - set(phrase))


def _phrases(query: Sequence[str], known: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    for phrase in known:
        size = len(phrase)
        if any(tuple(query[i : i + size]) == phrase for i in range(len(query) - size + 1)):
            yield phrase
