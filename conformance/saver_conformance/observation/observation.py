"""What one case showed: the only thing that checks look at.

Training, saving and reloading happen once a case; everything that a check needs is recorded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from saver_conformance.cases.case import Case
from saver_conformance.observation.checkpoints import Checkpoints
from saver_conformance.observation.file_operation import FileOperation
from saver_conformance.observation.file_trace import FileTrace
from saver_conformance.observation.process_diff import Change
from saver_conformance.observation.reading import Comparison


@dataclass(frozen=True, slots=True)
class Tensor:
    """The bits of one tensor.

    Attributes:
        dtype: safetensors' name of the type, such as ``BF16``.
        shape: the logical shape.
        data: the elements in row-major order, little-endian.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the oracle saw before the save, under the names that belong on disk.

    Attributes:
        tensors: every tensor that belongs in the save, by its canonical name.
        tied: names that are the same memory as a saved tensor and stay out, with that tensor's
            name.
        optional: names that a save may have or leave out; where they are among the tensors, too,
            they have these bits if they are there.
        base: names of the frozen base, none of which belongs in an adapter's file.
        config: fields of ``config.json`` that must be there; empty for adapters.
        adapter: fields of ``adapter_config.json`` that must be there; empty for full training.
        generation: fields of ``generation_config.json`` that must be there; empty for adapters.
        chat_template: the tokenizer's chat template, if it has one.
        vocabulary: the tokenizer's tokens and ids.
        folder: where the weights lie, relative to the output folder; empty for the folder itself.
        others: further adapters of the same save, each with a folder, tensors and configuration.
        in_memory: for each tensor that has another name in memory than on disk, that name; several
            tensors on disk may be one in memory.
    """

    tensors: Mapping[str, Tensor]
    tied: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    base: frozenset[str] = frozenset()
    config: Mapping[str, Any] = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str | None = None
    vocabulary: Mapping[str, int] = field(default_factory=dict)
    folder: str = ""
    others: tuple[Expectation, ...] = ()
    in_memory: Mapping[str, str] = field(default_factory=dict)

    @property
    def required(self) -> Mapping[str, Tensor]:
        """The tensors that no save may leave out."""
        return {name: own for name, own in self.tensors.items() if name not in self.optional}


@dataclass(frozen=True, slots=True)
class RankOutcome:
    """How the saver ended on one rank.

    Attributes:
        rank: the rank.
        status: ``returned``; ``raised`` an exception; ``died``: the process ended; ``hung``: it
            did not return within the limit.
        detail: traceback, stack or signal; empty when it returned.
        seconds: time spent in the saver.
        place: the saver's own innermost frame, where it did not return; empty if none is known.
    """

    rank: int
    status: Literal["returned", "raised", "died", "hung"]
    detail: str = ""
    seconds: float = 0.0
    place: str = ""

    @property
    def end(self) -> str:
        """How it ended, in one line: the exception, the signal or the limit."""
        return self.detail.partition("\n")[0].strip()

    def __str__(self) -> str:
        told = f": {self.end}" if self.end else ""
        return f"rank {self.rank} {self.status}{told}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path below the output folder.

    Attributes:
        kind: regular file, folder, link or something else.
        mode: permission bits.
        size: in bytes.
        sha256: of a file's bytes, as hex; empty for the rest.
    """

    kind: Literal["file", "folder", "link", "other"]
    mode: int
    size: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A tensor that did not come back as it was.

    Attributes:
        tensor: its name.
        expected: what should have come back: bytes in hex, or dtype and shape.
        found: what came back.
        dtype: the expected one.
        shape: the expected one.
        offset: of the first differing byte in the tensor; None where sizes differ.
        differing: number of differing bytes.
    """

    tensor: str
    expected: str
    found: str
    dtype: str
    shape: tuple[int, ...]
    offset: int | None = None
    differing: int | None = None


@dataclass(frozen=True, slots=True)
class Reload:
    """What a fresh process got from the saved folder alone (and the base model, for adapters).

    Attributes:
        error: traceback when loading failed; everything else is empty then.
        class_name: class of the model that ``Auto*`` made.
        missing: keys that the library reported as missing.
        unexpected: keys that the library reported as unexpected.
        differences: tensors whose bits differ from the oracle's snapshot.
        untied: names expected to share memory after loading, that do not.
        logits: None when they were not compared (special_values weights); else whether the bits of
            the
            reloaded model's logits equal those of a control that holds the snapshot.
        tokenizer_error: what is wrong with the reloaded tokenizer; empty when nothing is.
    """

    error: str = ""
    class_name: str = ""
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    untied: tuple[str, ...] = ()
    logits: bool | None = None
    tokenizer_error: str = ""


@dataclass(frozen=True, slots=True)
class ControlRun:
    """What came of saving again and of training on, beside a training that was never saved.

    Attributes:
        outcomes: how the second save ended on each rank.
        folder: the output folder as the second save left it.
        files: what lies there, by relative POSIX path.
        step_error: traceback when training could not go on after the saves; empty otherwise, and
            when a rank did not return from the second save.
        differences: tensors that one more step made other ones than it did in the unsaved control.
    """

    outcomes: tuple[RankOutcome, ...]
    folder: Path
    files: Mapping[str, Entry]
    step_error: str = ""
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """One save that was killed, or that met a failing system call.

    Attributes:
        kind: ``kill``, or the name of the error that a call returned.
        rank: the rank to which it happened.
        call: the system call at which it happened.
        state: name of the state that it left the output folder in.
        outcomes: how the save ended on each rank; for ``kill``, how the next save in the same
            folder did, which leaves the state ``STATE-again``.
    """

    kind: str
    rank: int
    call: str
    state: str
    outcomes: tuple[RankOutcome, ...]

    @property
    def place(self) -> str:
        """What happened where, in words."""
        what = "killed" if self.kind == "kill" else self.kind
        rank = f" of rank {self.rank}" if len(self.outcomes) > 1 else ""
        return f"{what} at {self.call}{rank}"

    @property
    def has_returned(self) -> bool:
        """Whether the save returned on every rank."""
        return all(outcome.status == "returned" for outcome in self.outcomes)

    @property
    def has_raised(self) -> bool:
        """Whether the save raised on some rank."""
        return any(outcome.status == "raised" for outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class Crashes:
    """Outcomes of saves with injected faults: ``old`` is the folder before, ``new`` after a save.

    Attributes:
        unavailable: why none was made; empty otherwise.
        faults: in the order of the calls, kills first.
        models: for each state what a loader gets: a text that stands for the model's bits and
            settings, or None where it refuses to load.
        files: for each state the paths in the output folder.
        trace: of the save that was left alone; None where none was made.
    """

    unavailable: str = ""
    faults: tuple[Fault, ...] = ()
    models: Mapping[str, str | None] = field(default_factory=dict)
    files: Mapping[str, frozenset[str]] = field(default_factory=dict)
    trace: FileTrace | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One case, trained, saved and reloaded.

    Attributes:
        case: what was run.
        expected: the oracle's view before the save.
        outcomes: one for every rank, in order.
        folder: the output folder, still on disk while checks run.
        before: what lay in the folder when the saver was called, by relative POSIX path.
        after: what lies there now.
        umask: the umask of the ranks.
        reload: None when nothing was reloaded, because a rank did not return.
        changes: for each rank what the save changed in its process; None when a rank did not
            return.
        control: None when the case asks for none, or when a rank did not return.
        crashes: None when the case asks for none.
        untraced: why the ranks were not traced; empty when they were.
        operations: for each rank what it did to files in the output folder, if it was traced.
        checkpoints: None when the case asks for none.
        trace: what all ranks did to files anywhere; None where they were not traced.
        memory: for each rank by how many bytes its memory grew at most during the save; None where
            nobody looked.
        comparisons: what readers made of the folder and of a plain save; None where none was asked.
        later: what changed in the folder between ``after`` and the end of the reload.
    """

    case: Case
    expected: Expectation
    outcomes: tuple[RankOutcome, ...]
    folder: Path
    before: Mapping[str, Entry]
    after: Mapping[str, Entry]
    umask: int
    reload: Reload | None
    changes: tuple[tuple[Change, ...], ...] | None = None
    control: ControlRun | None = None
    crashes: Crashes | None = None
    untraced: str = "the case asks for no trace"
    operations: tuple[tuple[FileOperation, ...], ...] = ()
    checkpoints: Checkpoints | None = None
    trace: FileTrace | None = None
    memory: tuple[int, ...] | None = None
    comparisons: tuple[Comparison, ...] | None = None
    later: tuple[Change, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether the saver refused the case, as it may."""
        return is_refusal(self.case, self.outcomes, self.before, self.after)


def is_refusal(
    case: Case,
    outcomes: tuple[RankOutcome, ...],
    before: Mapping[str, Entry],
    after: Mapping[str, Entry],
) -> bool:
    """Whether the saver refused ``case``, which may be refused, and left the folder as it was."""
    raised = all(outcome.status == "raised" for outcome in outcomes)
    return case.may_be_refused and raised and dict(before) == dict(after)


def failed(outcomes: tuple[RankOutcome, ...]) -> bool:
    """Whether a rank did not return."""
    return any(outcome.status != "returned" for outcome in outcomes)
