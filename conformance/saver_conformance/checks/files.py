"""FILES: what lies in the folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from saver_conformance.cases.case import Case
from saver_conformance.checks.evidence import Evidence
from saver_conformance.checks.registry import check
from saver_conformance.folder.layout import (
    ADAPTER,
    ADAPTER_CONFIG,
    CHAT_TEMPLATE,
    CHAT_TEMPLATES,
    CONFIG,
    INDEX,
    PROCESSORS,
    SINGLE,
    TOKENIZER_CONFIG,
    UnreadableJsonError,
    belongs_to_save,
    is_of_whole_model,
    layout_of,
    read_json_object,
    shard_names,
    shard_place,
)
from saver_conformance.folder.temporary_names import is_leftover
from saver_conformance.folder.weight_copies import find_copies
from saver_conformance.observation.finding import Defect
from saver_conformance.observation.observation import Entry
from saver_conformance.safe_text import count, quoted

_SHOWN_PATHS = 20
ROOM = 4_000_000
"""Bytes that plots, logs and tables of results may take in addition to the model."""


def _has_earlier_weights(case: Case) -> bool:
    return case.existing_save != "empty" or case.after is not None or case.saves_over_base


def _has_earlier_adapter(case: Case) -> bool:
    return case.existing_save == "adapter" or (case.after is not None and case.after.saves_adapter)


def _has_strangers(case: Case) -> bool:
    return case.foreign_files in ("strangers", "readonly")


def _has_processor(case: Case) -> bool:
    return case.foreign_files == "processor"


def _has_whole_model(case: Case) -> bool:
    earlier = case.after
    while earlier is not None:  # an adapter's save has left the model of the save before
        if not earlier.saves_adapter:
            return True
        earlier = earlier.after
    return case.saves_over_base or case.existing_save in ("single", "sharded", "another")


@check("FILES-001")
def full_weight_names(e: Evidence) -> Iterator[Defect]:
    """A single file, or all shards of one count and an index."""
    layouts = {layout_of(path) for path in e.own_files}
    if not layouts:
        found = _idle(e) + _difference({SINGLE}, e.after)
        yield e.defect(f"{SINGLE}, or shards and {INDEX}", found)
    if "sharded" not in layouts:
        return
    places = {place: path for path in e.own_files if (place := shard_place(path))}
    count = max(1, len(places))
    # A name may have more digits than it needs.
    wanted = {INDEX} | {
        places.get((number, count), name) for number, name in enumerate(shard_names(count), 1)
    }
    for path in sorted(wanted - set(e.own_files)):
        yield e.defect(
            f"{path}, one of {len(wanted) - 1} shards",
            _difference(wanted, e.after),
            file=path,
        )


@check("FILES-002", in_each_folder=True)
def adapter_names(e: Evidence) -> Iterator[Defect]:
    """Weights and configuration of the adapter."""
    for path in (ADAPTER, ADAPTER_CONFIG):
        if path not in e.after:
            found = _idle(e) + _difference({ADAPTER, ADAPTER_CONFIG}, e.after)
            yield e.defect(path, found, file=path)


@check("FILES-003")
def one_layout(e: Evidence) -> Iterator[Defect]:
    """What was written belongs to one layout."""
    written = {layout_of(path): path for path in e.written if _is_weights(path)}
    if len(written) > 1:
        yield e.defect("one weight layout", ", ".join(sorted(written.values())))


@check("FILES-004")
def no_pickles(e: Evidence) -> Iterator[Defect]:
    """No pickled weights were written."""
    for path in e.written:
        if layout_of(path) == "pickle":
            yield e.defect("safetensors only", "pickled weights", file=path)


@check("FILES-005", when=_has_earlier_weights)
def no_stale_weights(e: Evidence) -> Iterator[Defect]:
    """No weight file that lay there before is left, unless it is part of this save.

    Beside an adapter, a whole model stays: it may be the adapter's base.
    """
    for path in e.before:
        if e.case.saves_adapter and is_of_whole_model(path):
            continue
        if layout_of(path) and path in e.after and path not in e.own_files:
            if path in e.written:
                continue  # FILES-003 and FILES-004 have it
            yield e.defect("removed", "left by an earlier save", file=path)


@check("FILES-006", when=_has_earlier_adapter)
def no_stale_adapter_config(e: Evidence) -> Iterator[Defect]:
    """No adapter's configuration lies beside a whole model."""
    if ADAPTER_CONFIG in e.after:
        yield e.defect("removed", "left by an earlier save", file=ADAPTER_CONFIG)


@check("FILES-007")
def no_foreign_chat_template(e: Evidence) -> Iterator[Defect]:
    """No template lies in a place that a tokenizer reads, but the one that belongs there."""
    for path, entry in e.after.items():
        if path.startswith(CHAT_TEMPLATES) and entry.kind != "folder":
            yield e.defect("one chat template at most", "another one", file=path)
    if e.expected.chat_template is not None:
        return  # META-008 has the template itself
    if CHAT_TEMPLATE in e.after:
        yield e.defect("no chat template", "a chat template", file=CHAT_TEMPLATE)
    try:
        template = read_json_object(e.folder / TOKENIZER_CONFIG).get("chat_template")
    except UnreadableJsonError:
        return  # META-007 has it
    if template is not None:
        yield e.defect("no chat_template", quoted(template), file=TOKENIZER_CONFIG)


@check("FILES-008", when=_has_strangers)
def strangers_stay(e: Evidence) -> Iterator[Defect]:
    """Everything that belongs to no save is as it was."""
    code = {f"{name.partition('.')[0]}.py" for name in e.case.family.code.values()}
    for path, entry in e.before.items():
        if not (belongs_to_save(path) or path in code):
            yield from _changed(e, path, entry)


