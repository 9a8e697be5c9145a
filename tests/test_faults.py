"""What a FAIL says, and what its client raises for it."""

import pytest

import capmarshal as cm
from capmarshal._protocol import faults as _faults
from capmarshal._protocol.raised import Raised


@pytest.mark.parametrize("code", list(_faults.Code))
def test_every_code_makes_an_error_that_says_so(code):
    """No code is forgotten, and each message arrives."""
    of_a_method = code in (_faults.Code.RAISED, _faults.Code.DECLARED)
    error = Raised(["ValueError"], "the message", ["the message"]) if of_a_method else None
    payload = _faults.encode(_faults.Fault(code, "the message", error))
    error = _faults.to_exception(memoryview(payload), [ValueError], "Digest.sha256")
    assert "the message" in str(error)
    assert isinstance(error, ValueError if code is _faults.Code.DECLARED else cm.Error)


def test_an_error_that_says_nothing_of_itself_is_an_error_all_the_same():
    """A hostile server's FAIL of a method that raised what is not said."""
    for code in (_faults.Code.RAISED, _faults.Code.DECLARED):
        payload = _faults.encode(_faults.Fault(code, "nothing"))
        error = _faults.to_exception(memoryview(payload), [ValueError], "Digest.sha256")
        assert type(error) is cm.ProtocolError
