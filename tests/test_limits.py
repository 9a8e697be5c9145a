"""``Limits``: what an entrypoint's author may say, and what it comes to."""

import resource

import pytest

import capmarshal as cm
from capmarshal._server.shares import Bounds, Shares


@pytest.mark.parametrize("name", ["user_share", "process_share"])
@pytest.mark.parametrize("share", [0, -1, 1.01, float("nan")])
def test_a_share_is_a_part_of_the_whole(name, share):
    """Nothing is no share, and more than all is none."""
    with pytest.raises(ValueError, match=name):
        cm.Limits(**{name: share})


@pytest.mark.parametrize("name", [name for name in cm.Limits.__struct_fields__ if not name.endswith("_share")])
def test_a_maximum_is_one_or_more(name):
    """An entrypoint that takes nothing serves nobody."""
    with pytest.raises(ValueError, match=name):
        cm.Limits(**{name: 0})
    assert getattr(cm.Limits(**{name: 1}), name) == 1


@pytest.mark.parametrize("name", cm.Limits.__struct_fields__)
@pytest.mark.parametrize("wrong", ["3", [1], 1j])
def test_what_is_no_number_is_refused_in_words(name, wrong):
    """With the name of the limit; and a maximum is a whole one."""
    with pytest.raises(TypeError, match=f"{name} is a .*, not "):
        cm.Limits(**{name: wrong})
    if not name.endswith("_share"):
        with pytest.raises(TypeError, match=f"{name} is a whole number"):
            cm.Limits(**{name: 1.5})


def test_what_is_not_said_follows_from_the_table_and_the_maxima():
    """As the documentation of Limits has it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    shares = Shares(cm.Limits(), 1000, 10)
    assert shares.channels == shares.unread_descriptors
    assert shares.channels.whole == int(soft * 3 / 4)
    assert shares.doors.whole == soft // 2
    assert shares.closing.whole == soft // 4
    assert shares.unread_bytes == shares.begun_bytes == (1333, 3000, 4000)
    assert shares.begun_descriptors == (13, 30, 40)


def test_one_alone_always_may():
    """A share is one at least, and of what calls and answers take as much as the largest of them."""
    shares = Shares(cm.Limits(channels=1, unread_bytes=1, begun_bytes=100, begun_descriptors=20), 1000, 10)
    assert shares.channels == (1, 1, 1)
    assert shares.unread_bytes == (1000, 1000, 1)
    assert shares.begun_bytes == (1000, 1000, 100)
    assert shares.begun_descriptors == (10, 15, 20)


@pytest.mark.parametrize(
    ("have", "amount", "admitted"),
    [
        ((0, 0, 0), 99, True),
        ((1, 1, 1), 2, True),
        ((1, 1, 1), 3, False),
        ((0, 4, 4), 2, True),
        ((0, 4, 4), 3, False),
        ((0, 0, 8), 1, True),
        ((0, 0, 8), 2, False),
    ],
)
def test_an_amount_is_admitted_where_process_user_and_all_have_room(have, amount, admitted):
    """And where nothing of it is there, whatever it is."""
    assert Bounds(3, 6, 9).admit(amount, *have) is admitted


def test_limits_cannot_be_changed():
    """They are the default of a parameter, and shared."""
    with pytest.raises(AttributeError):
        cm.Limits().channels = 3
