"""The files by which a user of NATS proves who it is: read, and refused without showing anything of them."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

import nats_accounts
from capmarshal._bridge_engine.credentials import Credentials


@pytest.fixture
def written(tmp_path):
    """written(text): the path of a file with that in it."""

    def write(text):
        path = tmp_path / "user.creds"
        path.write_text(text)
        return path

    return write


def test_what_it_signs_is_signed_by_the_user(written):
    """As the server verifies it: with the key that the token names."""
    _, text = nats_accounts.make_user()
    found = Credentials(written(text))
    claims = base64.urlsafe_b64decode(found.token.split(b".")[1] + b"==")
    user = claims.partition(b'"sub": "')[2].partition(b'"')[0]
    public = Ed25519PublicKey.from_public_bytes(base64.b32decode(user)[1:-2])
    public.verify(base64.b64decode(found.sign("nonce")), b"nonce")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_its_lines_may_end_otherwise(written, newline):
    """As an editor leaves them."""
    _, text = nats_accounts.make_user()
    assert Credentials(written(text.replace("\n", newline))).token.count(b".") == 2


def test_it_shows_nothing_of_itself(written):
    """Where it is printed."""
    _, text = nats_accounts.make_user()
    assert repr(Credentials(written(text))) == "<Credentials>"


@pytest.mark.parametrize("text", ["{seed}", "{seed}\n", "{seed}\n{public}\n", "# of render1\r\n\r\n{seed} \r\n"])
def test_a_file_of_a_seed_is_enough(written, text):
    """As NATS's tool nk prints it, with or without its public half; who it is, nodes are told by that."""
    key = nats_accounts.Key(nats_accounts.USER)
    found = Credentials(written(text.format(seed=key.seed(), public=key.public)))
    assert found.token is None
    assert found.public == key.public
    public = Ed25519PublicKey.from_public_bytes(base64.b32decode(key.public)[1:-2])
    public.verify(base64.b64decode(found.sign("nonce")), b"nonce")


def damaged():
    """Texts that are no credentials, and what is said of each."""
    _, text = nats_accounts.make_user()
    seed = text.partition("SEED-----\n")[2].partition("\n")[0]
    account = nats_accounts.Key(nats_accounts.ACCOUNT).seed()
    flipped = seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:]
    return {
        "empty": ("", "has no NATS USER JWT: it is no credentials file of NATS"),
        "other": ("\x00\xff" * 100, "has no NATS USER JWT: it is no credentials file of NATS"),
        "no seed": (text.partition("***")[0], "has no USER NKEY SEED: it is no credentials file of NATS"),
        "changed": (text.replace(seed, flipped), "is none of a user's"),
        "cut": (text.replace(seed, seed[:-1]), "is none of a user's"),
        "an account's": (text.replace(seed, account), "is none of a user's"),
        "a seed, cut": (seed[:-1], "is none of a user's"),
        "a seed, changed": (flipped, "is none of a user's"),
        "an account's seed": (account, "has no NATS USER JWT"),
        "two seeds": (f"{seed}\n{seed}\n", "has no NATS USER JWT"),
        "a seed, and more": (f"{seed}\npassword: secret\n", "has no NATS USER JWT"),
        "no letters": (text.replace(seed, "0189"), "is none of a user's"),
    }


@pytest.mark.parametrize("how", damaged())
def test_what_is_no_file_of_credentials_is_refused(written, how):
    """With its path, and nothing of what is in it."""
    text, words = damaged()[how]
    with pytest.raises(ValueError, match=words) as raised:
        Credentials(written(text))
    assert "user.creds" in str(raised.value)
    assert not any(line in str(raised.value) for line in text.splitlines() if len(line) > 20)


def test_a_file_that_is_not_there_says_so(tmp_path):
    """As any other file."""
    with pytest.raises(FileNotFoundError):
        Credentials(tmp_path / "none")
