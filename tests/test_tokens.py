"""Tokens of a bridge: made, read, and shown nowhere."""

import copy
import pickle
import re
import traceback

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from capmarshal._bridge_link.tokens import Token

NAME, KEY = bytes(range(16)), bytes(range(100, 132))
TEXT = "cm1:host-a:000102030405060708090a0b0c0d0e0f:6465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283"

exporters = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
tokens = st.builds(Token, exporters, st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))


def test_it_is_written_as_the_page_says():
    """Who exports it, the name, the key; and the same token is read from that."""
    token = Token("host-a", NAME, KEY)
    assert token.reveal() == TEXT
    assert Token.parse(TEXT) == token


@given(tokens)
def test_what_is_revealed_is_read_again(token):
    """Any of them, and with the end of a file's line behind it."""
    again = Token.parse(token.reveal() + "\n")
    assert again == token
    assert (hash(again), again.subject, again.exporter) == (hash(token), token.subject, token.exporter)


def test_each_is_another():
    """Made at random: name and key, so that nobody guesses either."""
    made = [Token.new("host") for _ in range(100)]
    parts = [part for token in made for part in token.reveal().split(":")[2:]]
    assert len(set(parts)) == 200
    assert len({token.subject for token in made}) == 100


@given(tokens)
def test_a_subject_says_who_exports_it_and_nothing_else_of_the_token(token):
    """The engine and its neighbours see the subject: neither name nor key is in it."""
    assert re.fullmatch(rf"cm\.{token.exporter}\.[0-9a-f]{{32}}", token.subject)
    name, key = token.reveal().split(":")[2:]
    assert name not in token.subject
    assert key[:32] not in token.subject


def test_the_subject_is_of_the_name_alone():
    """Another key at the same name is the same place, where its bodies are refused."""
    assert Token("host", NAME, KEY).subject == Token("host", NAME, bytes(32)).subject
    assert Token("host", NAME, KEY) != Token("host", NAME, bytes(32))
    assert Token("host", NAME, KEY) != TEXT


@given(tokens, st.binary(max_size=40), st.binary(max_size=40))
def test_what_is_derived_is_what_the_rfc_says(token, purpose, salt):
    """As another implementation of HKDF-Expand has it."""
    key = bytes.fromhex(token.reveal().split(":")[3])
    assert token.derive(purpose, salt) == HKDFExpand(hashes.SHA256(), 32, purpose + b"\0" + salt).derive(key)


WRONG = {
    "cm2:host:00:00": "no token: one begins with cm1:",
    "": "no token: one begins with cm1:",
    TEXT.rpartition(":")[0]: "no token: one has 4 parts with colons between them, and this has 3",
    TEXT + ":": "no token: one has 4 parts with colons between them, and this has 5",
    TEXT[:-1]: "no token: its key has 64 digits, and this 63: was it cut?",
    TEXT[:-1] + "G": "no token: its key has other characters than 0 to 9 and a to f",
    TEXT.upper().replace("CM1:HOST-A", "cm1:host-a"): "no token: its name has other characters than 0 to 9 and a to f",
    TEXT.replace("000102", "00010\u0662"): "no token: its name has other characters than 0 to 9 and a to f",
    TEXT.replace("000102", "0102"): "no token: its name has 32 digits, and this 30: was it cut?",
    TEXT.replace("host-a", "host.a"): "an exporter's name has 1 to 32 lower-case letters, digits and hyphens",
    TEXT.replace("host-a", "*"): "an exporter's name has 1 to 32 lower-case letters, digits and hyphens",
    TEXT.replace("host-a", "host-"): "an exporter's name has 1 to 32 lower-case letters, digits and hyphens",
    TEXT.replace("host-a", "h" * 33): "an exporter's name has 1 to 32 lower-case letters, digits and hyphens",
    TEXT.replace("host-a", "host\n"): "an exporter's name has 1 to 32 lower-case letters, digits and hyphens",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_token_is_refused_in_words_that_show_nothing_of_it(text):
    """Of a mistyped token, most is right."""
    with pytest.raises(ValueError, match=re.escape(WRONG[text])) as raised:
        Token.parse(text)
    said = "".join(traceback.format_exception(raised.value))
    assert "6465666768" not in said
    assert "0405060708" not in said


@given(st.text())
def test_any_other_text_is_refused(text):
    """With a ValueError, and no other."""
    with pytest.raises(ValueError, match="token"):
        Token.parse(text)


@given(tokens)
def test_it_is_shown_nowhere(token):
    """Neither printed nor formatted."""
    for shown in (repr(token), str(token), f"{token}", f"{[token]}"):
        assert shown.strip("[]") == f"<Token of exporter {token.exporter!r}>"


@pytest.mark.parametrize("make", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_not_pickled(make):
    """Pickles lie about in files and queues."""
    with pytest.raises(TypeError, match="a Token is not pickled: whoever reads that could call"):
        make(Token.new("host"))


def test_parts_of_another_length_are_refused():
    """A short key is a weak one."""
    with pytest.raises(ValueError, match="a token's name has 16 bytes, and its key 32"):
        Token("host", NAME, KEY[:16])
    with pytest.raises(ValueError, match="a token's name has 16 bytes, and its key 32"):
        Token("host", b"", KEY)
