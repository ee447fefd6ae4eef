"""A loop with a DeepSpeed engine (ZeRO-3), saved at its end."""

from __future__ import annotations

import argparse

import deepspeed
import tiny
import torch.distributed as dist

from canonical_saver import save_model

CONFIG = {
    "train_micro_batch_size_per_gpu": 2,
    "zero_optimization": {"stage": 3},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
}


def main(output_dir: str) -> None:
    """Train and save."""
    engine, *_ = deepspeed.initialize(model=tiny.model(), config=CONFIG)
    for tokens in tiny.batches(engine.device):
        engine.backward(engine(input_ids=tokens, labels=tokens).loss)
        engine.step()

    # On every rank. Whether the configuration gathers 16-bit weights on a save plays no part.
    report = save_model(engine, output_dir, tokenizer=tiny.tokenizer())
    if dist.get_rank() == 0:
        print(f"{report.bytes} bytes by {report.ranks} ranks: {', '.join(report.files)}")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir")
    parser.add_argument("--local_rank", type=int)  # the launcher gives it
    main(parser.parse_args().output_dir)
