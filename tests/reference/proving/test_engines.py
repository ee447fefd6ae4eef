"""What `prove` says of right and wrong folders, under engines that spread a model over ranks."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.helpers import damaged_folders as damaged
from tests.helpers import models, worlds
from tests.helpers.engines import wrap

from canonical_saver import Proof, ProofError, prove, save_model

EMBED = "model.embed_tokens.weight"
BIAS = "model.layers.1.self_attn.k_proj.bias"
LORA_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
TURNED = "model.layers.1.self_attn.q_turned.weight"
ROW = 32 * 4
"""Bytes of a row of the embeddings."""


def full(seed: int = 0) -> Any:
    model = models.llama(biases=True, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def wrapped_names(tensors: damaged.Tensors) -> None:
    tensors["module." + EMBED] = tensors.pop(EMBED)


def drop_bias(tensors: damaged.Tensors) -> None:
    del tensors[BIAS]


def zero(tensors: damaged.Tensors) -> None:
    for name in tensors:
        if "lora_B" in name:
            tensors[name] = tensors[name] * 0  # some of them negative


def narrow(tensors: damaged.Tensors) -> None:
    tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})


def round_off(tensors: damaged.Tensors) -> None:
    tensors.update({name: tensor.bfloat16().float() for name, tensor in tensors.items()})


def empty_shape(tensors: damaged.Tensors) -> None:
    tensors[EMBED] = torch.empty(0)


def make_folders(root: Path, world_size: int) -> None:
    """Make right and wrong folders of the model that all ranks hold."""
    model = full()
    model.save_pretrained(root / "right")
    model.save_pretrained(root / "shards", max_shard_size="20KB")
    full(seed=1).save_pretrained(root / "other-step")
    damaged.flip(root / "right", root / "flipped", EMBED, 40 * ROW + 5)
    rows = -(-67 // world_size)  # of rank 0 under FSDP2; rank 1 has as many
    size = rows * ROW if world_size == 3 else 33 * ROW
    damaged.swap(root / "right", root / "swapped", EMBED, (0, size), rows * ROW)
    for change in (wrapped_names, drop_bias, narrow, round_off, empty_shape):
        damaged.rewritten(root / "right", root / change.__name__, change)
    models.turned().save_pretrained(root / "turned")
    damaged.flip(root / "turned", root / "turned-flipped", TURNED, 70)
    adapter = models.peft()
    adapter.save_pretrained(root / "adapter")
    models.peft(seed=1).save_pretrained(root / "adapter-other-step")
    damaged.rewritten(root / "adapter", root / "zero", zero)
    damaged.flip(root / "adapter", root / "adapter-flipped", LORA_B, 3)


def damage_shards(root: Path, world_size: int) -> None:
    """Make copies of the ranks' shards with a flipped bit and without the last file."""
    last = f"shard-{world_size:05}-model-00001-of-00001.safetensors"
    damaged.flip(root / "dcp" / "sharded", root / "shards-flipped", EMBED, 5, last)
    shutil.copytree(root / "dcp" / "sharded", root / "shards-missing")
    (root / "shards-missing" / last).unlink()


def prove_all(rank: int, engine: str, folder: str) -> tuple[str, str]:
    """Pickled proofs by the names of the folders, and the text of an error."""
    root = Path(folder)
    if rank == 0:
        make_folders(root, dist.get_world_size())
    dist.barrier()
    found: dict[str, Proof] = {}
    wrapped = wrap(engine, full())
    save_model(wrapped, root / "reference", max_shard_size="20KB")
    save_model(wrapped, root / "reference-torch", format="torch")
    names = ("right", "shards", "other-step", "flipped", "swapped", "wrapped_names", "drop_bias")
    names += ("narrow", "round_off", "empty_shape", "reference", "reference-torch")
    if engine == "fsdp2":
        from torch.distributed.checkpoint import HuggingFaceStorageWriter, save
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        writer = HuggingFaceStorageWriter(
            str(root / "dcp"), save_distributed=True, enable_consolidation=True
        )
        save(get_model_state_dict(wrapped), storage_writer=writer)
        dist.barrier()
        if rank == 0:
            damage_shards(root, dist.get_world_size())
        dist.barrier()
        names += ("dcp", "dcp/sharded", "shards-flipped", "shards-missing")
    for name in names:
        found[name] = prove(wrapped, root / name)
    turned = wrap(engine, models.turned())
    for name in ("turned", "turned-flipped"):
        found[name] = prove(turned, root / name)
    found["narrow, asked"] = prove(wrapped, root / "narrow", dtype="bfloat16")
    adapter = wrap(engine, models.peft())
    save_model(adapter, root / "adapter-reference")
    for name in ("adapter", "adapter-reference", "adapter-other-step", "zero", "adapter-flipped"):
        found[name] = prove(adapter, root / name)
    text = ""
    try:
        prove(adapter, root / "zero", strict=True)
    except ProofError as error:
        text = str(error)
    return pickle.dumps(found).hex(), text


WORLDS = [("fsdp2", 2), ("fsdp2", 3), ("zero3", 2), ("zero3", 3), ("ddp", 2)]
WORLDS += [("fsdp1", 2), ("zero1", 2), ("zero2", 2)]
WHOLE_ON_RANK_0 = ("ddp", "zero1", "zero2", "fsdp1")
"""Engines under which rank 0 holds the first rows of the embeddings, whatever their number."""


