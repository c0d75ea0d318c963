"""Texts that outputs stand for, and how far they are from those that were meant.

Error rates are edit distances (V. I. Levenshtein, 1966) over the length of the labels, all samples together:
``sum(distance) / sum(length)``. Above 1 where more was read than was there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Array
from nvaudit.errors import DataError, OptionError
from nvaudit.files import read_noted

_MOST_BYTES = 16 << 20


def read_alphabet(path: Path) -> tuple[str, ...]:
    """Read what each class stands for: a line for each, or a JSON list.

    Raises
    ------
    DataError
        If it is neither.
    """
    try:
        text = read_noted(path)[: _MOST_BYTES + 1].decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"--alphabet {path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"--alphabet {path}: is not UTF-8 text") from error
    if path.suffix.lower() == ".json":
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"--alphabet {path}: not valid JSON: {str(error)[:120]}") from error
        if not isinstance(entries, list) or not all(isinstance(one, str) for one in entries):
            raise DataError(f"--alphabet {path}: no JSON list of texts")
        return tuple(entries)
    return split_alphabet(text)


def split_alphabet(text: str) -> tuple[str, ...]:
    r"""One entry a line; of lines only the end is cut off, as a class may stand for a space.

    Examples
    --------
    >>> split_alphabet("a\nb\n \n")
    ('a', 'b', ' ')
    """
    lines = text.split("\n")
    return tuple(line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines))


def fit_alphabet(entries: Sequence[str], classes: int | None, where: str) -> tuple[str, ...]:
    """What each class of a CTC output stands for; the blank, an empty text, is class 0.

    Parameters
    ----------
    entries : sequence of str
        With the blank or without it; a list without a space may lack that too, which models put last.
    classes : int or None
        Of the output; None where it holds decisions.

    Raises
    ------
    DataError
        If there are not as many.

    Examples
    --------
    >>> fit_alphabet(["a", "b"], 3, "")
    ('', 'a', 'b')
    >>> fit_alphabet(["a", "b"], 4, "")
    ('', 'a', 'b', ' ')
    """
    blank = (
        ("", *entries[1:]) if len(entries) == classes or (entries and entries[0] == "") else ("", *entries)
    )
    if classes is None or len(blank) == classes:
        return blank
    if len(blank) == classes - 1 and " " not in blank:
        return (*blank, " ")
    raise DataError(
        f"{where}: {len(entries)} entries, and the output has {classes} classes; wanted one for each class "
        "but the blank, class 0"
    )


def greedy_ctc(decisions: Array, alphabet: Sequence[str]) -> list[str]:
    """Read a text from the class of each step: repeats count once, the blank (class 0) not at all.

    Greedy decoding of connectionist temporal classification (Graves et al., ICML 2006, section 3.2).

    Parameters
    ----------
    decisions : ndarray of int, shape (sample, step)

    Examples
    --------
    >>> greedy_ctc(np.array([[1, 1, 0, 1, 2, 2]]), ["", "a", "b"])
    ['aab']
    """
    texts = []
    for row in decisions.reshape(len(decisions), -1):
        new = np.flatnonzero(np.diff(row, prepend=-1))
        texts.append("".join(alphabet[i] if 0 <= i < len(alphabet) else "" for i in row[new].tolist() if i))
    return texts


def _parts(text: str, words: bool) -> Any:
    return text.split() if words else text


def lengths(texts: Array, *, words: bool) -> NDArray[np.float64]:
    """Characters, or words between white space, of each label."""
    return np.asarray([len(_parts(str(text), words)) for text in texts], np.float64)


def distances(read: Sequence[str], meant: Array, *, words: bool) -> NDArray[np.float64]:
    """Insertions, deletions and substitutions that make what was read what was meant.

    Raises
    ------
    OptionError
        If the library that counts them is not there.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise OptionError("--metric cer and wer need rapidfuzz; run: pip install 'nvaudit[text]'") from error
    pairs = zip(read, meant.tolist(), strict=True)
    return np.asarray(
        [Levenshtein.distance(_parts(one, words), _parts(str(other), words)) for one, other in pairs],
        np.float64,
    )
