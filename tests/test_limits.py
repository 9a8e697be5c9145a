"""``Limits``: what an entrypoint's author may say, and what it comes to."""

import resource

import pytest

import capmarshal as cm
from capmarshal._server.shares import Shares


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
    assert shares.channels == shares.unread_descriptors == int(soft * 3 / 4)
    assert shares.doors == soft // 2
    assert shares.closing == soft // 4
    assert (shares.unread_bytes, shares.begun_bytes, shares.begun_descriptors) == (4000, 4000, 40)
    assert (shares.of_user(100), shares.of_process(100), shares.of_process(1)) == (75, 33, 1)


def test_limits_cannot_be_changed():
    """They are the default of a parameter, and shared."""
    with pytest.raises(AttributeError):
        cm.Limits().channels = 3
