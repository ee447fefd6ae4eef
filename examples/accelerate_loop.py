"""A loop with accelerate, saved at its end."""

from __future__ import annotations

import sys

import tiny
import torch
from accelerate import Accelerator

from canonical_saver import save_model


def main(output_dir: str) -> None:
    """Train and save."""
    # Without an accelerator, the ranks that the launcher starts train together on the processor.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    model = tiny.model()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    for tokens in tiny.batches(accelerator.device):
        accelerator.backward(model(input_ids=tokens, labels=tokens).loss)
        optimizer.step()
        optimizer.zero_grad()

    # On every rank, the model as accelerate wraps it.
    report = save_model(model, output_dir, tokenizer=tiny.tokenizer())
    accelerator.print(f"{report.bytes} bytes by {report.ranks} ranks: {', '.join(report.files)}")
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1])
