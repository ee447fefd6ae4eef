"""What libraries work out once for a process and keep: done here, for all that is forked later.

None of it depends on a model: a process that was forked has loaded and trained nothing.
"""

from __future__ import annotations

import importlib
from contextlib import suppress

_LATE_MODULES = (
    "peft.tuners.lora.bnb",
    "peft.utils.transformers_weight_conversion",
    "transformers.integrations.bitsandbytes",
)
"""What libraries import when a model is loaded, where it is there."""


def warm_up() -> None:
    """Import these modules, and have transformers compile its patterns of old tensor names."""
    for module in _LATE_MODULES:
        with suppress(ImportError, AttributeError):
            importlib.import_module(module)
    with suppress(ImportError, AttributeError):
        importlib.import_module(
            "transformers.conversion_mapping"
        ).get_checkpoint_conversion_mapping("")
