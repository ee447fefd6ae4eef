from canonical_saver.errors import (
    LostRankError,
    ProofError,
    RequestError,
    SaveError,
    VerifyError,
    WeightsError,
    WriteError,
)
from canonical_saver.planned_files import PlannedFile, plan
from canonical_saver.progress import Progress
from canonical_saver.proving.callback import ProveCallback
from canonical_saver.proving.proof import Proof
from canonical_saver.proving.prove import prove
from canonical_saver.proving.proven import proven
from canonical_saver.publishing.recovery import recover
from canonical_saver.save import Report, save_model, save_trained_model

__all__ = [
    "LostRankError",
    "PlannedFile",
    "Progress",
    "Proof",
    "ProofError",
    "ProveCallback",
    "Report",
    "RequestError",
    "SaveError",
    "VerifyError",
    "WeightsError",
    "WriteError",
    "plan",
    "prove",
    "proven",
    "recover",
    "save_model",
    "save_trained_model",
]
