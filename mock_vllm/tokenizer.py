"""A small tokenizer without a vocabulary file: text to tokens and back, the same on every machine.

A token is up to four letters or three digits with the space before them, one punctuation mark with the space
before it, up to four blanks, or one character of any other kind. English comes out at about 3.2 characters a
token, where a real vocabulary of 32,000 entries has about 4; code and JSON come out lower, as there.

Ids need no table: below 16 are the special tokens; from 16 on, the ASCII characters of a token are read as a
number in base 128, with one more bit for the space before; from 2**30 on is one character by code point.
Every id below 2**31 either means a token or raises `ValueError`.
"""

from __future__ import annotations

import re

BOS, EOS = "<s>", "</s>"
SPECIAL_TOKENS = (
    "<unk>",
    BOS,
    EOS,
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)

_SPECIAL_IDS = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
_FIRST_TEXT_ID = 16
_SPACE_BIT = 1 << 28
_FIRST_CHARACTER_ID = 1 << 30
VOCABULARY_SIZE = _FIRST_CHARACTER_ID + 0x110000

_PIECES = re.compile(
    r" ?[A-Za-z]{1,4}"
    r"| ?[0-9]{1,3}"
    r"| ?[!-/:-@\[-`{-~]"
    r"|[ \t\r\n]{1,4}?(?![ \t\r\n])"
    r"|[ \t\r\n]{4}"
    r"|[\x00-\x7f]"
    r"|[^\x00-\x7f]"
)


def pieces(text: str) -> list[str]:
    """The tokens of a text, as text. Joined they are the text again; special tokens are never made."""
    return _PIECES.findall(text)


def token_id(piece: str) -> int:
    """The id of one token."""
    special = _SPECIAL_IDS.get(piece)
    if special is not None:
        return special
    if len(piece) == 1 and not piece.isascii():
        return _FIRST_CHARACTER_ID + ord(piece)
    number = 0
    # A blank token is its characters; only a token with something after the space has it as a bit.
    spaced = piece[0] == " " and not piece.isspace()
    for character in piece[1:] if spaced else piece:
        number = number << 7 | ord(character)
    return _FIRST_TEXT_ID + (number | _SPACE_BIT if spaced else number)


def token_text(number: int) -> str:
    """The token of an id; raises `ValueError` for an id that means nothing."""
    if 0 <= number < len(SPECIAL_TOKENS):
        return SPECIAL_TOKENS[number]
    if _FIRST_CHARACTER_ID <= number < VOCABULARY_SIZE:
        return chr(number - _FIRST_CHARACTER_ID)
    packed = number - _FIRST_TEXT_ID
    if not 0 <= packed < 2 * _SPACE_BIT:
        raise ValueError(f"Token id {number} is out of vocabulary")
    spaced, packed = packed >= _SPACE_BIT, packed & (_SPACE_BIT - 1)
    characters = [chr(packed & 0x7F)]
    while packed := packed >> 7:
        characters.append(chr(packed & 0x7F))
    return (" " if spaced else "") + "".join(reversed(characters))
