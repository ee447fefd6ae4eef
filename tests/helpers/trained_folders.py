"""Folders of a base, of adapters of it and of merged models, made of tiny models."""

import json
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tests.helpers.saved_folders import llama

from saver_conformance.comparison.training_check import check_training
from saver_conformance.comparison.words import describe_training

QV = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def _make(model):
    """The same weights at each call."""
    torch.manual_seed(0)
    return model()


def save_base(folder, model=llama, dtype=torch.float32):
    """Save a model before it is trained."""
    _make(model).to(dtype).save_pretrained(folder)


def save_adapter(folder, model=llama, dtype=torch.float32, std=0.05, **options):
    """Save an adapter of ``model`` as if it had been trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = get_peft_model(_make(model).to(dtype), LoraConfig(**{"r": 4, **QV, **options}))
        torch.manual_seed(1)
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=std)
            elif "modules_to_save" in name:
                parameter.data += 0.01
        tuned.save_pretrained(folder)


def merge(folder, adapter, model=llama, dtype=torch.float32, change=None, save_dtype=None):
    """Save ``model`` with ``adapter`` merged, ``change``d before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = PeftModel.from_pretrained(_make(model).to(dtype), adapter)
        if change:
            change(tuned)
        merged = tuned.merge_and_unload()
    merged.to(save_dtype or dtype).save_pretrained(folder)


def scale_by(factor, where=lambda name: True):
    """A change of an adapter's scale in the modules whose names ``where`` takes."""

    def change(tuned):
        for name, module in tuned.named_modules():
            if isinstance(getattr(module, "scaling", None), dict) and where(name):
                module.scaling = {key: value * factor for key, value in module.scaling.items()}

    return change


def wrong(folder, base, adapter=None):
    """What is wrong for sure, as one text; the report is made, too."""
    check = check_training(folder, base, adapter)
    assert "\n".join(describe_training(check)).replace("\n", "").isprintable()
    texts = [note.text for note in check.notes if note.is_wrong]
    assert check.is_fine == (not texts)
    return "\n".join(texts)


def remarks(folder, base, adapter=None):
    """What is worth knowing, as one text."""
    check = check_training(folder, base, adapter)
    return "\n".join(note.text for note in check.notes if not note.is_wrong)


def set_config(folder, **changes):
    """Set keys of ``config.json``."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
