#!/usr/bin/env python3
"""Writes tiny random Gemma models as Hugging Face folders, one per member of the family, for goldens and tests of real clients.

    make_tiny_models.py OUT_FOLDER [--kind NAME ...] [--width small|wide] [--seed N]

Kinds: e2b, e4b, 12b, 31b, 26b, gemma3, and e2b-multimodal (e2b's weights inside the multimodal wrapper, in the spelling of the
published files). Same arguments, same bytes. Each folder is loaded again in FP32 and its logits are described on stdout.
"""
import argparse
import hashlib
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "quickstart_data"))
from tokenizer_file import GEMMA3_SPECIAL_TOKENS, GEMMA4_SPECIAL_TOKENS, tokenizer_config, tokenizer_json  # noqa: E402

VOCABULARY_SIZE = 512
SLIDING_WINDOW = 16
EMBEDDING_SCALE = 1.5  # standard deviation of the scaled embedding, and so of the logits
AGAINST_INPUT = 2.0
S, F = "sliding_attention", "full_attention"

# Layer patterns: at least seven layers, both types on each side of a sharing boundary, the last two layers with own keys are
# (sliding, full) as llama.cpp demands, and the donor of a type is not its first layer.
TEXT_FACTS = {
    "e2b": {
        "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 64, "global_head_dim": 128, "layer_types": [S, F, S, F, S, S, S, F], "num_kv_shared_layers": 4,
        "hidden_size_per_layer_input": 32, "use_double_wide_mlp": True,
    },
    "e4b": {
        "hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 64, "global_head_dim": 64, "layer_types": [S, F, S, S, F, S, S, F], "num_kv_shared_layers": 3,
        "hidden_size_per_layer_input": 32,
    },
    "12b": {
        "hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 64, "global_head_dim": 128, "layer_types": [S, S, F, S, S, S, S, F],
        "attention_k_eq_v": True, "num_global_key_value_heads": 1,
    },
    "31b": {
        "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 32, "global_head_dim": 64, "layer_types": [S, S, F, S, S, S, F],
        "attention_k_eq_v": True, "num_global_key_value_heads": 2, "hidden_size_per_layer_input": 0,
    },
    "26b": {
        "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 32, "global_head_dim": 64, "layer_types": [S, S, F, S, S, S, F],
        "attention_k_eq_v": True, "num_global_key_value_heads": 2, "hidden_size_per_layer_input": 0,
        "enable_moe_block": True, "num_experts": 16, "top_k_experts": 4, "moe_intermediate_size": 32,
    },
    # llama.cpp fixes Gemma 3's pattern: every sixth layer is full.
    "gemma3": {
        "hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 64, "query_pre_attn_scalar": 64, "layer_types": [S, S, S, S, S, F, S, S],
    },
}
# Hidden size and tables in multiples of 256, the block of Q6_K.
WIDE_FACTS = {"hidden_size": 256, "intermediate_size": 320}
# Seeds whose models neither repeat their input nor fall into a short loop, at both widths.
SEEDS = {"e2b": 2, "e4b": 2, "12b": 2, "31b": 2, "26b": 3, "gemma3": 3, "e2b-multimodal": 2}
KINDS = [*TEXT_FACTS, "e2b-multimodal"]


def text_config(kind, width):
    facts = dict(TEXT_FACTS[kind])
    if width == "wide":
        facts |= WIDE_FACTS
        if facts.get("hidden_size_per_layer_input"):
            facts["hidden_size_per_layer_input"] = 64
        if "moe_intermediate_size" in facts:
            facts["moe_intermediate_size"] = 64
    facts |= {
        "num_hidden_layers": len(facts["layer_types"]),
        "vocab_size": VOCABULARY_SIZE,
        "sliding_window": SLIDING_WINDOW,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    }
    if kind == "gemma3":
        return transformers.Gemma3TextConfig(**facts)
    facts["final_logit_softcapping"] = 30.0
    if kind == "12b":
        return transformers.Gemma4UnifiedTextConfig(**facts)
    return transformers.Gemma4TextConfig(vocab_size_per_layer_input=VOCABULARY_SIZE, **facts)


def model_class(kind):
    return {"gemma3": transformers.Gemma3ForCausalLM, "12b": transformers.Gemma4UnifiedForCausalLM}.get(
        kind, transformers.Gemma4ForCausalLM)


