"""The project's checks: tests, the conformance gate on the reference, shipping savers, and lint."""

from __future__ import annotations

from dataclasses import dataclass

import nox
from nox.command import CommandFailed

nox.options.sessions = ["lint", "tests", "conformance"]
nox.options.reuse_existing_virtualenvs = True

PYTHON = "3.11"
TORCH = "torch==2.13.0"
CONSTRAINTS = ("-c", "constraints.txt")
FUZZ_INPUTS = "-runs=1000000"
AT_ONCE = ("-n", "2", "--dist", "loadfile")
"""The tests of a file share ranks, and run on one of two workers."""
LIBRARIES = "conformance,deepspeed,qlora"
RESULTS = "report/savers"
QUICK_TOOLS = (
    "hypothesis",
    "jinja2",
    "jsonschema",
    "pytest",
    "pytest-xdist",
    "pyyaml",
    "rich",
    "ruff",
)
MUTANT_TESTS = ("tests/conformance/test_mutants.py", "tests/conformance/test_oddities.py")


def install(session: nox.Session, extras: str, *tools: str) -> None:
    """Install the project with ``extras``, and ``tools``."""
    # First and alone: DeepSpeed's build asks for the torch that is there.
    session.install(TORCH)
    session.install(*CONSTRAINTS, "-e", f".[{extras}]", *tools)


def extensions(session: nox.Session) -> str:
    """Where DeepSpeed's operators are kept, apart for each version."""
    return f"{session.virtualenv.location}/torch_extensions"


def compile_operators(session: nox.Session) -> dict[str, str]:
    """Compile them where no rank waits for it.

    Returns:
        The environment that has them.
    """
    env = {"OMP_NUM_THREADS": "1", "TORCH_EXTENSIONS_DIR": extensions(session)}
    session.run("python", "-m", "saver_conformance.processes.compile_operators", env=env)
    return env


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """Run the tests of both packages, or those that are named; measure the saver's branches.

    Without names it fails under the share in pyproject.toml, all ranks taken together.
    """
    # hatchling: the wheel is built with what is installed; matplotlib: the plots of the bench; nox:
    # a test reads this file; the last two drive a browser.
    tools = ("coverage>=7.10", "hatchling", "matplotlib", "nox", "pytest-xdist")
    install(session, f"{LIBRARIES},completion", *tools, "selenium", "axe-core-python")
    env = compile_operators(session)
    if session.posargs:
        session.run("pytest", *session.posargs, env=env)
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *AT_ONCE, "tests/reference", env=env)
    session.run("coverage", "combine", "--quiet")
    # The tests of the suite watch all that a process does, a measurement too.
    session.run("pytest", *AT_ONCE, "--ignore=tests/reference", env=env)
    session.run("coverage", "report")
    # In a folder of its own: other libraries import it wherever they find it, which takes seconds.
    apart = f"{session.virtualenv.location}/torchao"
    session.install(*CONSTRAINTS, "--no-deps", "--upgrade", "--target", apart, "torchao")
    session.run("pytest", "tests/reference/weights/test_qat.py", env=env | {"PYTHONPATH": apart})


@nox.session(python=PYTHON)
def quick(session: nox.Session) -> None:
    """Check style, and run the tests that need no torch and start no process; for people at work.

    Which tests these are, `tests/house/quick.py` finds out.
    """
    session.install(*CONSTRAINTS, *QUICK_TOOLS)
    session.install("--no-deps", "-e", ".")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("pytest", "--quick", "-n", "2", *session.posargs)


@nox.session(python=PYTHON)
def conformance(session: nox.Session) -> None:
    """Judge the reference by the gate; options are those of ``saver-conformance run``."""
    install(session, LIBRARIES)
    session.run("saver-conformance", "run", *session.posargs, env=compile_operators(session))


@nox.session(python=PYTHON)
def mutants(session: nox.Session) -> None:
    """Judge the broken savers and the strange but correct ones; each verdict as declared."""
    install(session, LIBRARIES)
    session.run("pytest", *MUTANT_TESTS, *session.posargs, env=compile_operators(session))


