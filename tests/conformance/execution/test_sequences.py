"""Saves in sequence into one folder: each is judged, whatever the ones before it left."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from saver_conformance.cases.case import METHODS, Case, Mode
from saver_conformance.cases.strategies import cases, make_case
from saver_conformance.execution.saved_case import SavedCase
from saver_conformance.spec import SPEC

REFERENCE = "canonical_saver:save_trained_model"
STALE = "fixtures.mutants.unusual:keeps_its_own_earlier_shards"
STALE_ADAPTER = "fixtures.mutants.files:keeps_old_adapter"
SINGLE = {method: Mode(method, "single") for method in METHODS}


class SavesInSequence(RuleBasedStateMachine):
    """A folder that is saved into again and again."""

    judge = None  # given by the test

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.last = None

    @rule(case=st.sampled_from(list(SINGLE.values())).flatmap(cases))
    def train_and_save_anything(self, case):
        self.save(case)

    @precondition(lambda self: self.last)
    @rule(limit=st.sampled_from([None, 20_000, 4_000]))
    def save_in_other_shards(self, limit):
        self.save(replace(self.last, max_shard_size=limit))

    @precondition(lambda self: self.last)
    @rule(method=st.sampled_from(METHODS), names=st.sampled_from([("style",), ("default",)]))
    def train_by_another_method(self, method, names):
        self.save(make_case(SINGLE[method], {"names": names, "tokenizer": self.last.tokenizer}))

    def save(self, case: Case) -> None:
        """Train and save into the folder as it was left, and judge what lies there now."""
        case = replace(case, existing_save="empty", foreign_files="none", after=self.last)
        note(case.to_json())
        saved = self.judge.save_onto(self.folder if self.last else None, case)
        assert isinstance(saved, SavedCase), saved.reason
        shutil.rmtree(self.folder)
        shutil.copytree(saved.folder / "out", self.folder)
        record = self.judge.inspect(saved)
        assert record.status == "run", record.reason
        broken = {f.clause for f in record.findings if SPEC[f.clause].level == "MUST"}
        assert broken == set()
        self.last = replace(case, after=None)

    def teardown(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def run_machine(judge, examples, steps):
    class Machine(SavesInSequence):
        pass

    Machine.judge = judge
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            phases=[Phase.generate],  # a saver of ours is judged: the first failure says enough
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_save_of_a_sequence_is_right(shared_judge):
    shared_judge.turn_to(REFERENCE)
    run_machine(shared_judge, examples=2, steps=5)


def test_a_saver_that_trips_over_its_own_save_is_caught(shared_judge):
    shared_judge.turn_to(STALE_ADAPTER)
    with pytest.raises(AssertionError, match="FILES-005"):
        run_machine(shared_judge, examples=30, steps=4)


def test_the_saves_before_the_last_are_judged_with_it(shared_judge):
    shared_judge.turn_to(STALE)
    sharded = make_case(SINGLE["full"], {"max_shard_size": 20_000})
    single = replace(make_case(SINGLE["full"], {}), after=sharded)
    # The last save finds two earlier ones, whose shards are of the same names.
    last = replace(sharded, after=single)
    record = shared_judge.run(last)
    broken = {finding.case for finding in record.ran["FILES-005"]}
    assert single in broken
    assert record.case == last
    assert record.clauses


def test_an_index_with_the_bytes_of_the_one_before_is_no_stale_one(shared_judge):
    shared_judge.turn_to(REFERENCE)
    sharded = make_case(SINGLE["full"], {"max_shard_size": 20_000})
    record = shared_judge.run(replace(sharded, seed=1, after=sharded))
    assert not [f for f in record.findings if SPEC[f.clause].level == "MUST"]


def test_a_second_save_is_compared_in_the_folders_of_named_adapters(shared_judge):
    shared_judge.turn_to(REFERENCE)
    values = {"names": ("style", "facts"), "probe": "control_run"}
    record = shared_judge.run(make_case(SINGLE["lora"], values))
    assert record.ran["PURITY-010"] == (), record.blocked
