"""What ``saver-conformance demo`` judges, and what it says before and after."""

from __future__ import annotations

from saver_conformance.cases.case import Case, Mode
from saver_conformance.getting_started import stale_saver
from saver_conformance.verdict.verdict import Verdict

SAVER = f"{stale_saver.__name__}:{stale_saver.save.__name__}"
CASE = Case(
    Mode("full", "single"), existing_save="single", max_shard_size=stale_saver.SHARD_BYTES, seed=3
)
DEFECT = "FILES-005"
"""The clause that the saver breaks."""
LOST = "RELOAD-004"
"""The clause that shows what it costs: another model is loaded."""

INTRODUCTION = """\
A saver with one defect writes a model as shards into a folder that holds an earlier model. It
raises no error, and Transformers loads the folder without a warning.
"""

NEXT = f"""\
What to look at next:
  {DEFECT} is the cause: model.safetensors of the earlier save is still in the folder.
  {LOST} is the loss: a fresh process loads the folder and gets the earlier weights.

  saver-conformance explain {DEFECT}         the demand, the usual cause, how to fix it
  saver-conformance explain existing_save     the folder that the saver found
  saver-conformance demo --report report      the same as a page, report/index.html
  the line "replay" of a finding              runs its case again; add --keep DIR for the folder

Judge the saver of your framework:
  saver-conformance init my_package.saving:save --modes "full-single,lora-single"
"""


def found_defect(verdict: Verdict) -> bool:
    """Whether the demonstration did what it promises."""
    broken = {row.clause for row in verdict.rows if row.status == "fail"}
    return {DEFECT, LOST} <= broken