@nox.session(python=PYTHON)
def crash(session: nox.Session) -> None:
    """Kill saves at every file-system call, make every call fail, and save large models."""
    install(session, LIBRARIES)
    options = ("tests/reference", "-m", "crash", "-o", "faulthandler_timeout=3600")
    session.run("pytest", *options, *session.posargs, env=compile_operators(session))


@nox.session(python=PYTHON)
def fuzz(session: nox.Session) -> None:
    """Fuzz `check DIR` with a million inputs; arguments are those of libFuzzer."""
    install(session, "conformance", "atheris")
    env = {"PYTHONPATH": ".", "TMPDIR": session.create_tmp()}
    session.run("python", "tests/fuzz/fuzz_check.py", FUZZ_INPUTS, *session.posargs, env=env)


@dataclass(frozen=True)
class Stack:
    """Libraries that belong together, and the savers that are judged on them.

    Attributes:
        savers: names of savers in the folder that pyproject.toml gives as ``savers-dir``.
        pins: a file of requirements, installed as it is; empty: the tested stack.
        tests: tests that only run on it; they are skipped elsewhere.
    """

    savers: tuple[str, ...]
    pins: str = ""
    tests: tuple[str, ...] = ()


STACKS = {
    "current": Stack(
        savers=(
            "hf-trainer",
            "hf-save-pretrained",
            "peft",
            "accelerate",
            "accelerate-merge",
            "deepspeed-16bit",
            "deepspeed-fp32",
            "torch-dcp",
            "torch-checkpointing",
            "transformers-distributed",
            "hub-save-torch",
            "safetensors-save-model",
            "peft-merge",
            "trl-sft",
            "trl-dpo",
            "canonical-trl-sft",
            "canonical-trl-dpo",
        )
    ),
    "axolotl": Stack(
        savers=("axolotl", "axolotl-merge", "canonical-axolotl"),
        pins="constraints-axolotl.txt",
        tests=("tests/reference/proving/test_prove_axolotl.py",),
    ),
    "llamafactory": Stack(
        savers=("llamafactory", "llamafactory-export"), pins="constraints-llamafactory.txt"
    ),
    "verl": Stack(savers=("verl",), pins="constraints-verl.txt"),
}
SAVE_LIMIT = "20"


def environment(session: nox.Session) -> dict[str, str]:
    """What savers run in."""
    return {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "AXOLOTL_DO_NOT_TRACK": "1",
        "TORCH_EXTENSIONS_DIR": extensions(session),
    }


def install_stack(session: nox.Session, stack: Stack) -> None:
    """Install the project on a stack of its own, or on the tested one with TRL."""
    if stack.pins:
        session.install(TORCH)
        session.install("--no-deps", "-r", stack.pins)
        session.install("--no-deps", "-e", ".")
    else:
        install(session, LIBRARIES, "trl", "datasets", "torch_checkpointing")
    compile_operators(session)


@nox.session(python=PYTHON)
@nox.parametrize("stack", list(STACKS), ids=list(STACKS))
def savers(session: nox.Session, stack: str) -> None:
    """Judge the savers that people use, or those that are named, and write the page of all."""
    chosen = [name for name in STACKS[stack].savers if name in (session.posargs or [name])]
    if not chosen:
        session.skip("none of the savers that are named")
    install_stack(session, STACKS[stack])
    if STACKS[stack].tests and not session.posargs:
        session.run("pytest", *STACKS[stack].tests, env=environment(session))
    for name in chosen:
        # A broken MUST that the ledger knows is no failure, nor a case that the versions of this
        # stack cannot train: `compare` looks at both.
        session.run(
            *("saver-conformance", "run", "--saver", name, "--profile", "survey"),
            *("--save-limit", SAVE_LIMIT, "--report", f"{RESULTS}/{name}"),
            env=environment(session),
            success_codes=[0, 1, 2],
        )
    session.run("saver-conformance", "site", RESULTS, "--out", f"{RESULTS}/site")
    session.run("saver-conformance", "site", RESULTS, "--text")
    reports = [f"{RESULTS}/{name}" for name in chosen]
    session.run("python", "-m", "fixtures.findings", "compare", *reports)


