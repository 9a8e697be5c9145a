"""Arrays of C's ints."""

import struct

import pytest

from capmarshal._kernel.ints import array_of


@pytest.mark.parametrize("numbers", [[], [0], [-1, 2**31 - 1, -(2**31)], list(range(255)), (3, 4)])
def test_an_array_has_each_number_in_its_place(numbers):
    """As a list has them, also the second time."""
    assert [*array_of(numbers)] == [*array_of(numbers)] == [*numbers]


@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 1.0, "1"])
def test_what_is_no_int_of_c_is_refused(number):
    """And nothing made of it that is something else."""
    with pytest.raises(struct.error):
        array_of([0, number])
