"""The page and the plots, made from the JSON of a run alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import many_ranks
from benchmarks.compare import ratio_on_ranks
from benchmarks.contestants import NAMES
from benchmarks.ratios import TOLERANCE, Summary, summarize
from benchmarks.targets import LIMITED, explain, judge

GIB, MIB, GB = 2**30, 2**20, 10**9


def write(results: dict[str, Any], docs: Path) -> None:
    """Write ``performance.md``, ``performance.svg`` and ``performance.png``.

    Args:
        results: the run, as it is in ``performance.json``.
        docs: the folder.
    """
    summaries = summarize(results["samples"])
    (docs / "performance.md").write_text("\n".join(_page(results, summaries)))
    _plot(summaries, docs / "performance")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of Markdown; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _page(results: dict[str, Any], summaries: list[Summary]) -> list[str]:
    machine = results["machine"]
    lines = ["# Performance", "", "Made by `nox -s bench`; do not edit.", ""]
    lines += [
        f"Measured {results['date']} on {machine['cores']} cores, "
        f"{machine['memory'] / GIB:.0f} GiB of memory, {machine['file_system']}, "
        f"Linux {machine['kernel']}, "
        f"{', '.join(machine['versions'])}, in {results['minutes']:.0f} minutes. "
        "Models are Llamas in bfloat16. In each cell all contestants save the same model by turns "
        "into new folders of the same disk, and each round begins with the next of them; of larger "
        "models the ways of others, which take many times as long, are in fewer rounds. The first "
        "save of each cell is discarded. Just before each save, the same contestant saves "
        "unmeasured, and the memory that this took is freed: memory that the host of a virtual "
        "machine had meanwhile is about ten times slower when it is first used. Each rank is kept "
        "on a core, since the kernel holds freed memory ready for the core that freed it; with "
        "more ranks than cores, they share them. "
        "Where the kernel counts what it gives to its host, large models are saved "
        "just after it did, or when there was nothing to give. Seconds are "
        "medians; a ratio is that of the seconds to the reference's, of all pairs of one round of "
        "each (median, in brackets the least and the greatest; two runs agree on it when these "
        f"ranges, {TOLERANCE - 1:.0%} wider at both ends, overlap). "
        "`limit of the disk`: as many processes as there are ranks write the same number of bytes "
        "to a file each, the same 64 MiB again and again; `limit of one file`: to one file, 8 MiB "
        "at a time, from memory as large as what is written. "
        "`with fsync` is until all bytes are on the disk. Memory "
        "is what the worst rank needed beyond what it had, by the kernel's high-water mark; "
        "`written` are the bytes that the kernel counted for the disk. DCP's consolidating writer "
        "takes no model of ZeRO-3; DeepSpeed's own `save_16bit_model` is measured there.",
        "",
        "![Seconds of each contestant](performance.svg)",
        "",
    ]
    lines += _short(summaries)
    lines += ["## Targets", ""]
    lines += table(
        ("target", "where", "found", "holds"),
        [(v.target, v.cell, v.found, "yes" if v.holds else "**no**") for v in judge(summaries)],
    )
    if results["left_out"]:
        lines += ["## Not measured as planned", ""]
        lines += [*(f"- {text}" for text in results["left_out"]), ""]
    missed = explain(summaries)
    if missed:
        lines += [
            "## Why targets are missed",
            "",
            "In brackets the least and the greatest of all rounds: where these lie far apart, some "
            "rounds may have met memory that the host of the machine had in the meantime.",
            "",
            *(f"- {text}" for text in missed),
            "",
        ]
    lines += ["## All measurements", ""]
    for cell in dict.fromkeys(s.cell for s in summaries):
        mine = [s for s in summaries if s.cell == cell]
        lines += [f"### {cell} ({mine[0].bytes / GB:.3f} GB, {mine[0].rounds} rounds)", ""]
        head = ("", "seconds", "ratio", "seconds with fsync", "ratio", "memory MiB", "written")
        lines += table(head, _rows(mine))
    lines += ["## Where the saver's time goes", ""]
    lines += ["Seconds on rank 0, waiting for the other ranks included.", ""]
    timed = [s for s in summaries if s.phases]
    names = list(dict.fromkeys(name for s in timed for name in s.phases))
    lines += table(("", *names, "in all"), (_phase_row(s, names) for s in timed))
    if results["many"]:
        lines += ["## Many tensors", ""]
        lines += table(
            ("", "tensors", "plan s", "save s", "us a tensor", "memory MiB", "bytes a tensor"),
            (_many_row(m) for m in results["many"]),
        )
    if results.get("many_ranks"):
        lines += ["## Many ranks", ""]
        lines += [
            "A Llama of 8 small layers under FSDP2, on forked ranks of gloo that share the cores; "
            "no flush is left out.",
            "",
        ]
        lines += table(
            ("ranks", "save_model s", "dcp.save s", "save_model / dcp.save"),
            map(_ranks_row, results["many_ranks"]),
        )
    if results["predicted"]:
        lines += ["## Prediction against measurement", ""]
        lines += [
            "Predicted from the bytes of the busiest rank and the pace of the limit in the same "
            "cell, with fsync.",
            "",
        ]
        lines += table(
            ("", "worst rank / mean", "predicted s", "measured s", "measured / predicted"),
            _predicted_rows(results["predicted"], summaries),
        )
    return lines


def _short(summaries: Sequence[Summary]) -> list[str]:
    """The cells of the targets alone, as they are in README."""
    by_key = {(s.cell, s.contestant, s.durable): s for s in summaries}

    def seconds(cell: str, name: str) -> str:
        plain, durable = (by_key.get((cell, name, durable)) for durable in (False, True))
        return f"{durable.seconds:.2f} ({plain.seconds:.2f})" if plain and durable else ""

    def memory(cell: str, name: str) -> str:
        found = by_key.get((cell, name, False))
        return f"{found.memory / MIB:,.0f} MiB" if found else ""

    rows = [
        (title, *(text(cell, name) for cell in LIMITED for text in (seconds, memory)))
        for name, title in NAMES.items()
    ]
    head = ("", *(text for engine in LIMITED.values() for text in (engine, "memory")))
    return [
        "Seconds until 2 GB of two ranks are on the disk, in brackets until the call returns if "
        "nobody flushes, and what the worst rank needs of memory beyond what it has:",
        "",
        *table(head, (row for row in rows if any(row[1:]))),
    ]


def _rows(mine: list[Summary]) -> Iterable[tuple[str, ...]]:
    for name in dict.fromkeys(s.contestant for s in mine):
        plain = next(s for s in mine if s.contestant == name and not s.durable)
        durable = next(s for s in mine if s.contestant == name and s.durable)
        yield (
            NAMES[name],
            f"{plain.seconds:.3f}",
            _ratio(plain),
            f"{durable.seconds:.3f}",
            _ratio(durable),
            f"{plain.memory / MIB:.0f}",
            f"{plain.written:.3f}",
        )


def _ratio(summary: Summary) -> str:
    if summary.contestant == "reference":
        return "1"
    least, middle, greatest = summary.ratio
    return f"{middle:.2f} ({least:.2f} to {greatest:.2f})"


def _phase_row(summary: Summary, names: Sequence[str]) -> tuple[str, ...]:
    policy = "with" if summary.durable else "without"
    seconds = [f"{summary.phases.get(name, 0.0):.3f}" for name in names]
    return (f"{summary.cell}, {policy} fsync", *seconds, f"{summary.seconds:.3f}")


def _ranks_row(found: dict[str, Any]) -> tuple[str, ...]:
    ours, peers = (median(found["seconds"][n]) for n in (many_ranks.REFERENCE, many_ranks.PEER))
    least, middle, greatest = ratio_on_ranks(found)
    ratio = f"{middle:.2f} ({least:.2f} to {greatest:.2f})"
    return str(found["ranks"]), f"{ours:.2f}", f"{peers:.2f}", ratio


def _many_row(found: dict[str, Any]) -> tuple[str, ...]:
    count = found["tensors"]
    return (
        found["kind"],
        f"{count:,}",
        f"{found['plan_seconds']:.2f}",
        f"{found['save_seconds']:.2f}",
        f"{found['save_seconds'] / count * 1e6:.0f}",
        f"{found['memory'] / MIB:.0f}",
        f"{found['memory'] / count:,.0f}",
    )


def _predicted_rows(
    predicted: Sequence[dict[str, Any]], summaries: Sequence[Summary]
) -> Iterable[tuple[str, ...]]:
    by_key = {(s.cell, s.contestant): s for s in summaries if s.durable}
    for cell in predicted:
        limit = by_key.get((cell["cell"], "limit"))
        measured = by_key.get((cell["cell"], "reference"))
        if limit is None or measured is None:
            continue
        expected = limit.seconds * cell["imbalance"]
        yield (
            cell["cell"],
            f"{cell['imbalance']:.3f}",
            f"{expected:.3f}",
            f"{measured.seconds:.3f}",
            f"{measured.seconds / expected:.2f}",
        )


def _plot(summaries: Sequence[Summary], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "canonical-saver"
    import matplotlib.pyplot as plt

    panels = [("fsdp2", 2), ("zero3", 2), ("single", 1)]
    figure, axes = plt.subplots(2, len(panels), figsize=(4 * len(panels), 7), sharey=True)
    colours = dict(zip(NAMES, plt.get_cmap("tab10").colors, strict=False))
    for row, durable in zip(axes, (False, True), strict=True):
        for axis, (engine, ranks) in zip(row, panels, strict=True):
            mine = [
                s
                for s in summaries
                if s.cell.startswith(f"{engine}, {ranks} x") and s.durable == durable
            ]
            for name in NAMES:
                line = sorted((s.bytes / GB, s.seconds) for s in mine if s.contestant == name)
                style = "--" if name in ("limit", "one_file") else "-"
                if line:
                    axis.plot(
                        *zip(*line, strict=True),
                        style,
                        marker="o",
                        ms=4,
                        color=colours[name],
                        label=NAMES[name],
                    )
            ranks_text = "1 process" if ranks == 1 else f"{ranks} ranks"
            axis.set_title(f"{engine}, {ranks_text}{', with fsync' if durable else ''}", size=9)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel("GB")
            ticks = (0.01, 0.1, 1, 4) if ranks == 1 else (0.25, 0.5, 1, 2, 4)
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_xticks([], minor=True)
            axis.grid(alpha=0.3)
        row[0].set_ylabel("seconds")
    handles = {
        label: handle
        for axis in axes.flat
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncol=8, fontsize=8)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)
