"""The checks on folders made by plain ``save_pretrained``, whole and tampered with."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from fixtures.mutants.rewriting import change_json, change_tensors
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import AutoConfig, AutoModelForCausalLM

from saver_conformance.cases.case import Adapter, Case, Mode
from saver_conformance.checks import applicable, run
from saver_conformance.checks.evidence import BlockedError, Evidence
from saver_conformance.checks.files import _difference
from saver_conformance.folder.layout import scan
from saver_conformance.folder.safetensors import read_header
from saver_conformance.observation.observation import (
    Difference,
    Expectation,
    Observation,
    RankOutcome,
    Reload,
    Tensor,
)
from saver_conformance.observation.tensor_diff import compare, first_difference
from saver_conformance.spec import SPEC
from saver_conformance.workload.tokenizer import CHAT_TEMPLATE, make_tokenizer

FULL = Case(Mode("full", "single"))
LORA = Case(Mode("lora", "single"), adapter=Adapter())
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}


def build_model(tied=False):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
    )
    return AutoModelForCausalLM.from_config(config)


def tensor_of(parameter):
    raw = parameter.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
    return Tensor(DTYPES[parameter.dtype], tuple(parameter.shape), raw)


def observe(case, expected, folder, before=None, reload=None):
    return Observation(
        case=case,
        expected=expected,
        outcomes=tuple(RankOutcome(rank, "returned") for rank in range(case.world_size)),
        folder=folder,
        before=before or {},
        after=scan(folder),
        umask=read_umask(),
        reload=reload or Reload(class_name="LlamaForCausalLM", logits=True),
        changes=((),) * case.world_size,
    )


def read_umask():
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def save_full(folder, tied=False, **options):
    model, tokenizer = build_model(tied), make_tokenizer(64, chat=True)
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    tied_names = {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}
    return Expectation(
        tensors={
            name: tensor_of(tensor)
            for name, tensor in model.state_dict().items()
            if name not in tied_names
        },
        tied=tied_names,
        config={
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "dtype": "float32",
            "vocab_size": 64,
            "hidden_size": 16,
            "tie_word_embeddings": tied,
        },
        chat_template=CHAT_TEMPLATE,
        vocabulary=tokenizer.get_vocab(),
    )


def save_adapter(folder):
    tokenizer = make_tokenizer(64, chat=True)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(build_model(), config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Expectation(
        tensors={
            name.replace(".default.", "."): tensor_of(parameter)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        },
        base=frozenset(n for n, p in model.named_parameters() if not p.requires_grad),
        adapter={
            "peft_type": "LORA",
            "r": 4,
            "lora_alpha": config.lora_alpha,
            "target_modules": ["q_proj", "v_proj"],
            "modules_to_save": None,
            "base_model_name_or_path": config.base_model_name_or_path,
            "task_type": "CAUSAL_LM",
            "use_dora": False,
        },
        chat_template=CHAT_TEMPLATE,
        vocabulary=tokenizer.get_vocab(),
    )


def musts(results):
    return {clause for clause in results.broken if SPEC[clause].level == "MUST"}


@pytest.mark.parametrize("options", [{}, {"max_shard_size": 4000}], ids=["single", "sharded"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_plain_full_save_breaks_no_must(tmp_path, options, tied):
    case = replace(FULL, architecture="llama-tied" if tied else "llama", **options)
    results = run(observe(case, save_full(tmp_path, tied, **options), tmp_path))
    assert musts(results) == set()
    assert results.broken <= {"FILES-010"}  # safetensors 0.8 writes 0600
    assert results.blocked == {}
    assert set(results.ran) == set(applicable(case))


def test_plain_adapter_save_breaks_no_must(tmp_path):
    results = run(observe(LORA, save_adapter(tmp_path), tmp_path))
    assert musts(results) == set()
    assert results.blocked == {}


def test_finding_says_where_bits_differ(tmp_path):
    expected = save_full(tmp_path)

    def negate_one(tensors):
        tensors["model.norm.weight"][3] = -tensors["model.norm.weight"][3]

    change_tensors(tmp_path / "model.safetensors", negate_one)
    results = run(observe(FULL, expected, tmp_path))
    assert musts(results) == {"TENSOR-006"}
    (finding,) = results.ran["TENSOR-006"]
    assert finding.tensor == "model.norm.weight"
    assert finding.file == "model.safetensors"
    assert finding.offset == 3 * 4 + 3
    assert finding.differing == 1
    assert finding.expected.startswith("the trained bits: 3f")
    assert finding.found.startswith("bf")


def test_first_difference():
    assert first_difference(b"abcdef", b"abXdeY") == (2, 2)


def test_a_difference_says_where_and_shows_bytes_of_both_sides():
    right = Tensor("U8", (4, 10), bytes(40))
    found = replace(right, data=bytes(19) + b"\1" + bytes(10) + b"\2" + bytes(9))
    difference = compare("a", right, found)
    assert (difference.offset, difference.differing) == (19, 2)
    assert difference.expected == f"{bytes(16).hex(' ')} at byte 19"
    assert (
        difference.found == f"01 {bytes(10).hex(' ')} 02 {bytes(4).hex(' ')}; 2 of 40 bytes differ"
    )
    assert (difference.dtype, difference.shape) == ("U8", (4, 10))
    assert compare("a", right, replace(right, data=memoryview(bytes(40)))) is None


def test_a_difference_of_another_size_has_no_place():
    right = Tensor("U8", (2,), bytes(2))
    for found, said in ((None, "nothing"), (replace(right, shape=(1, 2)), "U8[1, 2]")):
        difference = compare("a", right, found)
        assert (difference.expected, difference.found) == ("U8[2]", said)
        assert (difference.offset, difference.differing) == (None, None)


def test_unparsable_weights_block_what_they_hold(tmp_path):
    expected = save_full(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0")
    results = run(observe(FULL, expected, tmp_path))
    assert musts(results) == {"FORMAT-001"}
    assert "TENSOR-001" in results.blocked
    assert "cannot be parsed" in results.blocked["TENSOR-006"]


def test_empty_folder_blames_names_alone(tmp_path):
    expected = save_full(tmp_path / "elsewhere")
    (tmp_path / "out").mkdir()
    results = run(observe(FULL, expected, tmp_path / "out"))
    assert musts(results) == {"FILES-001", "META-001", "META-006", "META-007"}
    assert results.blocked["TENSOR-001"].startswith("the folder has no safetensors weights")
    found = results.ran["FILES-001"][0].found
    assert found.startswith("nothing was written by any rank (0)")


@pytest.mark.parametrize(
    ("status", "clause"), [("hung", "RANKS-001"), ("raised", "RANKS-002"), ("died", "RANKS-003")]
)
def test_rank_that_does_not_return_blocks_the_rest(tmp_path, status, clause):
    case = replace(FULL, mode=Mode("full", "ddp"), world_size=2)
    whole = observe(case, save_full(tmp_path), tmp_path)
    outcomes = (whole.outcomes[0], RankOutcome(1, status, "what it said"))
    results = run(replace(whole, outcomes=outcomes, reload=None))
    assert results.broken == {clause}
    (finding,) = results.ran[clause]
    assert finding.rank == 1
    assert "what it said" in finding.found
    assert set(results.ran) == {"RANKS-001", "RANKS-002", "RANKS-003"}
    assert set(results.blocked) == set(applicable(case)) - set(results.ran)


@pytest.mark.parametrize("name", ["model-{:06d}-of-{:06d}", "model-{:05d}-of-{:06d}"])
def test_names_of_shards_may_have_more_digits(tmp_path, name):
    expected = save_full(tmp_path, max_shard_size=4000)
    shards = sorted(path.name for path in tmp_path.glob("model-*"))
    new = {
        shard: f"{name.format(number, len(shards))}.safetensors"
        for number, shard in enumerate(shards, 1)
    }
    for shard, other in new.items():
        (tmp_path / shard).rename(tmp_path / other)
    change_json(
        tmp_path / "model.safetensors.index.json",
        lambda index: index["weight_map"].update(
            {key: new[shard] for key, shard in index["weight_map"].items()}
        ),
    )
    case = replace(FULL, max_shard_size=4000)
    assert musts(run(observe(case, expected, tmp_path))) == set()
    (tmp_path / new[shards[1]]).unlink()
    missing = run(observe(case, expected, tmp_path)).ran["FILES-001"]
    assert len(missing) == len(shards) - 1  # none that is left has the right count


def test_a_whole_model_beside_an_adapter_is_left_and_not_asked_to_go(tmp_path):
    save_full(tmp_path)
    before = scan(tmp_path)
    expected = save_adapter(tmp_path)
    case = replace(LORA, existing_save="single")
    results = run(observe(case, expected, tmp_path, before))
    assert results.broken <= {"FILES-010"}
    (tmp_path / "config.json").write_text("{}")  # of the same model, as far as anybody can tell
    assert run(observe(case, expected, tmp_path, before)).broken <= {"FILES-010"}
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"")
    told = run(observe(case, expected, tmp_path, before)).ran["FILES-013"]
    assert {finding.file for finding in told} == {"generation_config.json", "model.safetensors"}


def test_a_processor_is_left_by_a_save_with_a_tokenizer(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{}")
    before = scan(tmp_path)
    expected = save_full(tmp_path)
    case = replace(FULL, foreign_files="processor")
    assert musts(run(observe(case, expected, tmp_path, before))) == set()
    (tmp_path / "preprocessor_config.json").unlink()
    results = run(observe(case, expected, tmp_path, before))
    assert musts(results) == {"FILES-014"}


def test_stale_shards_beside_a_single_file(tmp_path):
    save_full(tmp_path, max_shard_size=4000)
    before = scan(tmp_path)
    weights = {path: (tmp_path / path).read_bytes() for path in before if path.startswith("model")}
    expected = save_full(tmp_path)
    for path, content in weights.items():
        (tmp_path / path).write_bytes(content)
    results = run(observe(replace(FULL, existing_save="sharded"), expected, tmp_path, before))
    assert musts(results) == {"FILES-005"}
    assert {finding.file for finding in results.ran["FILES-005"]} == set(weights)


def test_plain_save_over_shards_leaves_a_stale_index(tmp_path):
    save_full(tmp_path, max_shard_size=4000)
    before = scan(tmp_path)
    expected = save_full(tmp_path)
    results = run(observe(replace(FULL, existing_save="sharded"), expected, tmp_path, before))
    assert [finding.file for finding in results.ran["FILES-005"]] == [
        "model.safetensors.index.json"
    ]


def test_saving_the_same_again_is_no_stale_save(tmp_path):
    expected = save_full(tmp_path, max_shard_size=4000)
    before = scan(tmp_path)
    save_full(tmp_path, max_shard_size=4000)
    case = replace(FULL, existing_save="sharded", max_shard_size=4000)
    assert musts(run(observe(case, expected, tmp_path, before))) == set()


def test_what_lay_there_before_is_no_leftover(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "config.json").write_text("{}")
    before = scan(tmp_path)
    expected = save_full(tmp_path)
    results = run(observe(replace(FULL, foreign_files="strangers"), expected, tmp_path, before))
    assert musts(results) == set()


def test_two_layouts_written_are_no_stale_ones(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(b"earlier")
    before = scan(tmp_path)
    expected = save_full(tmp_path)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "adapter_model.safetensors")
    case = replace(FULL, existing_save="adapter")
    assert musts(run(observe(case, expected, tmp_path, before))) == {"FILES-003"}


def test_vocabulary_of_a_unigram_tokenizer(tmp_path):
    expected = save_full(tmp_path)
    words = [(word, -1.0) for word in expected.vocabulary]
    tokenizer = Tokenizer(Unigram(words, unk_id=0))
    tokenizer.add_special_tokens(["<new>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = {word: number for number, (word, _) in enumerate(words)}
    expected = replace(expected, vocabulary={**vocabulary, "<new>": len(words)})
    assert musts(run(observe(FULL, expected, tmp_path))) == set()
    expected = replace(expected, vocabulary=vocabulary)
    assert musts(run(observe(FULL, expected, tmp_path))) == {"META-007"}


def test_a_finding_tells_dtype_and_shape_of_the_tensor_that_belongs_there(tmp_path):
    evidence = Evidence(observe(FULL, save_full(tmp_path), tmp_path))

    def told(**about):
        finding = evidence.defect("one", "another", **about)
        return finding.dtype, finding.shape

    assert told(tensor="model.norm.weight") == ("F32", (16,))
    assert told(tensor="model.norm.weight", dtype="I8") == ("I8", None)
    assert told(tensor="model.norm.weight", shape=(1,)) == (None, (1,))
    assert told(tensor="foreign") == told() == (None, None)


def test_a_finding_names_its_file_from_the_output_folder_on(tmp_path):
    observation = observe(FULL, save_full(tmp_path), tmp_path)
    place = Evidence(observation, replace(observation.expected, folder="style"))
    assert place.defect("one", "none", file="x").file == "style/x"
    assert place.defect("one", "none").file is None


def test_what_vanished_is_named(tmp_path):
    evidence = Evidence(observe(FULL, save_full(tmp_path), tmp_path))
    evidence.__dict__["saved"] = replace(evidence.saved, headers={})
    with pytest.raises(BlockedError, match=r"model\.safetensors vanished"):
        _ = evidence.headers


def test_lists_of_files_are_told_as_a_difference_and_cut_short():
    assert _difference({"b", "c"}, {"a", "b"}) == "+ a\n  b\n- c"
    names = {f"{number:02d}" for number in range(21)}
    assert _difference(names, ()).splitlines()[19:] == ["- 19", "... 1 more"]
    assert _difference(names - {"20"}, ()).splitlines()[18:] == ["- 18", "- 19"]


def test_a_shard_that_is_as_large_as_allowed_is_right(tmp_path):
    expected = save_full(tmp_path)
    header = read_header(tmp_path / "model.safetensors")
    size = sum(span.nbytes for span in header.tensors.values())
    for limit, broken in ((size, 0), (size - 1, 1)):
        results = run(observe(replace(FULL, max_shard_size=limit), expected, tmp_path))
        assert len(results.ran["FORMAT-007"]) == broken


@pytest.mark.parametrize(("count", "broken"), [(1, 0), (2, 1)])
def test_only_a_tensor_alone_may_be_larger_than_a_shard(tmp_path, count, broken):
    expected = save_full(tmp_path)

    def keep(tensors):
        for name in sorted(tensors)[count:]:
            del tensors[name]

    change_tensors(tmp_path / "model.safetensors", keep)
    results = run(observe(replace(FULL, max_shard_size=1), expected, tmp_path))
    assert len(results.ran["FORMAT-007"]) == broken


def test_a_setting_that_is_missing_is_told(tmp_path):
    expected = save_full(tmp_path)
    change_json(tmp_path / "config.json", lambda config: config.pop("hidden_size"))
    (finding,) = run(observe(FULL, expected, tmp_path)).ran["META-005"]
    assert (finding.expected, finding.found) == ("hidden_size is 16", "no hidden_size")


def test_an_index_that_names_another_file_is_told_the_right_one(tmp_path):
    expected = save_full(tmp_path, max_shard_size=4000)
    case = replace(FULL, max_shard_size=4000)
    index = tmp_path / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    name, right = next(iter(places.items()))
    other = next(file for file in places.values() if file != right)
    change_json(index, lambda plain: plain["weight_map"].update({name: other, "gone": other}))
    told = {f.tensor: f for f in run(observe(case, expected, tmp_path)).ran["FORMAT-004"]}
    assert (told[name].expected, told[name].found) == (f"in {right}", f"the index names {other}")
    assert told["gone"].expected.startswith("no such entry")


def test_a_missing_shard_is_counted_among_the_others(tmp_path):
    expected = save_full(tmp_path, max_shard_size=4000)
    shards = sorted(tmp_path.glob("model-*"))
    shards[0].unlink()
    missing = run(observe(replace(FULL, max_shard_size=4000), expected, tmp_path)).ran["FILES-001"]
    assert missing[0].expected.endswith(f"one of {len(shards) - 1} shards")


def test_a_changed_stranger_is_told_by_mode_and_the_beginning_of_its_digest(tmp_path):
    expected = save_full(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = scan(tmp_path)
    (tmp_path / "notes.txt").write_text("yours")
    case = replace(FULL, foreign_files="strangers")
    (finding,) = run(observe(case, expected, tmp_path, before)).ran["FILES-008"]
    mine, yours = (hashlib.sha256(text).hexdigest()[:16] for text in (b"mine", b"yours"))
    assert finding.expected.endswith(f"sha256 {mine}")
    assert finding.found.endswith(f"sha256 {yours}")


def test_code_that_belongs_to_the_model_is_no_stranger(tmp_path):
    expected = save_full(tmp_path)
    for name in ("modeling_gated.py", "notes.py"):
        (tmp_path / name).write_text("mine")
    before = scan(tmp_path)
    for name in ("modeling_gated.py", "notes.py"):
        (tmp_path / name).write_text("anew")
    case = replace(FULL, foreign_files="strangers", architecture="remote-code")
    found = run(observe(case, expected, tmp_path, before)).ran["FILES-008"]
    assert [finding.file for finding in found] == ["notes.py"]


def test_ranks_that_wrote_nothing_are_named(tmp_path):
    expected = save_full(tmp_path)
    everything = scan(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    left = {path: entry for path, entry in everything.items() if path != "model.safetensors"}
    idle = run(observe(FULL, expected, tmp_path, left)).ran["FILES-001"]
    assert "nothing was written by any rank (0)" in idle[0].found
    busy = run(observe(FULL, expected, tmp_path, {})).ran["FILES-001"]
    assert "nothing was written" not in busy[0].found


def test_shards_with_equal_bytes_belong_to_the_save_and_no_others(tmp_path):
    save_full(tmp_path, max_shard_size=4000)
    first, stale = min(tmp_path.glob("model-*")), tmp_path / "model-00009-of-00009.safetensors"
    shutil.copy(first, stale)
    before = scan(tmp_path)
    change_tensors(first, lambda saved: [tensor.add_(1) for tensor in saved.values()])
    case = replace(FULL, existing_save="sharded", max_shard_size=4000)
    expected = Expectation(tensors={})
    results = run(observe(case, expected, tmp_path, before))
    assert [finding.file for finding in results.ran["FILES-005"]] == [stale.name]


def test_wrapped_name_has_one_cause(tmp_path):
    expected = save_full(tmp_path)

    def wrap(tensors):
        tensors["module.model.norm.weight"] = tensors.pop("model.norm.weight")

    change_tensors(tmp_path / "model.safetensors", wrap)
    assert musts(run(observe(FULL, expected, tmp_path))) == {"TENSOR-003"}


def test_model_with_a_part_called_module_is_not_accused(tmp_path):
    expected = save_full(tmp_path)
    tensors = dict(expected.tensors)
    tensors["module.norm.weight"] = tensors.pop("model.norm.weight")
    change_tensors(
        tmp_path / "model.safetensors",
        lambda saved: saved.update({"module.norm.weight": saved.pop("model.norm.weight")}),
    )
    expected = replace(expected, tensors=tensors)
    assert musts(run(observe(FULL, expected, tmp_path))) == set()


def test_a_part_moved_elsewhere_is_no_wrapper(tmp_path):
    expected = save_full(tmp_path)
    tensors = dict(expected.tensors)
    tensors["module.norm.weight"] = tensors.pop("model.norm.weight")
    change_tensors(
        tmp_path / "model.safetensors",
        lambda saved: saved.update({"norm.module.weight": saved.pop("model.norm.weight")}),
    )
    expected = replace(expected, tensors=tensors)
    assert musts(run(observe(FULL, expected, tmp_path))) == {"TENSOR-001", "TENSOR-002"}


def test_base_without_peft_prefix_is_base(tmp_path):
    expected = save_adapter(tmp_path)
    change_tensors(
        tmp_path / "adapter_model.safetensors",
        lambda tensors: tensors.update({"model.norm.weight": torch.zeros(16)}),
    )
    assert musts(run(observe(LORA, expected, tmp_path))) == {"ADAPTER-001"}


def test_order_of_targets_does_not_matter(tmp_path):
    expected = save_adapter(tmp_path)
    change_json(
        tmp_path / "adapter_config.json",
        lambda config: config.update(target_modules=["v_proj", "q_proj"], modules_to_save=[]),
    )
    assert musts(run(observe(LORA, expected, tmp_path))) == set()


def test_a_field_that_the_method_does_not_have_is_not_asked_for(tmp_path):
    expected = save_adapter(tmp_path)
    fields = {key: value for key, value in expected.adapter.items() if key != "lora_alpha"}
    change_json(tmp_path / "adapter_config.json", lambda config: config.pop("lora_alpha"))
    results = run(observe(LORA, replace(expected, adapter=fields), tmp_path))
    assert results.ran["ADAPTER-003"] == ()


def test_template_may_stand_in_the_tokenizer_configuration(tmp_path):
    expected = save_full(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    change_json(
        tmp_path / "tokenizer_config.json", lambda plain: plain.update(chat_template=CHAT_TEMPLATE)
    )
    case = replace(FULL, tokenizer="chat")
    assert musts(run(observe(case, expected, tmp_path))) == set()
    plain = run(observe(case, replace(expected, chat_template=None), tmp_path))
    assert musts(plain) == {"FILES-007", "META-008"}


def test_older_name_of_dtype_counts(tmp_path):
    expected = save_full(tmp_path)
    change_json(
        tmp_path / "config.json", lambda config: config.update(torch_dtype=config.pop("dtype"))
    )
    assert musts(run(observe(FULL, expected, tmp_path))) == set()


def test_extra_readme_is_no_finding(tmp_path):
    expected = save_full(tmp_path)
    (tmp_path / "README.md").write_text("a model card")
    (tmp_path / "training_metrics.json").write_text("{}")
    assert musts(run(observe(FULL, expected, tmp_path))) == set()


def test_an_unreadable_configuration_of_the_tokenizer_is_told(tmp_path):
    expected = save_full(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[")
    (finding,) = run(observe(FULL, expected, tmp_path)).ran["META-007"]
    assert finding.file == "tokenizer_config.json"


@pytest.mark.parametrize(
    ("case", "compared"),
    [
        (replace(FULL, special_values=False), True),
        (replace(FULL, special_values=True), False),
        (replace(FULL, special_values=False, dtype="mixed"), False),
        (replace(FULL, special_values=True, dtype="mixed"), False),
        (replace(LORA, special_values=False, dtype="mixed"), True),
        (replace(LORA, special_values=True), False),
    ],
)
def test_logits_are_compared_where_they_are_numbers(case, compared):
    assert ("RELOAD-006" in applicable(case)) == compared


def test_reload_defects(tmp_path):
    case = replace(FULL, architecture="llama-tied")
    reload = Reload(
        class_name="MistralForCausalLM",
        missing=("a",),
        unexpected=("b",),
        differences=(Difference("c", "00 at byte 4", "01", "F32", (2,), 4, 1),),
        untied=("lm_head.weight",),
        logits=False,
        tokenizer_error="another vocabulary",
    )
    results = run(observe(case, save_full(tmp_path, tied=True), tmp_path, reload=reload))
    assert musts(results) == {f"RELOAD-{number:03d}" for number in range(2, 9)}


def test_failed_reload_blocks_what_it_would_show(tmp_path):
    results = run(observe(FULL, save_full(tmp_path), tmp_path, reload=Reload(error="a traceback")))
    assert musts(results) == {"RELOAD-001"}
    assert set(results.blocked) == {
        clause for clause in applicable(FULL) if clause > "RELOAD-001" and "RELOAD" in clause
    } - {"RELOAD-001"}


def strange_folders():
    def all_folders(folder):
        for path in list(folder.iterdir()):
            path.unlink()
            path.mkdir()

    def all_empty(folder):
        for path in folder.iterdir():
            path.write_bytes(b"")

    def all_lists(folder):
        for path in folder.glob("*.json"):
            path.write_text("[1, 2]")

    def odd_tokenizer(folder):
        odd = {"model": {"vocab": [["a", 1], 2, []]}, "added_tokens": [1, {"content": 2}]}
        (folder / "tokenizer.json").write_text(json.dumps(odd))

    def odd_index(folder):
        index = {"metadata": [], "weight_map": {"x": "../../etc/passwd", "y": ""}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    def fifos(folder):
        for path in list(folder.iterdir()):
            path.unlink()
            os.mkfifo(path)

    def loops(folder):
        for path in list(folder.iterdir()):
            path.unlink()
            path.symlink_to(path.name)

    def nothing(folder):
        shutil.rmtree(folder)
        folder.mkdir()

    return [all_folders, all_empty, all_lists, odd_tokenizer, odd_index, fifos, loops, nothing]


@pytest.mark.parametrize("spoil", strange_folders(), ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_strange_folders_end_in_findings(tmp_path, spoil, adapter):
    case = LORA if adapter else FULL
    expected = save_adapter(tmp_path) if adapter else save_full(tmp_path)
    spoil(tmp_path)
    results = run(observe(case, expected, tmp_path))
    assert musts(results) or (adapter and spoil.__name__ == "odd_index")
    assert set(results.ran) | set(results.blocked) == set(applicable(case))
