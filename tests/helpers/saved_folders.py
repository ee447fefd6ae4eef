"""Folders as libraries save them, made of tiny models."""

import json
import warnings
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from saver_conformance.folder_check.audit import audit
from saver_conformance.spec import SPEC
from saver_conformance.workload.tokenizer import make_tokenizer

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
DECODER = {**SIZES, "num_key_value_heads": 2}
QV = {"target_modules": ["q_proj", "v_proj"]}
CLM = {"task_type": "CAUSAL_LM"}


def llama(**changes):
    """A model that generates, with random weights."""
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER | changes))


def _mixtral():
    config = transformers.MixtralConfig(**DECODER, num_local_experts=2)
    return transformers.MixtralForCausalLM(config)


def _bart(cls):
    sizes = {"encoder_ffn_dim": 36, "decoder_ffn_dim": 36, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return cls(transformers.BartConfig(vocab_size=64, d_model=32, **sizes, **heads))


def _whisper():
    sizes = {"encoder_ffn_dim": 36, "decoder_ffn_dim": 36, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    tokens = {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(vocab_size=64, d_model=32, **sizes, **heads, **tokens)
    return transformers.WhisperForConditionalGeneration(config)


def _vit():
    sizes = {key: size for key, size in SIZES.items() if key != "vocab_size"}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4)
    return transformers.ViTForImageClassification(config)


def _opt():
    # Embeddings that are narrower than the layers.
    sizes = {"vocab_size": 64, "hidden_size": 32, "ffn_dim": 36, "num_hidden_layers": 1}
    config = transformers.OPTConfig(**sizes, num_attention_heads=4, word_embed_proj_dim=16)
    return transformers.OPTForCausalLM(config)


def _causal(name, **changes):
    config = getattr(transformers, f"{name}Config")(**DECODER | changes)
    return getattr(transformers, f"{name}ForCausalLM")(config)


MODELS = {
    "llama": llama,
    "llama-tied": lambda: llama(tie_word_embeddings=True),
    "llama-wide-heads": lambda: llama(head_dim=16),
    "mistral": lambda: _causal("Mistral"),
    "qwen2": lambda: _causal("Qwen2"),
    "qwen3": lambda: _causal("Qwen3", head_dim=16),
    "gemma": lambda: _causal("Gemma", head_dim=16),
    "gemma2": lambda: _causal("Gemma2", head_dim=16),
    "mixtral": _mixtral,
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4)
    ),
    "opt": _opt,
    "bert": lambda: transformers.BertForTokenClassification(transformers.BertConfig(**SIZES)),
    "albert": lambda: transformers.AlbertForMaskedLM(
        transformers.AlbertConfig(**SIZES, embedding_size=16)
    ),
    "reward": lambda: transformers.LlamaForSequenceClassification(
        transformers.LlamaConfig(**DECODER, num_labels=1, pad_token_id=0)
    ),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=36, num_layers=1, num_heads=4)
    ),
    "bart": lambda: _bart(transformers.BartForConditionalGeneration),
    "whisper": _whisper,
    "vit": _vit,
    "base": lambda: transformers.LlamaModel(transformers.LlamaConfig(**DECODER)),
}
"""Whole models, by what is special about them."""


def _lora(model=llama, **options):
    return lambda: get_peft_model(model(), LoraConfig(**{"r": 4, **QV, **CLM, **options}))


def _tuner(config, model=llama, **options):
    return lambda: get_peft_model(model(), getattr(peft, config)(**options))


def _biased():
    return llama(attention_bias=True)


def _attention():
    return torch.nn.Sequential(torch.nn.MultiheadAttention(8, 2))


