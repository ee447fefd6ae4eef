"""Tensors that adapters other than LoRA only have together.

A loader of PEFT leaves a parameter that is not in the file at random values, without an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

_TOGETHER: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "BOFT": (("boft_R", "boft_s"),),
    "HIRA": (("hira_A", "hira_B"),),
    "LOHA": (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),),
    "LOKR": (("lokr_w1_a", "lokr_w1_b"), ("lokr_w2_a", "lokr_w2_b")),
    "PVERA": (("pvera_lambda_b", "pvera_lambda_d"),),
    "RANDLORA": (("randlora_lambda", "randlora_gamma"),),
    "ROAD": (("road_theta", "road_alpha"),),
    "VERA": (("vera_lambda_b", "vera_lambda_d"),),
}
"""By the kind of an adapter: parameters of a layer of which it has all or none."""


def missing(peft_type: object, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Tensors without which another one is worth nothing: what is needed, and by what.

    Args:
        peft_type: the kind of adapter, as the configuration has it.
        names: the names of its tensors.
    """
    for group in _TOGETHER.get(str(peft_type), ()):
        for name in names:
            plain = name.removesuffix(".weight")
            place, _, part = plain.rpartition(".")
            if part not in group:
                continue
            ending = name[len(plain) :]
            for partner in group:
                needed = f"{place}.{partner}{ending}"
                if needed not in names:
                    yield needed, name
