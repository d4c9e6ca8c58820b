"""What Python's reader would let through is refused by name."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import strict_json
from lab.errors import BodyTooLarge, MalformedJSON

TRAPS = [
    (b"", "#", "empty"),
    (b" \n", "#", "empty"),
    (b"{", "#", "line 1, column 2"),
    (b"{} {}", "#", "Extra data"),
    (b"{'a': 1}", "#", "double quotes"),
    (b"\xff", "#", "byte 0 is not UTF-8"),
    (b'"\xed\xa0\x80"', "#", "not UTF-8"),
    (b"\xef\xbb\xbf{}", "#", "BOM"),
    (b'{"a": [1, NaN]}', "#/a/1", "NaN is not JSON"),
    (b'{"a": -Infinity}', "#/a", "-Infinity is not JSON"),
    (b'{"a/b": 1e400}', "#/a~1b", "1e400 is beyond"),
    (b"[9223372036854775808]", "#/0", "more than 64 bits"),
    (b"[-9223372036854775809]", "#/0", "more than 64 bits"),
    (b"1" * 5000, "#", "more than 64 bits"),
    (b'{"x": {"a": 1, "a": 2}}', "#/x", "'a' occurs more than once"),
    (b'["\\ud800"]', "#/0", "surrogate"),
    (b'{"a": "x\\u0000"}', "#/a", "NUL"),
    (b'{"\\u0000": 1}', "#", "name"),
    (b"[" * 33 + b"]" * 33, "#", "deeper than 32"),
    (b"[" * 100_000, "#", "deeper than 32"),
    (b'{"a":' * 100_000, "#", "deeper than 32"),
]


@pytest.mark.parametrize(("raw", "pointer", "said"), TRAPS, ids=[str(row[0][:20]) for row in TRAPS])
def test_a_trap_is_named(raw, pointer, said):
    with pytest.raises(MalformedJSON) as refusal:
        strict_json.loads(raw)
    (fault,) = refusal.value.extra["errors"]
    assert fault["pointer"] == pointer
    assert said in fault["detail"]
    assert len(fault["detail"]) < 200


def test_a_large_body_is_refused_unread():
    with pytest.raises(BodyTooLarge):
        strict_json.loads(b'"' + b"x" * (1 << 20) + b'"')


def test_brackets_in_texts_are_no_depth():
    assert strict_json.loads(json.dumps({"a": "[" * 100 + '\\"['}).encode()) == {"a": "[" * 100 + '\\"['}


def test_a_body_of_quotes_and_backslashes_takes_no_longer_than_another():
    with pytest.raises(MalformedJSON):
        strict_json.loads(b'\\"' * (1 << 18))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~ é", max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(values)
def test_what_is_sound_is_read_as_python_reads_it(value):
    assert strict_json.loads(json.dumps(value).encode()) == value


@given(st.binary(max_size=60) | st.text('[]{}",:\\0123456789.eE+-truefalsn\x00 ', max_size=60).map(str.encode))
def test_nothing_else_ever_comes_out_than_a_value_or_a_refusal(raw):
    with contextlib.suppress(MalformedJSON):
        strict_json.loads(raw)