def _convolutions():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv1d(3, 8, 3))


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
ADAPTERS = {
    "lora": _lora(),
    "lora-without-a-task": _lora(task_type=None),
    "lora-all-linear": _lora(target_modules="all-linear"),
    "lora-targets-by-expression": _lora(target_modules=r".*\.(q|v)_proj"),
    "lora-targets-of-many-models": _lora(target_modules=["q_proj", "c_attn", "query_key_value"]),
    "lora-some-layers": _lora(layers_to_transform=[1]),
    "lora-repeated-layers": _lora(layer_replication=[(0, 2), (1, 2)]),
    "lora-rank-pattern": _lora(rank_pattern={"layers.0.self_attn.q_proj": 8, "v_proj": 2}),
    "lora-rank-expression": _lora(rank_pattern={r".*0.*q_proj": 8}),
    "lora-alpha-pattern": _lora(alpha_pattern={"v_proj": 9}),
    "dora": _lora(use_dora=True),
    "dora-convolutions": _lora(
        _convolutions, target_modules=["0", "1"], use_dora=True, task_type=None
    ),
    "lora-with-bias": _lora(_biased, lora_bias=True),
    "all-biases": _lora(_biased, bias="all", modules_to_save=["lm_head"]),
    "modules-to-save": _lora(modules_to_save=["lm_head", "embed_tokens"]),
    "embeddings": _lora(target_modules=["embed_tokens", "lm_head", "q_proj"]),
    "dora-embeddings": _lora(target_modules=["embed_tokens", "q_proj"], use_dora=True),
    "token-indices": _lora(trainable_token_indices=[1, 2, 3]),
    "token-indices-by-module": _lora(trainable_token_indices={"embed_tokens": [1, 2]}),
    "classifier": _lora(MODELS["bert"], target_modules=["query"], task_type="TOKEN_CLS"),
    "classifier-of-another-name": _lora(
        lambda: _bart(transformers.BartForSequenceClassification),
        target_modules=["q_proj"],
        task_type="SEQ_CLS",
    ),
    "experts": _lora(_mixtral, target_modules=["q_proj"], target_parameters=EXPERTS),
    "experts-by-old-names": _lora(_mixtral, target_modules=["q_proj", "w1", "w2", "w3"]),
    "attention": _lora(_attention, target_modules=["0"], task_type=None),
    "trainable-tokens": _tuner(
        "TrainableTokensConfig", token_indices=[1, 5], target_modules=["embed_tokens"]
    ),
    "adalora": _tuner("AdaLoraConfig", init_r=6, target_r=4, total_step=10, **QV, **CLM),
    "ia3": _tuner(
        "IA3Config", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "loha": _tuner("LoHaConfig", r=4, **QV),
    "lokr": _tuner("LoKrConfig", r=4, **QV),
    "oft": _tuner("OFTConfig", oft_block_size=4, **QV),
    "boft": _tuner("BOFTConfig", boft_block_size=4, **QV),
    "vera": _tuner("VeraConfig", r=4, target_modules=["q_proj"]),
    "hra": _tuner("HRAConfig", r=4, **QV),
    "fourierft": _tuner("FourierFTConfig", n_frequency=4, **QV),
    "shira": _tuner("ShiraConfig", r=2, **QV),
    "ln-tuning": _tuner("LNTuningConfig", target_modules=["input_layernorm"], **CLM),
    "adaption-prompt": _tuner("AdaptionPromptConfig", adapter_len=3, adapter_layers=1, **CLM),
    "prompt-tuning": _tuner("PromptTuningConfig", num_virtual_tokens=3, **CLM),
    "p-tuning": _tuner("PromptEncoderConfig", num_virtual_tokens=3, encoder_hidden_size=8, **CLM),
    "prefix-tuning": _tuner("PrefixTuningConfig", num_virtual_tokens=3, **CLM),
}
"""Adapters of PEFT, by what is special about them."""


def save_adapter(folder, name="lora"):
    """Save an adapter by PEFT alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ADAPTERS[name]().save_pretrained(folder)


def save_model(folder, name="llama", **options):
    """Save a whole model by transformers alone, with a tokenizer."""
    MODELS[name]().save_pretrained(folder, **options)
    make_tokenizer(64, chat=True).save_pretrained(folder)


def change_json(path, **changes):
    """Set keys of the object in a file; None takes a key away."""
    plain = json.loads(path.read_text())
    plain.update(changes)
    path.write_text(json.dumps({key: value for key, value in plain.items() if value is not None}))


def change_tensors(path, change):
    """Write a file again, with the tensors that ``change`` makes of those in it."""
    tensors = {name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def defects(folder):
    """The MUSTs that are broken in ``folder``, or could not be checked."""
    found = audit(Path(folder))
    clauses = {
        clause
        for clause, result in found.clauses.items()
        if SPEC[clause].level == "MUST" and (result.count or result.blocked)
    }
    assert found.is_clean == (not clauses)
    return clauses
