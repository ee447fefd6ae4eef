"""A loop of plain torch under FSDP2, saved at its end."""

from __future__ import annotations

import os
import sys

import tiny
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from canonical_saver import save_model


def main(output_dir: str) -> None:
    """Train and save."""
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if device.type != "cpu":
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group()

    model = tiny.model().to(device)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for tokens in tiny.batches(device):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    report = save_model(model, output_dir, tokenizer=tiny.tokenizer())  # on every rank
    if dist.get_rank() == 0:
        print(f"{report.bytes} bytes by {report.ranks} ranks: {', '.join(report.files)}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
