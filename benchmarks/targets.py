"""What the reference is meant to reach, judged from the summaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.contestants import NAMES
from benchmarks.ratios import Summary

MIB = 2**20

LIMITED = {"fsdp2, 2 x, 2 GB": "FSDP2", "zero3, 2 x, 2 GB": "ZeRO-3"}
"""The cells in which the saver is held to the limit of the disk, and their engines."""

SLOWER = {"gather": 3.0, "consolidating": 3.0}
"""How many times as long others are to take there."""


@dataclass(frozen=True)
class Verdict:
    """One target in one cell.

    Attributes:
        target: what is wanted.
        cell: where.
        found: what was measured.
        holds: whether that is enough.
    """

    target: str
    cell: str
    found: str
    holds: bool


def judge(summaries: Sequence[Summary]) -> list[Verdict]:
    """Judge all targets whose cells were measured."""
    found: list[Verdict] = []
    by_key = {(s.cell, s.contestant, s.durable): s for s in summaries}
    for cell in LIMITED:
        for durable in (False, True):
            ours = by_key.get((cell, "reference", durable))
            if ours is None:
                continue
            policy = "with fsync" if durable else "without fsync"
            for name, times in SLOWER.items():
                peer = by_key.get((cell, name, durable))
                if peer is not None:
                    ratio = peer.ratio[1]
                    target = f"at least {times:g} times faster than {name}, {policy}"
                    found.append(Verdict(target, cell, f"{ratio:.1f} times", ratio >= times))
            limit = by_key.get((cell, "limit", durable))
            if limit is not None:
                ratio = 1 / limit.ratio[1]
                target = f"at most 1.10 times the limit, {policy}"
                found.append(Verdict(target, cell, f"{ratio:.2f} times", ratio <= 1.10))
            target = f"bytes written at most 1.01 times the model's, {policy}"
            found.append(Verdict(target, cell, f"{ours.written:.3f} times", ours.written <= 1.01))
    for cell in dict.fromkeys(s.cell for s in summaries):
        ours = by_key.get((cell, "reference", False))
        if ours is None:
            continue
        more = f"{ours.memory / MIB:.0f} MiB"
        found.append(
            Verdict("extra memory at most 64 MiB on any rank", cell, more, ours.memory <= 64 * MIB)
        )
        plain = by_key.get((cell, "save_pretrained", False))
        if plain is None or not cell.startswith("single"):
            continue
        if ours.bytes < 10 * 10**6:
            late = 1000 * (ours.seconds - plain.seconds)
            target = "at most 20 ms later than save_pretrained"
            found.append(Verdict(target, cell, f"{late:+.1f} ms", late <= 20))
        else:
            for durable, policy in ((False, "without fsync"), (True, "with fsync")):
                ratio = by_key[cell, "save_pretrained", durable].ratio[1]
                target = f"no slower than save_pretrained, {policy}"
                found.append(Verdict(target, cell, f"{1 / ratio:.2f} times", ratio >= 1))
            target = "no more memory than save_pretrained"
            both = f"{more}, {plain.memory / MIB:.0f} MiB"
            found.append(Verdict(target, cell, both, ours.memory <= plain.memory + MIB))
    return found


def explain(summaries: Sequence[Summary]) -> list[str]:
    """Say what keeps the saver from a target in time, by what else was measured."""
    by_key = {(s.cell, s.contestant, s.durable): s for s in summaries}
    found = []
    for ours in summaries:
        peer, allowed = ("limit", 1.10) if ours.cell in LIMITED else ("save_pretrained", 1.0)
        other, one_file, flushed = (
            by_key.get(key)
            for key in (
                (ours.cell, peer, ours.durable),
                (ours.cell, "one_file", ours.durable),
                (ours.cell, "reference", True),
            )
        )
        judged = ours.cell in LIMITED or ours.cell.startswith("single")
        small = ours.bytes < 10 * 10**6 and ours.cell not in LIMITED
        if ours.contestant != "reference" or not judged or small or other is None:
            continue
        if other.ratio[1] * allowed >= 1 or one_file is None or flushed is None:
            continue
        writing, publishing = ours.phases["write"], ours.phases["publish"]
        text = (
            f"{ours.cell}, {'with' if ours.durable else 'without'} fsync: of the saver's "
            f"{_seconds(ours)}, {writing:.3f} are the phase in which the ranks write. As many "
            "processes that do nothing but write as much to one file, every byte from its own "
            f"place in memory, take {_seconds(one_file)}; {NAMES[peer]} takes {_seconds(other)}. "
        )
        if ours.durable:
            publishing = 0.0
        else:
            text += (
                f"{publishing:.3f} s are renames and the removal of the empty folder of the staged "
                "files, which wait where the kernel has by itself begun to bring the bytes to the "
                f"disk; with fsync they are {flushed.phases['publish']:.3f} s. "
            )
        rest = ours.seconds - writing - publishing
        found.append(f"{text}All else, from the names of the tensors on, takes {rest:.3f} s.")
    return [*found, *_explain_the_others(by_key)]


def _explain_the_others(by_key: Mapping[tuple[str, str, bool], Summary]) -> Iterator[str]:
    """What the disk allows where another way takes less than so many times as long."""
    for (cell, name, durable), other in by_key.items():
        limit = by_key.get((cell, "limit", durable))
        if cell not in LIMITED or limit is None or other.ratio[1] >= SLOWER.get(name, 0.0):
            continue
        yield (
            f"{cell}, {'with' if durable else 'without'} fsync: {NAMES[name]} takes "
            f"{_seconds(other)}, the {NAMES['limit']} is {_seconds(limit)}: a saver as fast as the "
            f"disk would be {other.seconds / limit.seconds:.1f} times faster, not "
            f"{SLOWER[name]:g}; this one is {other.ratio[1]:.1f} times faster."
        )


def _seconds(summary: Summary) -> str:
    least, greatest = summary.range
    return f"{summary.seconds:.3f} s ({least:.3f} to {greatest:.3f})"
