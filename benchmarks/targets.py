"""What the reference is meant to reach, judged from the summaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.ratios import Summary

MIB = 2**20


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
    for engine in ("fsdp2", "zero3"):
        cell = f"{engine}, 2 x, 2 GB"
        for durable in (False, True):
            ours = by_key.get((cell, "reference", durable))
            if ours is None:
                continue
            policy = "with fsync" if durable else "without fsync"
            for name, times in (("gather", 3.0), ("consolidating", 3.0)):
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
            target = "no slower than save_pretrained"
            found.append(
                Verdict(target, cell, f"{1 / plain.ratio[1]:.2f} times", plain.ratio[1] >= 1)
            )
            target = "no more memory than save_pretrained"
            both = f"{more}, {plain.memory / MIB:.0f} MiB"
            found.append(Verdict(target, cell, both, ours.memory <= plain.memory + MIB))
    return found


def explain(summaries: Sequence[Summary]) -> list[str]:
    """Say what keeps the saver from the limit where it misses it, by what else was measured."""
    found = []
    by_key = {(s.cell, s.contestant, s.durable): s for s in summaries}
    for engine in ("fsdp2", "zero3"):
        cell = f"{engine}, 2 x, 2 GB"
        for durable in (False, True):
            ours, limit, one_file = (
                by_key.get((cell, name, durable)) for name in ("reference", "limit", "one_file")
            )
            if ours is None or limit is None or one_file is None or limit.ratio[1] * 1.10 >= 1:
                continue
            writing = ours.phases["write"]
            text = (
                f"{cell}, {'with' if durable else 'without'} fsync: of the saver's "
                f"{ours.seconds:.3f} s, {writing:.3f} are the phase in which the ranks write. Two "
                "processes that do nothing but write half of one file each, every byte from its "
                f"own place in memory, take {one_file.seconds:.3f} s; the limit takes "
                f"{limit.seconds:.3f}, writing the same 64 MiB from the processor's cache again "
                "and again. "
            )
            other = by_key.get((cell, "reference", True))
            if not durable and other is not None:
                text += (
                    f"{ours.phases['publish']:.3f} s are renames and the removal of the empty "
                    "folder of the staged files: they wait for the kernel, which by itself begins "
                    "to bring so much to the disk; with fsync they are "
                    f"{other.phases['publish']:.3f} s. "
                )
            rest = ours.seconds - writing - (0 if durable else ours.phases["publish"])
            text += f"All else, from the names of the tensors on, takes {rest:.3f} s."
            found.append(text)
    return found
