"""What readers answer is compared with what is right, each part by its own measure."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from saver_conformance.observation.reading import Comparison, Part, Reading
from saver_conformance.readers.judgement import Standard, judge
from saver_conformance.readers.question import Answer
from saver_conformance.readers.reader import PARTS, Reader

READER = Reader(name="r", program=Path("r.py"), text="", gives=PARTS, tolerance=1e-4)
RIGHT = Answer(
    tokens=((1, 2), (3,)),
    chat="hello",
    scores=((0.0, 1.0, 2.0),),
    chat_scores=(2.0, 1.0, 0.0),
    digests={"a": "x"},
)
STANDARD = Standard(RIGHT, dict.fromkeys(PARTS, "the test"))


def outcomes(answer: Answer, standard: Standard = STANDARD) -> dict[str, str]:
    return {part.name: part.outcome for part in judge(READER, answer, standard, {}).parts}


def test_the_same_answer_is_right() -> None:
    assert set(outcomes(RIGHT).values()) == {"right"}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("tokens", ((1, 2), (4,))),
        ("tokens", ((1, 2),)),
        ("chat", "hallo"),
        ("scores", ((0.0, 1.0, 2.001),)),
        ("scores", ((0.0, 1.0),)),
        ("scores", ((0.0, 1.0, math.nan),)),
        ("scores", ((),)),
        ("scores", ()),
        ("chat_scores", {"9": 0.0}),
        ("digests", {"a": "y"}),
        ("digests", {}),
        ("digests", {"a": "x", "b": "x"}),
    ],
)
def test_another_answer_is_wrong_in_its_part_only(part: str, value: object) -> None:
    found = outcomes(replace(RIGHT, **{part: value}))
    assert {name for name, outcome in found.items() if outcome != "right"} == {part}
    assert found[part] == "wrong"


def test_scores_within_the_tolerance_are_right_and_their_difference_is_kept() -> None:
    answer = replace(RIGHT, scores=((0.00005, 1.0, 2.0),))
    part = next(p for p in judge(READER, answer, STANDARD, {}).parts if p.name == "scores")
    assert part.outcome == "right"
    assert part.difference == pytest.approx(0.00005)


def test_logarithms_of_probabilities_are_compared_with_those_of_the_logits() -> None:
    total = math.log(sum(map(math.exp, (0.0, 1.0, 2.0))))
    right = Answer(scores=({"2": 2.0 - total},), kind="logprobs")
    assert outcomes(right) == {"scores": "right"}
    assert outcomes(replace(right, kind="logits")) == {"scores": "wrong"}


def test_an_error_is_a_refusal_and_a_folder_of_another_kind_is_not_read() -> None:
    answer = Answer(errors={"scores": "KeyError: x"}, unsupported={"chat": "no template"})
    assert outcomes(answer) == {"chat": "not read", "scores": "refused"}


def test_nothing_is_compared_where_nobody_knows_what_is_right() -> None:
    assert outcomes(RIGHT, Standard(Answer(), {}))["scores"] == "not compared"


def test_scores_that_are_not_finite_are_not_compared() -> None:
    standard = Standard(replace(RIGHT, scores=((math.nan, 0.0, 0.0),)), {})
    assert outcomes(RIGHT, standard)["scores"] == "not compared"


def reading(*parts: Part) -> Reading:
    return Reading("r", parts)


def test_what_a_plain_save_shows_too_is_no_fault_of_the_saver() -> None:
    wrong, right = Part("scores", "wrong"), Part("scores", "right")
    assert Comparison(reading(wrong), reading(right)).faults() == ((wrong, False),)
    assert Comparison(reading(wrong), reading(wrong)).faults() == ((wrong, True),)
    refused = Part("scores", "refused")
    assert Comparison(reading(wrong), reading(refused)).faults() == ((wrong, True),)
    assert Comparison(reading(right), reading(wrong)).faults() == ()


def test_folder_that_a_reader_takes_for_another_kind_is_refused() -> None:
    other, right = Part("scores", "not read", found="no such model"), Part("scores", "right")
    ((fault, also_plain),) = Comparison(reading(other), reading(right)).faults()
    assert (fault.outcome, fault.found, also_plain) == ("refused", "no such model", False)
    assert Comparison(reading(other), reading(other)).faults() == ()


def test_tokens_and_scores_after_a_chat_as_of_the_library_are_no_fault_of_the_folder() -> None:
    library = ((5, 6), (7,))
    standard = replace(STANDARD, library_tokens=library)
    found = outcomes(replace(RIGHT, tokens=library, chat_scores=(0.0, 0.0, 0.0)), standard)
    assert (found["tokens"], found["chat_scores"]) == ("not compared", "not compared")
    assert outcomes(replace(RIGHT, chat_scores=(0.0, 0.0, 0.0)), standard)["chat_scores"] == "wrong"


def test_the_worst_part_is_the_readers_outcome() -> None:
    assert reading(Part("chat", "refused"), Part("scores", "wrong")).outcome == "wrong"
    assert reading(Part("chat", "refused"), Part("tokens", "right")).outcome == "refused"
    assert reading().outcome == "not read"
    assert not reading(Part("chat", "refused")).is_fine
