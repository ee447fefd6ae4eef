"""What a saver claims, in a file: read, refused in one line, and used by every front end."""

from __future__ import annotations

from pathlib import Path

import pytest

from saver_conformance import cli
from saver_conformance.cases.case import Adapter, Case, Mode
from saver_conformance.claims import Claim
from saver_conformance.claims.claims_file import read_claims
from saver_conformance.errors import ClaimsFileError, UnknownSaverError
from saver_conformance.execution.workload import Workload
from saver_conformance.run import run_conformance
from saver_conformance.verdict.verdict import Verdict

ROOT = Path(__file__).parents[3]
FAKE = "tests.helpers.fake_workload"
WORKLOAD = Workload(FAKE, FAKE, FAKE, process_group=False, operators="")
SAVER = "tests.helpers.fake_savers:save"
SINGLE = Mode("full", "single")


def write(folder: Path, text: str) -> Path:
    path = folder / "claims.toml"
    path.write_text(text)
    return path


def test_a_file_says_modes_clauses_and_values(tmp_path: Path) -> None:
    claim = read_claims(
        write(
            tmp_path,
            'modes = ["full-*"]\nwithout = ["META-*"]\n[only]\nmax_shard_size = ["default"]\n'
            'architecture = ["qwen2"]\nspecial_values = [false]\nnames = [["default"]]\n',
        )
    )
    assert (claim.modes, claim.without) == (("full-*",), ("META-*",))
    case = Case(SINGLE, "custom", max_shard_size=4_000, special_values=True)
    assert claim.fit(case) == Case(SINGLE, "qwen2")
    adapted = Case(Mode("lora", "single"), adapter=Adapter(names=("a", "b")))
    assert claim.fit(adapted).adapter == Adapter()


def test_an_empty_file_claims_everything(tmp_path: Path) -> None:
    claim = read_claims(write(tmp_path, ""))
    assert claim == Claim(claim.address)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "cannot be read"),
        ('mode = ["full-*"]', "unknown keys mode; expected modes, without, results, only, never"),
        ('modes = "full-*"', "modes: expected a list of names"),
        ("modes = []", "modes: expected a list of names"),
        ('modes = ["full-nowhere"]', "no mode is called 'full-nowhere'"),
        ('without = ["FILES-999"]', "no clause is called 'FILES-999'"),
        ("only = 1", r"expected a table \[only\]"),
        ("never = 1", r"expected a table \[never\]"),
        ('[never]\nsetting = ["nowhere"]', "never.setting: expected one of usual"),
        ("[only]\nshards = [1]", "only.shards: there is no such axis"),
        ('[only]\nmode = ["full-ddp"]', "only.mode: there is no such axis"),
        ('[only]\narchitecture = "llama"', "only.architecture: expected a list"),
        ("[only]\narchitecture = []", "only.architecture: expected a list"),
        ('[only]\narchitecture = ["gpt"]', "architecture: expected one of llama"),
        ('[only]\nspecial_values = ["default"]', "special_values: expected true or false"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ClaimsFileError, match=told) as caught:
        read_claims(write(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path))
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "--claims", str(tmp_path / "claims.toml")])
    assert end.value.code == 3


def run(claims: Claim | None, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    monkeypatch.chdir(ROOT)
    modes = (SINGLE, Mode("full", "ddp"))
    return run_conformance(SAVER, modes=modes, profile="smoke", workload=WORKLOAD, claims=claims)


def test_a_run_tries_what_is_claimed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = read_claims(
        write(
            tmp_path,
            'modes = ["full-single"]\nwithout = ["META-*"]\n[only]\narchitecture = ["llama"]\n',
        )
    )
    verdict = run(claims, monkeypatch)
    assert verdict.modes == (SINGLE,)
    assert {record.case.architecture for record in verdict.records} == {"llama"}
    assert {row.status for row in verdict.rows if row.area == "META"} == {"not claimed"}
    assert verdict.saver == SAVER


def test_a_run_of_modes_that_are_not_claimed_is_a_wrong_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = read_claims(write(tmp_path, 'modes = ["lora-*"]'))
    with pytest.raises(UnknownSaverError, match="claims none of the modes"):
        run(claims, monkeypatch)
