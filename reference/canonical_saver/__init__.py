"""The canonical way to save a fine-tuned model.

>>> from canonical_saver import save_trained_model
>>> save_trained_model(cfg, trainer, model)  # doctest: +SKIP
"""

from canonical_saver.errors import RequestError, SaveError, VerifyError, WeightsError, WriteError
from canonical_saver.progress import Progress
from canonical_saver.publish import recover
from canonical_saver.save import PlannedFile, Report, plan, save_model, save_trained_model

__all__ = [
    "PlannedFile",
    "Progress",
    "Report",
    "RequestError",
    "SaveError",
    "VerifyError",
    "WeightsError",
    "WriteError",
    "plan",
    "recover",
    "save_model",
    "save_trained_model",
]
