"""Fields of a document that a person wrote: each fault is kept, and the rest is read."""

from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import FieldMissing, FieldRefused, FieldRepeated, FieldUnknown, TextExpected
from service.model.document_fields import MAX_VALUE_SHOWN, Faults, Fields, nearest, shown

KNOWN = ("name", "size", "is_fast", "color", "parts", "labels", "inner")


class Color(StrEnum):
    red = "red"
    green = "green"


def fields(document: Any, path: str = "") -> Fields:
    return Fields(document, path, KNOWN, Faults())


def faults(read: Fields) -> list[tuple[type, str]]:
    return [(type(fault), fault.facts["path"]) for fault in read.faults.all]


@pytest.mark.parametrize("document", [None, 5, "text", ["name"], True])
def test_what_is_not_an_object_has_one_fault_and_its_fields_are_not_missed(document: Any) -> None:
    read = fields(document, "tracks[0]")
    assert read.text("name", "a text") == ""
    assert read.object("inner", KNOWN, is_needed=True) is None
    assert faults(read) == [(FieldRefused, "tracks[0]")]


def test_a_field_that_is_not_known_is_told_with_the_nearest_one() -> None:
    read = fields({"Colour": "red", "zzz": 1, 5: 1}, "tracks[0]")
    assert faults(read) == [(FieldUnknown, "tracks[0].Colour"), (FieldUnknown, "tracks[0].zzz"), (FieldUnknown, "tracks[0].5")]
    assert [fault.facts["nearest"] for fault in read.faults.all] == ["color", None, None]


def test_a_field_that_is_null_is_not_there() -> None:
    read = fields({"name": None, "size": None, "is_fast": None, "color": None, "parts": None, "labels": None, "inner": None})
    assert read.text("name", "a text", default="none") == "none"
    assert read.whole("size", 1, 9, default=4) == 4
    assert read.flag("is_fast", default=True) is True
    assert read.choice("color", Color, Color.green) is Color.green
    assert read.texts("parts", "parts", pattern="", longest=9, limit=9) == ()
    assert read.labels("labels", "", "", 9, 9) == {}
    assert read.object("inner", KNOWN) is None
    assert not read.has("name")
    assert faults(read) == []
    assert read.text("name", "a text") == ""
    assert faults(read) == [(FieldMissing, "name")]


@pytest.mark.parametrize("value", [True, 1.5, "5", 0, 10, [5], float("nan"), float("inf"), 10**400])
def test_what_is_not_a_whole_number_within_the_limits_is_refused(value: Any) -> None:
    read = fields({"size": value})
    assert read.whole("size", 1, 9, default=4) == 4
    assert faults(read) == [(FieldRefused, "size")]


@pytest.mark.parametrize("value", [1, 9, 5.0])
def test_a_whole_number_may_be_written_as_one_with_a_point(value: Any) -> None:
    read = fields({"size": value})
    assert read.whole("size", 1, 9, default=4) == int(value)
    assert faults(read) == []


@pytest.mark.parametrize("value", ["a\n", "", "abcdef", "A"])
def test_a_text_must_match_to_its_very_end(value: str) -> None:
    read = fields({"name": value})
    assert read.text("name", "small letters", pattern="[a-z]+", longest=5) == ""
    assert faults(read) == [(FieldRefused, "name")]


@pytest.mark.parametrize("value", ["a\x00", "\ud800"])
def test_a_text_that_a_database_refuses_is_refused(value: str) -> None:
    read = fields({"name": value})
    assert read.text("name", "a text") == ""
    assert faults(read) == [(FieldRefused, "name")]


@pytest.mark.parametrize("value", [False, 18, 2026.5])
def test_where_yaml_read_a_word_as_something_else_quotation_marks_are_advised(value: Any) -> None:
    read = fields({"name": value})
    assert read.text("name", "a text") == ""
    assert faults(read) == [(TextExpected, "name")]


def test_a_choice_is_one_of_its_values_and_of_those_that_are_allowed_here() -> None:
    read = fields({"color": "red"})
    assert read.choice("color", Color, Color.green) is Color.red
    assert read.choice("color", Color, Color.green, only=("green",)) is Color.green
    assert faults(read) == [(FieldRefused, "color")]


def test_a_list_keeps_its_order_and_each_fault_names_its_place() -> None:
    read = fields({"parts": ["b", "a", 5, "b", "TOO LONG"]})
    assert read.texts("parts", "parts", pattern="[a-z]+", longest=3, limit=9) == ("b", "a")
    assert faults(read) == [(TextExpected, "parts[2]"), (FieldRepeated, "parts[3]"), (FieldRefused, "parts[4]")]


@pytest.mark.parametrize("value", [[], "ab", {}, list("abcdefghij")])
def test_a_list_has_at_least_one_and_not_too_many(value: Any) -> None:
    read = fields({"parts": value})
    assert read.texts("parts", "parts", pattern="", longest=3, limit=9) == ()
    assert faults(read) == [(FieldRefused, "parts")]


def test_a_label_with_a_fault_is_left_out_and_the_others_are_read() -> None:
    read = fields({"labels": {"tier": "gold", "-": "x", "owner": 5, 7: "x", "empty": ""}})
    assert read.labels("labels", "[a-z]+", "[a-z]*", 9, 9) == {"tier": "gold", "empty": ""}
    assert faults(read) == [(FieldRefused, "labels"), (TextExpected, "labels.owner"), (TextExpected, "labels")]


@pytest.mark.parametrize("value", [{}, [], "a"])
def test_labels_are_an_object_with_at_least_one(value: Any) -> None:
    read = fields({"labels": value})
    assert read.labels("labels", "", "", 9, 9) == {}
    assert faults(read) == [(FieldRefused, "labels")]


def test_objects_that_are_none_are_left_out_of_a_list_of_objects() -> None:
    read = fields({"parts": [{"name": "a"}, 5, {"nam": "b"}]}, "tracks[1]")
    assert [each.value("name") for each in read.objects("parts", KNOWN, 9)] == ["a", None]
    assert faults(read) == [(FieldRefused, "tracks[1].parts[1]"), (FieldUnknown, "tracks[1].parts[2].nam")]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), ("a", '"a"'), ({}, "an empty object"), ({"a": 1}, "an object"), ([1, 2], "a list of 2"), (5, "5")],
)
def test_a_value_is_shown_in_the_words_of_the_document(value: Any, text: str) -> None:
    assert shown(value) == text


def test_a_long_value_is_cut() -> None:
    assert len(shown("x" * 1000)) == MAX_VALUE_SHOWN + 3


def test_the_nearest_name_does_not_depend_on_case() -> None:
    assert nearest("EUROPE/BERLN", ["Europe/Berlin", "Asia/Tokyo"]) == "Europe/Berlin"
    assert nearest("x", ["Europe/Berlin"]) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.sampled_from(KNOWN), inner, max_size=4),
    max_leaves=10,
)


@given(document=anything)
def test_whatever_a_document_holds_it_is_read_without_an_exception(document: Any) -> None:
    read = fields(document)
    read.text("name", "a text", pattern="[a-z]+")
    read.whole("size", 1, 9, default=4)
    read.flag("is_fast", default=True)
    read.choice("color", Color, Color.green)
    read.texts("parts", "parts", pattern="", longest=9, limit=9)
    read.labels("labels", "[a-z]+", "", 9, 9)
    list(read.objects("inner", KNOWN, 9))
    assert all(fault.detail and fault.remedy for fault in read.faults.all)
