"""JSON that may be hostile: what is refused, and what is said of it."""

import pytest

from saver_conformance.folder import untrusted_json
from saver_conformance.folder.untrusted_json import UntrustedJsonError, parse_object


def test_so_many_values_are_allowed_and_no_more(monkeypatch):
    text = b'{"a": [1, 2]}'  # an object, a list and a comma
    monkeypatch.setattr(untrusted_json, "MAX_VALUES", 3)
    assert parse_object(text) == {"a": [1, 2]}
    monkeypatch.setattr(untrusted_json, "MAX_VALUES", 2)
    with pytest.raises(UntrustedJsonError, match="more than 2 values") as refused:
        parse_object(text)
    assert refused.value.offset == 0


def test_the_key_that_stands_twice_is_named():
    with pytest.raises(UntrustedJsonError, match="the key 'b' occurs twice"):
        parse_object(b'{"a": 1, "b": 2, "b": 3, "c": 4}')


def test_numbers_of_so_many_digits_are_allowed_and_no_longer_ones():
    longest = "0." + "1" * 998
    assert parse_object(f'{{"a": {longest}}}'.encode())["a"] == float(longest)
    with pytest.raises(UntrustedJsonError, match="a number of 1001 digits"):
        parse_object(f'{{"a": {longest}1}}'.encode())


def test_parse_object_of_constants_depends_on_who_reads():
    text = b'{"a": Infinity}'
    assert parse_object(text, constants=True) == {"a": float("inf")}
    with pytest.raises(UntrustedJsonError, match="Infinity is no value of it"):
        parse_object(text)
