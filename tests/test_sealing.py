"""Bodies of a bridge: what a spy reads of them, and that nothing but what was sealed for this place is opened."""

import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from capmarshal._bridge_link import sealing
from capmarshal._bridge_link.sealing import OVERHEAD, Direction, Label, NotGenuine, Seal
from capmarshal._bridge_link.tokens import Token
from patience import PATIENCE

TOKEN = Token.new("host")
THERE = Seal(TOKEN, Direction.TO_EXPORTER)
BACK = Seal(TOKEN, Direction.TO_IMPORTER)
LABEL = Label(kind=2, call=bytes(range(16)), lease=bytes(range(16, 32)))

ids = st.binary(min_size=16, max_size=16)
labels = st.builds(
    Label,
    kind=st.integers(0, 255),
    call=ids,
    lease=ids,
    part=st.integers(0, 2**32 - 1),
    last=st.booleans(),
    expires=st.integers(0, 2**64 - 1),
)


@given(labels, st.binary(max_size=3000), st.sampled_from([THERE, BACK]))
def test_what_was_sealed_is_opened(label, plain, seal):
    """By whoever has the token: the label and the text, which is as much shorter as is said."""
    body = seal.seal(label, plain)
    assert len(body) == len(plain) + OVERHEAD
    assert seal.open(body) == (label, plain)
    assert Seal(Token.parse(TOKEN.reveal()), seal._direction).open(bytearray(body)) == (label, plain)


@given(st.binary(max_size=100), st.data())
def test_a_body_that_was_changed_is_refused(plain, data):
    """Any bit of it: of the head, which is in clear, too."""
    body = bytearray(THERE.seal(LABEL, plain))
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(NotGenuine):
        THERE.open(bytes(body))


@given(st.binary(max_size=100), st.data())
def test_a_body_that_was_cut_is_refused(plain, data):
    """At any place; and so is one that has more at its end, or two that were made one."""
    body = THERE.seal(LABEL, plain)
    for other in (body[: data.draw(st.integers(0, len(body) - 1))], body + b"\0", body + body):
        with pytest.raises(NotGenuine):
            THERE.open(other)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(body):
    """With an error of ours, whatever they are."""
    with pytest.raises(NotGenuine):
        THERE.open(body)


def test_a_body_that_is_sent_back_is_refused():
    """As the answer to itself: the directions have keys of their own."""
    with pytest.raises(NotGenuine, match="a body was sealed with another key or for another place"):
        BACK.open(THERE.seal(LABEL, b"call"))


def test_a_body_of_another_token_is_refused():
    """Also where only the key is another, or only the subject that it was sent to."""
    name, key = (bytes.fromhex(part) for part in TOKEN.reveal().split(":")[2:])
    body = THERE.seal(LABEL, b"call")
    for other in (
        Seal(Token("host", name, bytes(32)), Direction.TO_EXPORTER),
        Seal(Token("host", bytes(16), key), Direction.TO_EXPORTER),
        Seal(Token("other", name, key), Direction.TO_EXPORTER),
        Seal(TOKEN, Direction.TO_EXPORTER, TOKEN.subject + ".signals"),
    ):
        with pytest.raises(NotGenuine):
            other.open(body)


@given(labels, labels)
def test_one_head_is_not_put_before_what_was_sealed_with_another(one, other):
    """Kind, call, part, end, lease and time are sealed with the text."""
    assume(one != other)
    body, donor = THERE.seal(one, b"call"), THERE.seal(other, b"call")
    salt = slice(OVERHEAD - 48, OVERHEAD - 16)
    forged = donor[: salt.start] + body[salt.start :]
    with pytest.raises(NotGenuine):
        THERE.open(forged)


def test_the_same_text_is_sealed_otherwise_each_time():
    """The salt is another one, and so is all that is sealed: nobody sees that a call was made again."""
    bodies = [THERE.seal(LABEL, b"x" * 100) for _ in range(200)]
    salts = {body[OVERHEAD - 48 : OVERHEAD - 16] for body in bodies}
    assert len(salts) == len({body[OVERHEAD - 16 :] for body in bodies}) == 200


def test_a_key_seals_so_many_bodies_and_each_by_a_nonce_of_its_own(monkeypatch):
    """Then there is another one; whoever opens them finds each, in any order."""
    monkeypatch.setattr(sealing, "BODIES_MOST", 3)
    seal, opening = Seal(TOKEN, Direction.TO_EXPORTER), Seal(TOKEN, Direction.TO_EXPORTER)
    bodies = [seal.seal(LABEL, b"%d" % number) for number in range(8)]
    starts = [body[OVERHEAD - 48 : OVERHEAD - 28] for body in bodies]
    assert starts == [starts[0]] * 3 + [starts[3]] * 3 + [starts[6]] * 2
    assert len(set(starts)) == 3
    assert len({body[OVERHEAD - 28 : OVERHEAD - 16] for body in bodies}) == 8
    for number in (0, 7, 3, 1, 6, 6):
        assert opening.open(bodies[number]) == (LABEL, b"%d" % number)


def test_what_is_not_genuine_has_no_key_kept():
    """Who holds no key makes nobody forget the last one, nor derive it again."""
    seal, opening = Seal(TOKEN, Direction.TO_EXPORTER), Seal(TOKEN, Direction.TO_EXPORTER)
    body = seal.seal(LABEL, b"call")
    opening.open(body)
    kept = opening._their_cipher
    with pytest.raises(NotGenuine):
        opening.open(body[: OVERHEAD - 48] + bytes(20) + body[OVERHEAD - 28 :])
    assert opening._their_cipher is kept
    assert opening.open(body) == (LABEL, b"call")


def test_no_two_bodies_have_one_key_and_nonce_across_a_fork(fork):
    """A child that has a copy of everything: what it seals next is not sealed as its parent's next."""
    child = fork(lambda: THERE.seal(LABEL, b"the same")[OVERHEAD - 48 : OVERHEAD - 16].hex())
    ours = THERE.seal(LABEL, b"the same")[OVERHEAD - 48 : OVERHEAD - 16].hex()
    assert child.result() != ours


def test_a_spy_reads_neither_methods_nor_payloads():
    """All that is in clear is the head; the text, and the token, are nowhere in a body."""
    body = THERE.seal(LABEL, b"\x04\x00transfer" + b"payload of a call")
    for secret in (b"transfer", b"payload", *(bytes.fromhex(part) for part in TOKEN.reveal().split(":")[2:])):
        assert secret not in body


def test_another_layout_says_so():
    """What a later version sends is not called a forgery."""
    body = THERE.seal(LABEL, b"call")
    with pytest.raises(NotGenuine, match="a body of layout 2: this bridge knows layout 1"):
        THERE.open(b"\x02" + body[1:])


@pytest.mark.parametrize("label", [LABEL._replace(call=b""), LABEL._replace(lease=bytes(17))])
def test_an_id_of_another_length_is_refused(label):
    """A short one would be filled up, and mean another call."""
    with pytest.raises(ValueError, match="a call's ID has 16 bytes, and a lease's 16"):
        THERE.seal(label, b"")


def test_a_seal_shows_nothing_of_the_token():
    """Where it is printed."""
    assert repr(THERE) == "<Seal of <Token of exporter 'host'>, to exporter>"


def test_without_the_extra_it_says_what_to_install():
    """One line, that can be typed."""
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "try: import capmarshal._bridge_link.sealing\n"
        "except ImportError as error: print(error)"
    )
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert ended.stdout == "capmarshal.bridge needs cryptography: pip install 'cryptography>=42.0'\n"
