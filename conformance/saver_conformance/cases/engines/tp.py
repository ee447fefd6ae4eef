"""Tensor parallelism of transformers."""

from __future__ import annotations

from saver_conformance.cases.engine import Engine
from saver_conformance.cases.engines.fsdp_transformers import NO_QLORA, TRIED, spread
from saver_conformance.cases.limit import Limit

TP_LIMITS = (
    Limit(
        "three heads of attention do not divide among two ranks (views in transformers' models)",
        when={"sizes": ("odd",)},
    ),
    Limit(
        "transformers copies rows of plain tensors into DTensors (_get_resized_embeddings, "
        "modeling_utils.py)",
        when={"vocabulary": ("resized",)},
    ),
    Limit(
        "PEFT leaves LoRA whole on packed projections, which are cut (peft/tuners/lora/model.py)",
        modes="lora-*",
        when={"architecture": ("phi3",)},
    ),
    Limit(
        "PEFT takes the part of a row-wise layer for the whole and cuts it again "
        "(add_lora_tp_hooks_dtensor, peft/tuners/lora/model.py)",
        modes="lora-*",
        when={"targets": ("all",)},
    ),
    Limit(
        "a copied module keeps the forward of the original, put there by tensor parallelism, and "
        "is not trained (install_forward, transformers/distributed/tensor_parallel.py)",
        unless={"modules_to_save": ((),)},
    ),
)
"""What tensor parallelism of transformers cannot train, alone or with FSDP2."""

TP = Engine(
    name="tp",
    place=70,
    text="tensor parallelism of transformers; matrices are cut along rows or columns (DTensor)",
    unavailable={"qlora": NO_QLORA},
    world_sizes=(2,),
    axes=TRIED,
    limits=TP_LIMITS,
    **spread(lambda ranks: {"tp_size": ranks}),
)