@check("FILES-009")
def nothing_temporary(e: Evidence) -> Iterator[Defect]:
    """No path that the save made looks temporary, hidden, or like a rank's."""
    for path in e.after:
        if path in e.before:
            continue
        if is_leftover(path.rpartition("/")[2]):
            yield e.defect("removed before the saver returns", "left", file=path)


@check("FILES-010")
def usual_mode(e: Evidence) -> Iterator[Defect]:
    """Files that were written have the mode that ``open`` gives."""
    wanted = 0o666 & ~e.observation.umask
    for place in ({e.folder: e} | {place.folder: place for place in e.places}).values():
        for path, entry in place.written.items():
            if entry.kind == "file" and belongs_to_save(path) and entry.mode != wanted:
                found = f"mode {entry.mode:04o}"
                yield place.defect(f"mode {wanted:04o}", found, file=path)


@check("FILES-011", structural=True)
def regular_files(e: Evidence) -> Iterator[Defect]:
    """Nothing that was written is a link, a socket or a device."""
    for path, entry in e.written.items():
        if entry.kind not in ("file", "folder"):
            yield e.defect("a regular file", f"a {entry.kind}", file=path)


@check("FILES-012")
def no_model_config_beside_adapter(e: Evidence) -> Iterator[Defect]:
    """There is no ``config.json`` without the weights of its model."""
    weights = [path for path in e.after if layout_of(path) and is_of_whole_model(path)]
    if CONFIG in e.written and not weights:
        yield e.defect("no configuration of a model", "one", file=CONFIG)


@check("FILES-013", when=_has_whole_model)
def whole_model_stays(e: Evidence) -> Iterator[Defect]:
    """Weights of a whole model are as they were, and its configurations are there."""
    for path, entry in e.before.items():
        if is_of_whole_model(path) and (layout_of(path) or path not in e.after):
            yield from _changed(e, path, entry)


@check("FILES-014", when=_has_processor)
def processor_stays(e: Evidence) -> Iterator[Defect]:
    """Files of processors, none of which the training has, are as they were."""
    for path, entry in e.before.items():
        if path in PROCESSORS:
            yield from _changed(e, path, entry)


@check("FILES-015")
def no_second_copy(e: Evidence) -> Iterator[Defect]:
    """No other file that was written holds half of the model's tensors, told by their bytes."""
    if not any(place.own_files for place in e.places):
        return  # what there is has another name, which FILES-001 and FILES-002 report
    files = {e.folder / path: path for path in _unknown(e)}
    for file, tensors in find_copies(e.all_tensors, files).items():
        found = f"it holds {count(len(tensors), 'tensor')}, such as {quoted(tensors[0])}"
        yield e.defect("the weights once", found, file=files[file])


@check("FILES-016")
def size_of_the_model(e: Evidence) -> Iterator[Defect]:
    """What was written takes about as much space as the model's tensors."""
    weights = {
        place.path_of(path): entry.size
        for place in e.places
        for path, entry in place.written.items()
        if entry.kind == "file" and layout_of(path)
    }
    sizes = weights | {path: e.written[path].size for path in _unknown(e)}
    model = sum(len(tensor.data) for tensor in e.all_tensors.values())
    for place in e.places:  # a tied tensor may be there twice, see TENSOR-007
        model += sum(len(place.expected.tensors[name].data) for name in place.tied_to)
    if sum(sizes.values()) > model * 1.1 + ROOM:
        largest = sorted(sizes, key=lambda path: sizes[path], reverse=True)[:3]
        told = ", ".join(f"{path} ({sizes[path]} bytes)" for path in largest)
        yield e.defect(
            f"about {model} bytes, those of the model",
            f"{sum(sizes.values())} bytes, the largest in {told}",
            file=largest[0],
        )


def _unknown(e: Evidence) -> list[str]:
    """Files that the save wrote and that are neither the model's nor temporary."""
    return [
        path
        for path, entry in e.written.items()
        if entry.kind == "file"
        and not e.is_of_model(path)
        and not any(is_leftover(part) for part in path.split("/"))  # FILES-009 has those
    ]


def _changed(e: Evidence, path: str, entry: Entry) -> Iterator[Defect]:
    """A finding if a file that lay there before is gone, or another one."""
    now = e.after.get(path)
    if now is None:
        yield e.defect("unchanged", "removed", file=path)
    elif (now.kind, now.mode, now.sha256) != (entry.kind, entry.mode, entry.sha256):
        yield e.defect(
            f"{entry.kind}, mode {entry.mode:04o}, sha256 {entry.sha256[:16]}",
            f"{now.kind}, mode {now.mode:04o}, sha256 {now.sha256[:16]}",
            file=path,
        )


def _idle(e: Evidence) -> str:
    """Name the ranks when none of them wrote anything; empty otherwise, and without a run."""
    if e.folder != e.observation.folder:
        return ""
    ranks = ", ".join(str(outcome.rank) for outcome in e.observation.outcomes)
    return f"nothing was written by any rank ({ranks})\n" if ranks and not e.written else ""


def _difference(wanted: Collection[str], present: Collection[str]) -> str:
    """Both lists of files as a diff: ``-`` is missing, ``+`` is there and not requested."""
    lines = []
    for path in sorted({*wanted, *present}):
        sign = "-" if path not in present else " " if path in wanted else "+"
        lines.append(f"{sign} {path}")
    if len(lines) > _SHOWN_PATHS:
        lines[_SHOWN_PATHS:] = [f"... {len(lines) - _SHOWN_PATHS} more"]
    return "\n".join(lines)


def _is_weights(path: str) -> bool:
    # Pickles have a clause of their own.
    return layout_of(path) not in (None, "pickle")
