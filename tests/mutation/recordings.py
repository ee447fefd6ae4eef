"""What broken and unusual savers left, recorded once, so that checks can be made again at once.

Each mutant and each oddity is trained, saved and reloaded as ``nox -s mutants`` does it. What the
checks looked at is kept, the folders too; a changed check is then judged by whether it still says
what is declared.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fixtures.mutants import Mutant
from fixtures.oddities import Oddity
from tests.conformance import test_mutants, test_oddities
from tests.conformance.conftest import CRASH_POINTS, SAVE_LIMIT, SharedJudge

from saver_conformance import checks
from saver_conformance.checks import Results
from saver_conformance.observation.observation import Observation

Run = Callable[[Observation], Results]


@dataclass(frozen=True)
class Recording:
    """One saver in one case.

    Attributes:
        saver: what it declares.
        observations: of its save, and of those that came before it.
    """

    saver: Mutant | Oddity
    observations: tuple[Observation, ...]

    def is_told_as_declared(self, run: Run) -> bool:
        """Whether the checks find exactly what the saver declares."""
        told = [run(observation) for observation in self.observations]
        broken = frozenset[str]().union(*(results.broken for results in told))
        if isinstance(self.saver, Oddity):
            return broken == self.saver.deviates and not any(results.blocked for results in told)
        findings = [finding for results in told for finding in results.findings]
        ranks = {finding.rank for finding in findings if finding.rank is not None}
        return broken == self.saver.breaks and ranks == self.saver.ranks


@contextmanager
def recordings() -> Iterator[list[Recording]]:
    """Run all mutants and oddities; what they left is kept until the context ends."""
    found: list[Recording] = []
    seen: list[Observation] = []
    kept: dict[Path, Path] = {}
    plain = checks.run

    def run(observation: Observation) -> Results:
        results = plain(observation)
        seen.append(observation)
        # The judge removes the folder next.
        folder = observation.folder.parent
        kept[folder] = folder.rename(folder.with_name(f"{folder.name}-kept"))
        return results

    start = "canonical_saver:save_trained_model"
    with SharedJudge(start, save_limit=SAVE_LIMIT, crash_points=CRASH_POINTS) as judge:
        checks.run = run
        try:
            for planned in (*test_mutants.runs(), *test_oddities.runs()):
                saver, case = planned.values
                judge.turn_to(saver.address)
                judge.run(case)
                found.append(Recording(saver, tuple(seen)))
                seen.clear()
        finally:
            checks.run = plain
        judge.stop_worlds()
        for folder, aside in kept.items():
            aside.rename(folder)
        yield found