def random_values(name, shape, config, offset_of_norms, seed):
    """Values of one weight, depending on its name and the seed only; rounded to BF16 by the caller."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "little"))
    last = name.removesuffix(".weight").rsplit(".", 1)[-1]
    if "norm" in last or last in ("layer_scalar", "scale", "per_expert_scale"):
        return torch.rand(shape, generator=generator) + 0.5 - offset_of_norms
    if name.endswith("embed_tokens.weight"):
        deviation = EMBEDDING_SCALE / config.hidden_size**0.5
    elif name.endswith("embed_tokens_per_layer.weight"):
        deviation = 1 / config.hidden_size_per_layer_input**0.5
    elif name.endswith("router.proj.weight"):
        deviation = 1.5  # its input is divided by sqrt(hidden size)
    elif last == "gate_proj" or last == "gate_up_proj":
        deviation = 1.5 / shape[-1] ** 0.5
    else:
        deviation = 1 / shape[-1] ** 0.5
    return torch.randn(shape, generator=generator) * deviation


def turn_from_input(mlp):
    """Gives the MLP a tendency to subtract its input, without which a tied head repeats the token that it has just read."""
    down, up = mlp.down_proj.weight, mlp.up_proj.weight
    down.copy_((down - AGAINST_INPUT * up.T * (up.shape[1] / up.shape[0]) ** 0.5) / (1 + AGAINST_INPUT**2) ** 0.5)


def fill(model, kind, seed):
    offset = 1.0 if kind == "gemma3" else 0.0
    with torch.no_grad():
        tensors = dict(model.named_parameters())
        tensors |= {name: value for name, value in model.named_buffers() if name.endswith("layer_scalar")}
        for name, tensor in tensors.items():
            tensor.copy_(random_values(name, tensor.shape, model.config, offset, f"{seed} {kind}"))
        for layer in model.model.layers:
            turn_from_input(layer.mlp)
    return model.to(torch.bfloat16)


# A few merges of every kind: inside words, after the word start, on top of other merges.
TOY_MERGES = [
    ("t", "h"), ("th", "e"), ("▁", "the"), ("i", "n"), ("e", "r"), ("a", "n"), ("r", "e"), ("o", "n"), ("▁", "a"), ("an", "d"),
    ("▁", "and"), ("in", "g"), ("o", "u"), ("▁", "w"), ("▁", "s"), ("e", "d"), ("▁", "o"), ("▁o", "f"), ("▁", "t"), ("▁t", "o"),
    ("l", "l"), ("e", "n"), ("▁", "b"), ("▁", "c"), ("▁", "in"), ("y", "ou"), ("▁", "you"), ("i", "s"), ("▁", "is"), ("a", "t"),
    ("h", "at"), ("▁w", "hat"), ("o", "r"), ("▁", "f"), ("▁f", "or"), ("u", "s"), ("us", "er"), ("m", "o"), ("d", "e"),
    ("mo", "de"), ("mode", "l"), ("s", "y"), ("s", "t"), ("sy", "st"), ("e", "m"), ("syst", "em"), ("!", "!"), ("!!", "!!"),
]
TOY_CHARACTERS = [chr(code) for code in range(33, 127)] + ["é", "ä", "½", "…", "中"]


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_tokenizer(folder, family):
    write_json(folder / "tokenizer.json", tokenizer_json(family, TOY_MERGES, TOY_CHARACTERS, VOCABULARY_SIZE))
    write_json(folder / "tokenizer_config.json", tokenizer_config(family))


def token_id(family, token):
    return {"gemma4": GEMMA4_SPECIAL_TOKENS, "gemma3": GEMMA3_SPECIAL_TOKENS}[family].index(token)


def write_text_model(folder, kind, width, seed):
    family = "gemma3" if kind == "gemma3" else "gemma4"
    model = fill(model_class(kind)(text_config(kind, width)), kind, seed)
    end_of_turn = token_id(family, "<end_of_turn>" if family == "gemma3" else "<turn|>")
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=2, pad_token_id=0, eos_token_id=[1, end_of_turn], do_sample=True, top_k=64, top_p=0.95)
    # The large dense model is published in shards.
    model.save_pretrained(folder, max_shard_size="2MB" if kind == "31b" else "1GB")
    write_tokenizer(folder, family)


def published_text_config(written):
    """The text settings as the published files spell them: facts of full layers by global_head_dim, not by layer."""
    text = {name: value for name, value in written.items() if name not in ("architectures", "transformers_version")}
    by_layer = text.pop("per_layer_config")
    text["global_head_dim"] = next(iter(by_layer.values()))["head_dim"]
    text["num_global_key_value_heads"] = None
    return text


def vision_weights(text_hidden, seed):
    """A vision tower of one layer, width 32: enough to see that other modalities' tensors travel through untouched."""
    width, inner = 32, 64
    layer = "model.vision_tower.encoder.layers.0."
    shapes = {
        "model.vision_tower.patch_embedder.input_proj.weight": (width, 3 * 4 * 4),
        "model.vision_tower.patch_embedder.position_embedding_table": (2, 16, width),
        **{f"{layer}self_attn.{name}_proj.linear.weight": (width, width) for name in "qkvo"},
        **{f"{layer}self_attn.{name}_norm.weight": (16,) for name in "qk"},
        f"{layer}mlp.gate_proj.linear.weight": (inner, width),
        f"{layer}mlp.up_proj.linear.weight": (inner, width),
        f"{layer}mlp.down_proj.linear.weight": (width, inner),
        **{f"{layer}{name}layernorm.weight": (width,)
           for name in ("input_", "post_attention_", "pre_feedforward_", "post_feedforward_")},
        "model.embed_vision.embedding_projection.weight": (text_hidden, width),
    }
    generator = torch.Generator().manual_seed(seed + 1)
    return {name: torch.randn(shape, generator=generator).to(torch.bfloat16) for name, shape in shapes.items()}


