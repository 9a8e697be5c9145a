"""Where the kernel does not tell which socket is which, that is said at once."""

import errno

import pytest

import capmarshal as cm
from refusing import refuse_socket_option

SO_COOKIE = 57


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EPERM])
@pytest.mark.parametrize("what", [lambda: cm.Entrypoint("nameless"), cm.parent], ids=["Entrypoint", "parent"])
def test_no_cookies_are_an_error_at_once(what, error, fork, open_descriptors):
    """Its doors would all have the cookie 0: calls would reach none, and time out."""

    def in_child():
        refuse_socket_option(SO_COOKIE, error)
        before = open_descriptors()
        with pytest.raises(cm.KernelError, match=r"SO_COOKIE.*emulator") as caught:
            what()
        return caught.value.errno, open_descriptors() - before

    assert fork(in_child).result() == (error, set())
