"""What the checks say of what a save leaves later, elsewhere and in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.conformance.checks.test_crash_and_ranks import found, observe

from saver_conformance.cases.case import Case, Mode
from saver_conformance.checks import run
from saver_conformance.observation.file_trace import FileTrace
from saver_conformance.observation.flushing import FileEvent
from saver_conformance.observation.observation import Entry, Expectation, Observation, Tensor
from saver_conformance.observation.process_diff import BASE, LIBRARIES, OUTPUT, Change

CHANGE = Change(OUTPUT, "model.safetensors", "(absent)", "9 bytes")
FILE = Entry("file", 0o644, 9, "a")


def test_a_file_that_came_after_a_rank_had_returned_is_told_of_that_rank() -> None:
    told = found(observe("none", changes=((), (CHANGE,))), "RANKS")
    said = "(absent) when the saver returned on rank 1, 9 bytes later"
    assert told == {"RANKS-007": [(1, said)]}


def test_a_file_that_came_after_all_ranks_had_returned_is_worse() -> None:
    told = found(observe("none", changes=((CHANGE,), (CHANGE,))), "RANKS")
    assert list(told) == ["RANKS-008"]


def test_file_that_changes_while_the_suite_reloads_changed_after_all_ranks_had_returned() -> None:
    told = found(observe("none", changes=((), (CHANGE,)), later=(CHANGE,)), "RANKS")
    assert list(told) == ["RANKS-008"]
    alone = found(observe("none", changes=((), ()), later=(CHANGE,)), "RANKS")
    assert alone == {"RANKS-008": [(None, "(absent) when the saver had returned, 9 bytes later")]}


@pytest.mark.parametrize("path", ["saving.log", "runs/events", ".staging/model.safetensors"])
def test_files_of_others_may_come_later(path: str) -> None:
    later = replace(CHANGE, name=path)
    assert found(observe("none", changes=((later,), (later,)), later=(later,)), "RANKS") == {}


def test_without_a_look_at_the_return_nothing_is_said() -> None:
    blocked = run(observe("none")).blocked
    assert {"RANKS-007", "RANKS-008", "PURITY-013"} <= set(blocked)


def test_changes_of_the_base_and_of_libraries_have_clauses_of_their_own() -> None:
    one = Change(BASE, "config.json", "1", "2"), Change(LIBRARIES, "os.replace", "", "mine")
    told = found(observe("control_run", changes=(one, ())), "PURITY")
    assert told["PURITY-013"] == [(0, "now: 2")]
    assert told["PURITY-014"] == [(0, "mine")]


def traced(events: list[FileEvent], left: tuple[str, ...] = (), **entries: Entry) -> Observation:
    after = {"model.safetensors": FILE, "saving.log": FILE}
    trace = FileTrace(tuple(events), left)
    return replace(observe("file_trace", untraced="", trace=trace), after=after)


@pytest.mark.parametrize(
    ("name", "clauses"),
    [("model.safetensors", ["CRASH-007", "CRASH-008"]), ("saving.log", [])],
)
def test_what_is_not_flushed_is_told_of_files_of_the_model(name: str, clauses: list[str]) -> None:
    path = f"/out/{name}"
    events = [FileEvent("opens", path), FileEvent("writes", path)]
    assert list(found(traced(events), "CRASH")) == clauses
    assert found(traced([*events, FileEvent("flushes all")]), "CRASH") == {}


def test_what_was_not_traced_is_not_said_to_be_unflushed() -> None:
    blocked = run(observe("file_trace", untraced="no strace")).blocked
    assert {blocked[name] for name in ("CRASH-007", "CRASH-008", "PURITY-015")} == {"no strace"}


def test_a_temporary_folder_beside_the_output_folder_is_told() -> None:
    told = found(traced([], ("/out-merging", "/trainer", "/tmp/tmp123")), "PURITY-015")
    assert told == {"PURITY-015": [(None, "left: /out-merging")]}


def sharded(world_size: int, memory: tuple[int, ...] | None) -> Observation:
    case = Case(Mode("full", "fsdp2"), probe="memory", world_size=world_size)
    weights = {str(n): Tensor("U8", (10_000_000,), memoryview(bytes(10_000_000))) for n in range(8)}
    seen = replace(observe("none", memory=memory), case=case, folder=Path("/out"))
    return replace(seen, expected=Expectation(tensors=weights))


def test_memory_of_a_rank_that_gathers_is_told() -> None:
    # 20 MB are a rank's; twice a half of them, twice 10 MB and 16 MB are free.
    limit = 50_000_000 + 20_000_000 + 16_000_000
    told = found(sharded(4, (limit + 1, limit, 0, 0)), "RANKS-006")
    assert told == {"RANKS-006": [(0, f"{limit + 1} bytes more, 1.1 times the model")]}


def test_memory_on_too_few_ranks_or_without_a_look_is_not_judged() -> None:
    assert "RANKS-006" not in run(sharded(3, (10**9,) * 3)).ran
    assert "RANKS-006" in run(sharded(4, None)).blocked