@dataclass(frozen=True)
class LibraryStack:
    """Libraries beside which the project is installed and tried as a whole.

    Attributes:
        python: the version of Python.
        libraries: requirements beside those of the project; none: the newest of everything.
        pins: a file of requirements, installed as it is in place of ``libraries``.
        tests: whether the saver's own tests run on it too.
    """

    python: str = PYTHON
    libraries: tuple[str, ...] = ()
    pins: str = ""
    tests: bool = False


# After Python 3.11 torch comes from the package index, which may be a build of several gigabytes.
LIBRARY_STACKS = {
    "minimums": LibraryStack(
        libraries=(
            TORCH,
            "transformers==5.5.0",
            "peft==0.18.0",
            "accelerate==1.11.0",
            "deepspeed==0.18.6",
        ),
        tests=True,
    ),
    "axolotl": LibraryStack(pins="constraints-axolotl.txt"),
    "llamafactory": LibraryStack(pins="constraints-llamafactory.txt"),
    "newest": LibraryStack(libraries=(TORCH,), tests=True),
    "python312": LibraryStack(
        python="3.12",
        libraries=(
            "torch==2.11.0",
            "transformers==5.5.0",
            "peft==0.18.0",
            "accelerate==1.11.0",
            "deepspeed==0.18.6",
        ),
    ),
    "python313": LibraryStack(python="3.13", libraries=(TORCH,), tests=True),
}
STACK_RESULTS = f"{RESULTS}/stacks"
FAST_TESTS = ("tests/reference/formats", "tests/reference/publishing", "tests/reference/weights")
CONFORMS, INCONCLUSIVE = 0, 2


def install_torch(session: nox.Session, torch: str) -> None:
    """Install torch by pip, which may know places that uv does not; uv may install the rest."""
    if session.venv_backend == "uv":
        session.run_install("python", "-m", "ensurepip", silent=True)
    session.run_install("python", "-m", "pip", "install", "--quiet", torch)


def install_libraries(session: nox.Session, stack: LibraryStack) -> None:
    """Install the project beside the libraries of ``stack``."""
    torch = next((text for text in stack.libraries if text.startswith("torch")), TORCH)
    install_torch(session, torch)
    if stack.pins:
        session.install("--no-deps", "-r", stack.pins)
        session.install("--no-deps", "-e", ".")
    else:
        session.install("-e", f".[{LIBRARIES}]", *stack.libraries)


@nox.session(venv_backend="uv|virtualenv")
@nox.parametrize(
    "python,stack",
    [(stack.python, name) for name, stack in LIBRARY_STACKS.items()],
    ids=list(LIBRARY_STACKS),
)
def stacks(session: nox.Session, stack: str) -> None:
    """Try the reference on every stack of libraries, and write the table of those that were tried.

    What a version cannot train is unavailable and told in the table; a broken MUST or a harness
    that fails ends the session.
    """
    install_libraries(session, LIBRARY_STACKS[stack])
    env = environment(session)
    compile_operators(session)
    session.run(
        *("saver-conformance", "run", "--profile", "smoke"),
        *("--report", f"{STACK_RESULTS}/{stack}", *session.posargs),
        env=env,
        success_codes=[CONFORMS, INCONCLUSIVE],
    )
    if LIBRARY_STACKS[stack].tests:
        session.run("pytest", *FAST_TESTS, env=env)
    session.run("python", "-m", "fixtures.stacks", STACK_RESULTS)