@pytest.fixture(scope="module", params=WORLDS, ids=lambda world: f"{world[0]}-{world[1]}")
def proofs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, int, dict[str, Proof]]:
    engine, size = request.param
    told = worlds.run(size, prove_all, engine, str(tmp_path_factory.mktemp("folders")))
    everyone = [(pickle.loads(bytes.fromhex(pickled)), text) for pickled, text in told]
    assert everyone == everyone[:1] * size, "the same on every rank"
    found, text = everyone[0]
    assert LORA_B in text
    return engine, size, found


Proofs = tuple[str, int, dict[str, Proof]]


def test_prove_right_folders_are_proven(proofs: Proofs) -> None:
    engine, _, found = proofs
    names = ["right", "shards", "reference", "reference-torch", "adapter", "adapter-reference"]
    for name in names:
        assert found[name].ok, str(found[name])
        assert found[name].bytes
    if engine == "fsdp2":
        assert found["dcp"].weights_ok, str(found["dcp"])
        assert {one.file for one in found["dcp"].companions} == {"config.json"}
        shards = found["dcp/sharded"]
        assert shards.weights_ok, str(shards)
        assert (shards.bytes, shards.stale) == (found["dcp"].bytes, ())
        assert "enable_consolidation" in shards.notes[0]


def test_prove_shards_of_ranks_are_named_by_file(proofs: Proofs) -> None:
    engine, size, found = proofs
    if engine != "fsdp2":
        return
    (one,) = found["shards-flipped"].different
    first = -(-67 // size) * (size - 1) * ROW
    assert (one.name, one.first, one.count, one.ranks) == (EMBED, first + 5, 1, (size - 1,))
    assert one.file == f"shard-{size:05}-model-00001-of-00001.safetensors"
    assert not found["shards-missing"].weights_ok
    assert EMBED in {one.name for one in found["shards-missing"].wrong_shape}


def test_prove_flipped_bit_is_named_by_tensor_and_byte(proofs: Proofs) -> None:
    engine, size, found = proofs
    (one,) = found["flipped"].different
    assert (one.name, one.first, one.count) == (EMBED, 40 * ROW + 5, 1)
    assert int(one.expected[:2], 16) ^ int(one.found[:2], 16) == 1
    rank = 0 if engine in WHOLE_ON_RANK_0 else 40 // -(-67 // size)
    assert one.ranks == (rank,)
    (one,) = found["adapter-flipped"].different
    assert (one.name, one.first) == (LORA_B, 3)
    assert not found["flipped"].missing
    assert f"'{EMBED}': 1 byte differs, the first is byte {40 * ROW + 5}" in str(found["flipped"])


def test_prove_computed_tensors_are_compared(proofs: Proofs) -> None:
    found = proofs[2]
    assert TURNED in found["turned"].proven
    assert found["turned"].ok
    (one,) = found["turned-flipped"].different
    assert (one.name, one.first, one.count) == (TURNED, 70, 1)


def test_prove_swapped_slices_are_named_by_ranks(proofs: Proofs) -> None:
    engine, _, found = proofs
    (one,) = found["swapped"].different
    assert (one.name, one.first) == (EMBED, 0)
    if engine == "fsdp2":
        pairs = {(swap.place, swap.holds) for swap in found["swapped"].swapped}
        assert {(0, 1), (1, 0)} <= pairs


def test_prove_other_step_differs_everywhere(proofs: Proofs) -> None:
    proof = proofs[2]["other-step"]
    different = {one.name for one in proof.different}
    assert {name for name in full().state_dict() if "norm" not in name} == different
    assert {one.name for one in proofs[2]["adapter-other-step"].different} >= {LORA_B}


def test_prove_names_and_shapes_are_named(proofs: Proofs) -> None:
    found = proofs[2]
    (wrapper,) = found["wrapped_names"].wrapper_names
    assert (wrapper.found, wrapper.expected) == (f"module.{EMBED}", EMBED)
    assert found["drop_bias"].missing == (BIAS,)
    (wrong,) = found["empty_shape"].wrong_shape
    assert (wrong.name, wrong.expected, wrong.found) == (EMBED, "F32 [67, 32]", "F32 [0]")
    assert not any(found[name].ok for name in ("wrapped_names", "drop_bias", "empty_shape"))


def test_prove_casts_are_no_differences(proofs: Proofs) -> None:
    found = proofs[2]
    for name in ("narrow", "round_off"):
        assert not found[name].ok
        assert not found[name].different, str(found[name])
        assert {(one.dtype, one.lossless) for one in found[name].cast} == {("bfloat16", False)}
    assert "dtype='bfloat16'" in found["narrow"].summary
    assert found["narrow, asked"].weights_ok


def test_prove_zeroed_adapter_is_named(proofs: Proofs) -> None:
    proof = proofs[2]["zero"]
    assert LORA_B in proof.all_zero
    assert all("lora_B" in one.name for one in proof.different)
    assert not proof.swapped


def test_prove_says_what_to_do_in_one_line(proofs: Proofs) -> None:
    checks: list[Callable[[Proof], bool]] = [lambda p: "\n" not in p.summary, lambda p: not p.ok]
    for name in ("flipped", "zero", "drop_bias"):
        assert all(check(proofs[2][name]) for check in checks)
        assert "save the model again" in proofs[2][name].summary
