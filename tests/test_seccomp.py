"""The filter of system calls does what the tables say, call by call: its program is run here, step by step."""

import errno
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capmarshal._child import allowed, seccomp
from confined import not_sanitized

pytestmark = not_sanitized

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
WRITES = (False, True)
try:
    LIBRARY = seccomp.library()
except OSError as absent:
    pytest.skip(f"libseccomp cannot be loaded: {absent}", allow_module_level=True)
PROGRAMS = {writes: seccomp.program(LIBRARY, writes=writes, truncates=writes) for writes in WRITES}
NATIVE = LIBRARY.seccomp_arch_native()
NUMBERS = range(600)


def _steps(program):
    return [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]


STEPS = {writes: _steps(program) for writes, program in PROGRAMS.items()}


def answer(steps, number, arguments, architecture=NATIVE):
    """What the kernel would be told: classic BPF over struct seccomp_data, as kernel/seccomp.c lets it be."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *arguments)
    accumulator, at = 0, 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x05:
            at += value
        elif code == 0x06:
            return value
        else:
            holds = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            at += then if holds else otherwise


def _tables(writes):
    with seccomp.Filter(LIBRARY) as made:
        plain = allowed.ANY | (allowed.WRITING | allowed.TRUNCATING if writes else frozenset())
        numbers = {made.number_of(name) for name in plain}
        lines = [(made.number_of(name), line) for name, line in allowed.with_arguments(writes=writes)]
        ignored = [(made.number_of(name), line) for name, line in allowed.IGNORED]
        without = [(made.number_of(name), line) for name, line in allowed.WITHOUT]
        unknown = {made.number_of(name) for name in allowed.UNKNOWN}
    return numbers, lines, ignored, without, unknown


TABLES = {writes: _tables(writes) for writes in WRITES}


def _holds(line, arguments):
    return all(arguments[each.argument] & each.mask == each.value for each in line)


def expected(writes, number, arguments):
    """What the tables say."""
    numbers, lines, ignored, without, unknown = TABLES[writes]
    if number in unknown or number > max(n for n in NUMBERS if _name(n)):
        return ERRNO | errno.ENOSYS
    if number in numbers or any(number == each and _holds(line, arguments) for each, line in lines):
        return ALLOW
    if any(number == each and _holds(line, arguments) for each, line in ignored):
        return ERRNO
    if any(number == each and _holds(line, arguments) for each, line in without):
        return ERRNO | errno.ENOSYS
    return ERRNO | errno.EPERM


def _name(number):
    return LIBRARY.seccomp_syscall_resolve_num_arch(NATIVE, number)


@pytest.mark.parametrize("writes", WRITES)
def test_every_number_is_answered_as_the_tables_say(writes):
    """Without arguments, and with all bits of them set."""
    for arguments in ([0] * 6, [(1 << 64) - 1] * 6):
        wrong = [n for n in NUMBERS if answer(STEPS[writes], n, arguments) != expected(writes, n, arguments)]
        assert wrong == []


@pytest.mark.parametrize("number", [-1, 1 << 20, 0x40000000, 0x40000000 | 39, (1 << 31) - 1])
def test_numbers_that_there_are_none_of_do_not_exist(number):
    """Those of x32 are none here."""
    for steps in STEPS.values():
        assert answer(steps, number, [0] * 6) == ERRNO | errno.ENOSYS


def test_other_architectures_have_no_calls():
    """Whatever their numbers mean there."""
    for steps in STEPS.values():
        for architecture in (0x40000003, 0xC00000B7, 0x40000028, NATIVE ^ 1):
            if architecture != NATIVE:
                answers = {answer(steps, number, [0] * 6, architecture) for number in NUMBERS}
                assert answers == {ERRNO | errno.ENOSYS}


# Of each line that names arguments: as it says, and with some bits changed, above those that count as well.
_CASES = [(writes, *case) for writes in WRITES for case in (*TABLES[writes][1], *TABLES[writes][2])]


@given(
    case=st.sampled_from(_CASES),
    noise=st.lists(st.integers(0, (1 << 64) - 1), min_size=6, max_size=6),
    flips=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 63)), max_size=3),
)
@settings(max_examples=1000)
def test_arguments_are_looked_at_as_the_tables_say(case, noise, flips):
    """All of them, and no bit that the kernel does not look at."""
    writes, number, line = case
    arguments = [*noise]
    for each in line:
        arguments[each.argument] = (arguments[each.argument] & ~each.mask) | each.value
    for place, bit in flips:
        arguments[place] ^= 1 << bit
    assert answer(STEPS[writes], number, arguments) == expected(writes, number, arguments)
    if not flips:
        assert expected(writes, number, arguments) != ERRNO | errno.EPERM


def test_a_program_is_no_longer_than_the_kernel_takes():
    """4,096 steps."""
    assert max(map(len, STEPS.values())) < 1000
