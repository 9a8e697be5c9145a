"""What a FAIL says, and what its client raises for it."""

import pytest

import capmarshal as cm
from capmarshal._protocol import faults as _faults
from capmarshal._protocol.raised import Raised

OF_A_METHOD = (_faults.Code.RAISED, _faults.Code.DECLARED)


@pytest.mark.parametrize("code", list(_faults.Code))
def test_every_code_makes_an_error_that_says_so(code):
    """No code is forgotten, and each message arrives."""
    error = Raised(["ValueError"], "the message", ["the message"]) if code in OF_A_METHOD else None
    payload = _faults.encode(_faults.Fault(code, "the message", error))
    error = _faults.to_exception(memoryview(payload), [ValueError], "Digest.sha256")
    assert "the message" in str(error)
    assert isinstance(error, ValueError if code is _faults.Code.DECLARED else cm.Error)


def test_an_error_that_says_nothing_of_itself_is_an_error_all_the_same():
    """A hostile server's FAIL of a method that raised what is not said."""
    for code in OF_A_METHOD:
        payload = _faults.encode(_faults.Fault(code, "nothing"))
        error = _faults.to_exception(memoryview(payload), [ValueError], "Digest.sha256")
        assert type(error) is cm.ProtocolError


@pytest.mark.parametrize("code", [code for code in _faults.Code if code not in (_faults.Code.ARGUMENT, *OF_A_METHOD)])
def test_what_does_not_say_by_itself_where_is_told(code):
    """Whose call it was stands in the text, where a log of the error alone has it."""
    payload = memoryview(_faults.encode(_faults.Fault(code, "the message")))
    assert "Digest.sha256, entrypoint 'digest'" in str(
        _faults.to_exception(payload, (), "Digest.sha256, entrypoint 'digest'")
    )