@nox.session(python=[PYTHON, "3.14"], venv_backend="uv|virtualenv")
def canary(session: nox.Session) -> None:
    """Try the reference on the newest pre-releases; a failure is told, and fails nothing."""
    try:
        install_torch(session, TORCH)
        pre = ("--prerelease", "allow") if session.venv_backend == "uv" else ("--pre",)
        session.install(*pre, "--upgrade", "-e", f".[{LIBRARIES}]", TORCH)
        compile_operators(session)
        session.run(
            *("saver-conformance", "run", "--profile", "smoke"),
            *("--report", f"{RESULTS}/canary-{session.python}", *session.posargs),
            env=environment(session),
        )
    except CommandFailed as failure:
        session.warn(f"the newest pre-releases need work: {failure}")


READ_SAVERS = (
    *("canonical_saver:save_trained_model", "hf-save-pretrained", "hf-trainer", "accelerate"),
    "peft",
)


@nox.session(python=PYTHON)
def readers(session: nox.Session) -> None:
    """Install the readers, have the folders of some savers read, and write the page of the matrix.

    Names choose among the readers; without any, all are installed. All read a folder of each family
    of models and of each mutant, the fast ones those of savers in the cases of a run.
    """
    install_stack(session, STACKS["current"])
    chosen = session.posargs or ["all"]
    # A reader that cannot be installed here is told on the page.
    session.run(
        "saver-conformance", "readers", "install", *_reader_names(chosen), success_codes=[0, 2]
    )
    folders, found = f"{RESULTS}/readers/folders", f"{RESULTS}/readers/folders.json"
    session.run("python", "-m", "fixtures.portable.save", folders)
    session.run("python", "-m", "fixtures.portable.matrix", folders, found, *chosen)
    reports = []
    fast = chosen if session.posargs else ["fast"]
    for name in READ_SAVERS:
        report = f"{RESULTS}/readers/{name.partition(':')[0]}"
        session.run(
            *("saver-conformance", "run", "--saver", name, "--modes", "full-single,lora-single"),
            *("--profile", "readers", "--readers", ",".join(fast), "--report", report),
            env=environment(session),
            success_codes=[0, 1, 2],
        )
        reports.append(report)
    session.run("python", "-m", "fixtures.readers_page", found, *reports)
    if not session.posargs:  # what the fast readers cost; a loaded machine may be above the limits
        session.run("python", "-m", "fixtures.readers_cost", *reports, success_codes=[0, 1])


def _reader_names(chosen: list[str]) -> list[str]:
    return ["--all"] if chosen == ["all"] else chosen


@nox.session(python=PYTHON)
@nox.parametrize("stack", ["current", "axolotl", "verl"], ids=["current", "axolotl", "verl"])
def findings(session: nox.Session, stack: str) -> None:
    """Run the script and the smallest case of every entry of the ledger; each still shows it."""
    install_stack(session, STACKS[stack])
    session.run(
        "python",
        "-m",
        "fixtures.findings",
        "run",
        stack,
        *session.posargs,
        env=environment(session),
    )


@nox.session(python=PYTHON)
def mutation(session: nox.Session) -> None:
    """Change the checks' own code in small ways, to see which changes nobody notices."""
    install(session, LIBRARIES)
    env = compile_operators(session) | {"PYTHONPATH": "."}
    session.run("python", "-m", "tests.mutation.run", *session.posargs, env=env)


@nox.session(python=PYTHON)
def bench(session: nox.Session) -> None:
    """Measure the reference, its peers and the disk; ``--scale`` computes what is larger."""
    install(session, "conformance,deepspeed", "matplotlib")
    env = compile_operators(session) | {"PYTHONPATH": "."}
    session.run("python", "-m", "benchmarks", *session.posargs, env=env)


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """Check style, format, words and types."""
    install(session, "conformance", "mypy", "ruff", "nox", "types-jsonschema", "codespell")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")
    session.run("python", "-m", "fixtures.prose")
    session.run("mypy")


@nox.session(python=PYTHON)
def docs(session: nox.Session) -> None:
    """Build the site in ``site/``; a warning, such as a link to nowhere, is an error.

    The API is read from the source, so that none of the libraries is installed.
    """
    session.install(*CONSTRAINTS, "mkdocs", "mkdocs-material", "mkdocstrings[python]")
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})