def redundant_key_values(text, seed):
    """Keys and values of layers that read another layer's: the published E2B and E4B files carry them, nobody uses them."""
    weights = {}
    for index in range(text.num_hidden_layers - text.num_kv_shared_layers, text.num_hidden_layers):
        head_dim = text.per_layer_config[index].head_dim
        heads = text.per_layer_config[index].num_key_value_heads
        shapes = {"k_proj": (heads * head_dim, text.hidden_size), "v_proj": (heads * head_dim, text.hidden_size),
                  "k_norm": (head_dim,)}
        for name, shape in shapes.items():
            full_name = f"model.layers.{index}.self_attn.{name}.weight"
            weights[full_name] = random_values(full_name, shape, text, 0.0, f"{seed} redundant").to(torch.bfloat16)
    return weights


def write_multimodal_model(folder, width, seed):
    """e2b's text tower under model.language_model., with vision tensors and a config.json as published."""
    text = text_config("e2b", width)
    write_text_model(folder, "e2b", width, seed)
    weights = load_file(folder / "model.safetensors") | redundant_key_values(text, seed)
    weights = {"model.language_model." + name.removeprefix("model."): value for name, value in weights.items()}
    weights |= vision_weights(text.hidden_size, seed)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "dtype": "bfloat16",
        "eos_token_id": [1, token_id("gemma4", "<turn|>")],
        "boi_token_id": token_id("gemma4", "<|image>"),
        "eoi_token_id": token_id("gemma4", "<image|>"),
        "image_token_id": token_id("gemma4", "<|image|>"),
        "video_token_id": token_id("gemma4", "<|video|>"),
        "boa_token_id": token_id("gemma4", "<|audio>"),
        "eoa_token_index": token_id("gemma4", "<audio|>"),
        "audio_token_id": token_id("gemma4", "<|audio|>"),
        "audio_config": None,
        "text_config": published_text_config(written),
        "tie_word_embeddings": True,
        "vision_config": {
            "model_type": "gemma4_vision", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "patch_size": 4, "pooling_kernel_size": 1,
            "position_embedding_size": 16, "dtype": "bfloat16",
        },
    })


def describe(folder):
    """Loads the folder in FP32 and says how lively it is; raises if it is not fit for goldens."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(24, VOCABULARY_SIZE, (4, 48), generator=generator)
    tokens[:, 0] = 2
    with torch.no_grad():
        output = model(input_ids=tokens, output_hidden_states=True)
        continuation = model.generate(tokens[:1], max_new_tokens=64, do_sample=False, eos_token_id=None)[0, 48:]
    deviation = output.logits.std(-1).mean().item()
    repeated = (output.logits.argmax(-1) == tokens).float().mean().item()
    residual = [round(hidden.pow(2).mean().sqrt().item(), 2) for hidden in output.hidden_states]
    different = len(set(continuation.tolist()))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    sample = "The sun, and what you\n\n  think of it: é½ 🦙!!!! 333"
    ids = tokenizer.encode(sample, add_special_tokens=False)
    if tokenizer.decode(ids, clean_up_tokenization_spaces=False) != sample:
        raise SystemExit(f"{folder}: the tokenizer does not give its text back")
    parameters = sum(tensor.numel() for tensor in model.parameters())
    print(f"{folder.name:15} {parameters:9,} parameters  logits: standard deviation {deviation:.2f}, input repeated "
          f"{100 * repeated:.0f} %  greedy: {different} different tokens of 64  residual {residual}")
    if deviation < 1 or different < 6:
        raise SystemExit(f"{folder}: logits too flat or greedy decoding stuck; choose another seed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_folder", type=pathlib.Path, help="each kind becomes a folder in here")
    parser.add_argument("--kind", action="append", choices=KINDS, help="may be repeated; default: all")
    parser.add_argument("--width", choices=["small", "wide"], default="small",
                        help="wide: hidden size and table widths are multiples of 256 (default: small)")
    parser.add_argument("--seed", type=int, help="of the weights (default: one that is good, by kind)")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for kind in options.kind or KINDS:
        folder = options.out_folder / kind
        seed = SEEDS[kind] if options.seed is None else options.seed
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "e2b-multimodal":
            write_multimodal_model(folder, options.width, seed)
        else:
            write_text_model(folder, kind, options.width, seed)
        describe(folder)


if __name__ == "__main__":
    main()
