"""``transformers.Trainer`` with a LoRA adapter, saved by a callback at checkpoints and the end."""

from __future__ import annotations

import sys

import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from canonical_saver.callback import CanonicalSaveCallback


def main(output_dir: str) -> None:
    """Train and save."""
    model = get_peft_model(tiny.model(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    tokens = next(tiny.batches(torch.device("cpu")))
    data = [{"input_ids": row, "labels": row} for row in tokens] * 4
    arguments = TrainingArguments(
        output_dir,
        max_steps=2,
        save_steps=1,
        per_device_train_batch_size=2,
        report_to="none",
        # Without an accelerator, the launcher's ranks train together on the processor.
        use_cpu=not torch.accelerator.is_available(),
    )
    trainer = Trainer(model, arguments, train_dataset=data, processing_class=tiny.tokenizer())
    # Checkpoints go to output_dir/checkpoint-N/canonical/model.
    callback = CanonicalSaveCallback(trainer, at_checkpoints=True)
    trainer.add_callback(callback)
    trainer.train()
    if callback.report is not None and trainer.is_world_process_zero():
        report = callback.report
        print(f"{report.bytes} bytes by {report.ranks} ranks: {', '.join(report.files)}")


if __name__ == "__main__":
    main(sys.argv[1])
