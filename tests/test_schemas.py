"""Types by what a stranger says of them: `_describe/schemas`."""

import json
import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capmarshal as cm
from capmarshal._describe.schemas import CannotBeCalled, Types, shown
from capmarshal._typed.describing import described
from capmarshal._typed.description import Description
from desk import DeskServer

DESK = msgspec.msgpack.decode(described(DeskServer, None), type=Description)
WORDS = {
    "add": "str, int, datetime | None -> int",
    "nothing": " -> None",
    "echo": "Any -> Any",
    "text_or": "str | None, int | str -> list[Any]",
    "digest": "io.BufferedReader, bytes -> bytes",
    "save": "io.BufferedWriter, str -> int",
    "size": "Dataspace -> int",
    "point": "Point, Colour -> Point",
    "files": "list[Descriptor], Attached | None -> list[str]",
    "keyed": "dict[int, bytes] -> dict[int, bytes]",
    "post": "Letter | Parcel -> str",
    "other": "Desk -> str",
    "any_other": "Capability | None -> str",
    "signal": "Signal -> None",
}


@pytest.mark.parametrize("name", WORDS)
def test_people_read_annotations(name):
    """What is shown is what was written."""
    method = next(method for method in DESK.methods if method.name == name)
    taken = ", ".join(shown(each.schema, DESK.definitions) for each in method.parameters)
    assert f"{taken} -> {shown(method.result, DESK.definitions)}" == WORDS[name]


def made(name, place=0):
    """The type that is made of a parameter of one of its methods."""
    method = next(method for method in DESK.methods if method.name == name)
    return Types(DESK.definitions).make(method.parameters[place].schema)


def test_types_are_made_as_they_were():
    assert made("add") == (str, True)
    assert made("text_or") == (str | None, True)
    assert made("digest", 1) == (bytes, True)
    assert made("keyed") == (dict[int, bytes], True)
    assert made("files") == (list[cm.Descriptor], False)
    assert made("any_other") == (cm.Capability | None, False)
    assert made("point", 1) == (typing.Literal["blue", "red"], True)


def test_records_take_what_was_declared_and_send_what_is_given():
    """A field that is left out is not sent, and one that is not declared is refused."""
    record, is_data = made("point")
    assert is_data
    assert msgspec.msgpack.encode(msgspec.json.decode('{"x": 1}', type=record)) == msgspec.msgpack.encode({"x": 1})
    whole = msgspec.json.decode('{"x": 1, "raw": "aGk="}', type=record)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(whole)) == {"x": 1, "raw": b"hi"}
    with pytest.raises(msgspec.ValidationError, match="unknown field `y2`"):
        msgspec.json.decode('{"x": 1, "y2": 1}', type=record)


def test_a_record_with_a_tag_is_told_from_another():
    union, is_data = made("post")
    assert not is_data
    letter = msgspec.json.decode('{"type": "letter", "text": "aGk="}', type=union, dec_hook=lambda *_: None)
    assert msgspec.to_builtins(letter) == {"type": "letter", "text": "aGk="}


def test_what_contains_itself_is_data_of_any_kind():
    """The server looks at it."""
    assert made("tree") == (typing.Any, True)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": 1, "b": "x"}, "required": 7},
        {"enum": [1.5, [], {}]},
        {"enum": []},
        {"anyOf": []},
        {"anyOf": [{"type": "object", "properties": {}}, {"type": "object", "properties": {}}]},
        {"anyOf": [{}], "discriminator": {}},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": 5},
        {"type": ["string", "null"]},
        {"type": "array", "prefixItems": [{}, {}], "minItems": 1},
        {"type": "array", "items": {"type": "object", "x-capmarshal-keys": {"type": "array"}}},
    ],
)
def test_what_is_not_understood_is_data_of_any_kind(schema):
    """Nothing of it is an error here: it is the server's to refuse."""
    kind, is_data = Types({}).make(schema)
    assert is_data
    msgspec.json.decode("[]" if "Any" in str(kind) else "null", type=typing.Any)


@pytest.mark.parametrize(
    "schema",
    [
        {"x-capmarshal": "Future"},
        {"x-capmarshal": ["Descriptor"]},
        {"anyOf": [{"x-capmarshal": "Descriptor"}, {"type": "string"}]},
        {"type": "object", "properties": {"a": {"x-capmarshal": "Descriptor"}, "b": {"$ref": "#/$defs/itself"}}},
    ],
)
def test_what_is_no_data_and_not_understood_cannot_be_called(schema):
    definitions = {"itself": {"type": "array", "items": {"$ref": "#/$defs/itself"}}}
    with pytest.raises(CannotBeCalled):
        Types(definitions).make(schema)


def test_types_that_grow_without_bounds_are_cut_off():
    """Each refers to the one below twice: two to the power of fifty in all."""
    definitions = {
        f"d{place}": {"type": "array", "minItems": 2, "prefixItems": 2 * [{"$ref": f"#/$defs/d{place + 1}"}]}
        for place in range(50)
    }
    assert Types(definitions).make({"$ref": "#/$defs/d0"}) == (typing.Any, True)
    assert len(shown(definitions["d0"], definitions)) < 400
    nested = {}
    for _ in range(500):
        nested = {"type": "array", "items": nested}
    assert Types({}).make(nested) == (typing.Any, True)
    assert len(shown(nested, {})) < 400


def test_no_word_of_a_server_is_evaluated():
    """Not even as the name of a field."""
    name = "__import__('os').abort()"
    record, _ = Types({}).make({"type": "object", "properties": {name: {"type": "string"}}, "required": [name]})
    assert msgspec.to_builtins(msgspec.json.decode(json.dumps({name: name}), type=record)) == {name: name}


leaves = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["string", "array", "object"])
)
keys = st.sampled_from(
    [
        *("type", "items", "prefixItems", "minItems", "properties", "required", "anyOf", "enum", "$ref", "title"),
        *("discriminator", "contentEncoding", "x-capmarshal", "x-capmarshal-keys", "additionalProperties", "format"),
    ]
)
schemas = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=20
)


@settings(max_examples=50)
@given(st.dictionaries(keys, schemas), st.dictionaries(st.text(max_size=3), st.dictionaries(keys, schemas), max_size=3))
def test_whatever_a_server_says_is_made_or_refused(schema, definitions):
    """Neither shows it anything but words, nor raises anything else."""
    assert isinstance(shown(schema, definitions), str)
    try:
        Types(definitions).make(schema)
    except CannotBeCalled as error:
        assert str(error)
