#!/usr/bin/env python3
"""Writes tiny random models in transformers' mobile format (quant_method "gemma"), with transformers' own classes.

    make_mobile_folder.py OUT_FOLDER [--kind e2b e4b] [--width small|narrow] [--seed N]
    make_mobile_folder.py --golden [--out tests/golden/mobile_folder]

e2b: the text model inside the multimodal wrapper, as published: Google's patterns, a vision tower, keys and values of layers that
read another layer's. e4b: a text model alone (Gemma4ForCausalLM) in two shards, and a pattern that is right only if the leftmost match
counts. Codes, weight scales and norms are random; the scales of activations and of the cache come from a run over random tokens, so
that few values clip. Same arguments, same bytes.

--golden writes the narrow e2b with expected.safetensors:
    tokens   int64 [T]
    logits   fp32 [T, vocabulary]: transformers, FP32
"""
import argparse
import hashlib
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.integrations.gemma_quant import QuantizedEmbedding, QuantizedLinear, replace_with_quant_layers
from transformers.utils.quantization_config import GemmaQuantizationConfig

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import make_tiny_models  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ["e2b", "e4b"]
NARROW = {"hidden_size": 32, "intermediate_size": 40, "head_dim": 16, "global_head_dim": 32, "hidden_size_per_layer_input": 8}
NARROW_VOCABULARY = 96
FIRST_TEXT_TOKEN = 24  # below are the special tokens, some of which stand for images
CALIBRATION_TOKENS = 512
GOLDEN_TOKENS = 48
ROOM = 1.02            # largest activation seen, in codes: 127 / ROOM
VALUE_SCALE = 6 / 127  # of cached values, in the published files
CODE_SPREAD = {2: 0.8, 4: 2.8, 8: 40.0}
NOT_CONVERTED = ["model.vision_tower.patch_embedder", "model.audio_tower.subsample_conv_projection", "model.audio_tower.output_proj",
                 "relative_k_proj", "model.embed_audio", "model.embed_vision", "per_layer_model_projection"]


def patterns(kind):
    if kind == "e2b":
        return {
            "^lm_head$": 2,
            r"language_model\.embed_tokens$": 2,
            r"language_model\.embed_tokens_per_layer$": 4,
            r"language_model\.layers\.([0-3])\.mlp\.": 4,
            r"language_model\.layers\.\d+\.mlp\.": 2,
            r"language_model\.layers\.\d+\.per_layer_input_gate$": 8,
            r"language_model\.layers\.\d+\.per_layer_projection$": 8,
            r"language_model\.layers\.\d+\.self_attn\.": 4,
            "vision_tower": 8,
        }
    # "mlp" stands first and would give 8 bits; the other patterns match further left.
    return {
        "(mlp|per_layer_input_gate|per_layer_projection)": 8,
        "^lm_head$": 2,
        r"model\.embed_tokens": 2,
        r"model\.layers\.\d+\.(mlp|self_attn)\.": 4,
    }


def quantization(kind):
    return GemmaQuantizationConfig(
        num_bits=4, quantize_embeddings=True, modules_to_not_convert=NOT_CONVERTED,
        module_quant_configs={pattern: {"num_bits": bits} for pattern, bits in patterns(kind).items()})


def build(kind, width):
    text = make_tiny_models.text_config(kind, "small")
    if width == "narrow":
        facts = make_tiny_models.TEXT_FACTS[kind] | NARROW
        make_tiny_models.TEXT_FACTS[kind], kept = facts, make_tiny_models.TEXT_FACTS[kind]
        make_tiny_models.VOCABULARY_SIZE, vocabulary = NARROW_VOCABULARY, make_tiny_models.VOCABULARY_SIZE
        text = make_tiny_models.text_config(kind, "small")
        make_tiny_models.TEXT_FACTS[kind], make_tiny_models.VOCABULARY_SIZE = kept, vocabulary
    text.tie_word_embeddings = False
    if kind == "e4b":
        model = transformers.Gemma4ForCausalLM(text)
    else:
        vision = transformers.Gemma4VisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=16,
            patch_size=4, pooling_kernel_size=1, position_embedding_size=16, use_clipped_linears=False)
        model = transformers.Gemma4ForConditionalGeneration(transformers.Gemma4Config(
            text_config=text, vision_config=vision, audio_config=None, tie_word_embeddings=False, image_token_id=19, video_token_id=23,
            audio_token_id=20, boi_token_id=17, eoi_token_id=21, boa_token_id=18, eoa_token_index=22))
    replace_with_quant_layers(model, quantization_config=quantization(kind), modules_to_not_convert=NOT_CONVERTED)
    return model.eval(), text


class Draw:
    """Random tensors that depend on their name and the seed only."""

    def __init__(self, seed):
        self.seed = seed

    def generator(self, name):
        digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:6], "little"))

    def normal(self, name, shape, deviation):
        return torch.randn(shape, generator=self.generator(name)) * deviation

    def between(self, name, shape, low, high):
        return torch.rand(shape, generator=self.generator(name)) * (high - low) + low

    def codes(self, name, shape, bits):
        half = 1 << (bits - 1)
        return torch.round(self.normal(name, shape, CODE_SPREAD[bits]) - (0.3 if bits == 2 else 0)).clamp(-half, half - 1).long()


def packed(codes, bits):
    """Offset codes, the first of a byte in its low bits; int8 as it is."""
    if bits == 8:
        return codes.to(torch.int8)
    lanes = 8 // bits
    offset = (codes + (1 << (bits - 1))).reshape(*codes.shape[:-1], -1, lanes)
    return sum(offset[..., lane] << (lane * bits) for lane in range(lanes)).to(torch.uint8)


def fill_quantized(draw, name, module, columns, per_row):
    """Codes and scales; the values have a standard deviation of about 1 / sqrt(columns), those of tables of about 1 / sqrt(width)."""
    rows = module.embedding_quantized.shape[0] if isinstance(module, QuantizedEmbedding) else module.weight.shape[0]
    codes = packed(draw.codes(name, (rows, columns), module.num_bits), module.num_bits)
    deviation = 1.2 / (columns / per_row) ** 0.5 / CODE_SPREAD[module.num_bits]
    scales = draw.between(name + " scale", (rows, per_row), 0.6, 1.4) * deviation
    if isinstance(module, QuantizedEmbedding):
        module.embedding_quantized.copy_(codes)
        module.embedding_scale = torch.nn.Parameter(scales, requires_grad=False)
    else:
        module.weight.copy_(codes)
        module.weight_scale.copy_(scales)


def fill(model, text, draw):
    with torch.no_grad():
        quantized = {name: module for name, module in model.named_modules() if isinstance(module, (QuantizedLinear, QuantizedEmbedding))}
        for name, module in quantized.items():
            table = isinstance(module, QuantizedEmbedding)
            columns = module.embedding_dim if table else module.in_features
            fill_quantized(draw, name, module, columns, text.num_hidden_layers if name.endswith("per_layer") else 1)
        language = model.model.language_model if hasattr(model.model, "language_model") else model.model
        model.lm_head.weight.copy_(language.embed_tokens.embedding_quantized)
        model.lm_head.weight_scale.copy_(language.embed_tokens.embedding_scale)
        others = dict(model.named_parameters()) | {n: b for n, b in model.named_buffers() if n.endswith("layer_scalar")}
        for name, tensor in others.items():
            if name.rsplit(".", 1)[0] in quantized:
                continue
            if "norm" in name or name.endswith("layer_scalar"):
                tensor.copy_(draw.between(name, tensor.shape, 0.5, 1.5).bfloat16())
            else:
                tensor.copy_(draw.normal(name, tensor.shape, tensor.shape[-1] ** -0.5).bfloat16())
        # Attention scaled by 1 is so sharp with random norms that rounding errors grow a hundredfold from layer to layer.
        for layer in language.layers:
            for norm in (layer.self_attn.q_norm, getattr(layer.self_attn, "k_norm", None)):
                if norm is not None:
                    norm.weight.copy_((norm.weight * layer.self_attn.head_dim**-0.25).bfloat16())
    return language


def random_tokens(text, count, generator):
    tokens = torch.randint(FIRST_TEXT_TOKEN, text.vocab_size, (count,), generator=generator)
    tokens[0] = 2
    return tokens


def calibrate(model, language, text, draw):
    """Sets the scales of activations; returns those of the cache by layer, (key, value)."""
    seen = {}

    def watch(name):
        def hook(module, inputs, output):
            seen[name] = (inputs[0].abs().max().item(), output.abs().max().item())
        return hook

    linears = {name: module for name, module in language.named_modules() if isinstance(module, QuantizedLinear)}
    hooks = [module.register_forward_hook(watch(name)) for name, module in linears.items()]
    tokens = random_tokens(text, CALIBRATION_TOKENS, draw.generator("calibration"))
    cache = transformers.DynamicCache()  # without the config it keeps all positions of sliding layers
    with torch.no_grad():
        model(input_ids=tokens.unsqueeze(0), past_key_values=cache, use_cache=True)
        for hook in hooks:
            hook.remove()
        for name, module in linears.items():
            module.input_activation_scale.fill_(ROOM * seen[name][0] / 127)
            module.output_activation_scale.fill_(ROOM * seen[name][1] / 127)
    return {index: (torch.tensor(ROOM * layer.keys.abs().max().item() / 127), torch.tensor(VALUE_SCALE))
            for index, layer in enumerate(cache.layers) if getattr(layer, "keys", None) is not None}


def donor_of(text, index):
    own = text.num_hidden_layers - text.num_kv_shared_layers
    if index < own:
        return index
    return max(layer for layer in range(own) if text.layer_types[layer] == text.layer_types[index])


def redundant(text, draw, prefix):
    """Keys and values of layers that read another layer's: the published files carry them, nobody uses them."""
    tensors = {}
    for index in range(text.num_hidden_layers - text.num_kv_shared_layers, text.num_hidden_layers):
        facts = text.per_layer_config[index]
        for name in ("k_proj", "v_proj"):
            module = f"{prefix}layers.{index}.self_attn.{name}"
            shape = (facts.num_key_value_heads * facts.head_dim, text.hidden_size)
            tensors[module + ".weight"] = packed(draw.codes(module, shape, 4), 4)
            tensors[module + ".weight_scale"] = draw.between(module + " scale", (shape[0], 1), 0.01, 0.02)
            tensors[module + ".input_activation_scale"] = torch.tensor(0.0)
            tensors[module + ".output_activation_scale"] = torch.tensor(0.0)
        tensors[f"{prefix}layers.{index}.self_attn.k_norm.weight"] = torch.ones(facts.head_dim)
    return tensors


def stored(name, tensor):
    """Unquantized weights are BF16 in the file, scales and codes as they are."""
    keep = tensor.dtype in (torch.uint8, torch.int8) or name.endswith(("_scale", ".embedding_scale"))
    return (tensor if keep else tensor.bfloat16()).contiguous()


def save(folder, model, kind, tensors):
    model.config.quantization_config = quantization(kind)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = torch.float32
    model.config.save_pretrained(folder)
    tensors = {name: stored(name, tensor.detach().clone()) for name, tensor in tensors.items()}
    if kind != "e4b":
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, files = sorted(tensors), [f"model-0000{shard}-of-00002.safetensors" for shard in (1, 2)]
    shards = {files[0]: names[: len(names) // 2], files[1]: names[len(names) // 2:]}
    for file, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / file, metadata={"format": "pt"})
    make_tiny_models.write_json(folder / "model.safetensors.index.json", {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {name: file for file, members in shards.items() for name in members}})


def write(folder, kind, width, seed):
    folder.mkdir(parents=True, exist_ok=True)
    draw = Draw(f"{seed} {kind} {width}")
    model, text = build(kind, width)
    language = fill(model, text, draw)
    caches = calibrate(model, language, text, draw)
    prefix = "model.language_model." if language is not model.model else "model."
    tensors = model.state_dict() | redundant(text, draw, prefix)
    for index in range(text.num_hidden_layers):
        key, value = caches[donor_of(text, index)]
        tensors[f"{prefix}layers.{index}.self_attn.k_cache_scale"] = key
        tensors[f"{prefix}layers.{index}.self_attn.v_cache_scale"] = value
    save(folder, model, kind, tensors)
    return text


def load(folder):
    """The folder as transformers runs it, in FP32.

    transformers 5.23 declares one scale per row of every table and refuses the [vocabulary, layers] of the published per-layer table,
    which its forward pass handles: these scales are set after loading."""
    tensors = {}
    for file in sorted(pathlib.Path(folder).glob("model*.safetensors")):
        tensors |= load_file(file)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, ignore_mismatched_sizes=True).eval()
    for name, module in model.named_modules():
        if isinstance(module, QuantizedEmbedding):
            module.embedding_scale = torch.nn.Parameter(tensors[name + ".embedding_scale"], requires_grad=False)
    return model


def describe(folder, text):
    """Loads the folder and says how lively it is; raises if it is not fit for tests."""
    tokens = random_tokens(text, 256, torch.Generator().manual_seed(7))
    with torch.no_grad():
        logits = load(folder)(input_ids=tokens.unsqueeze(0)).logits[0]
    deviation = logits.std(-1).mean().item()
    different = len(set(logits.argmax(-1).tolist()))
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder.name:15} {size:9,} bytes  logits: standard deviation {deviation:.2f}, {different} different best tokens of 256")
    if deviation < 0.5 or different < 6:
        raise SystemExit(f"{folder}: logits too flat; choose another seed")


def write_golden(folder):
    text = write(folder, "e2b", "narrow", 1)
    tokens = random_tokens(text, GOLDEN_TOKENS, torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = load(folder)(input_ids=tokens.unsqueeze(0)).logits[0]
    save_file({"tokens": tokens, "logits": logits.contiguous()}, folder / "expected.safetensors")
    describe(folder, text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_folder", type=pathlib.Path, nargs="?", help="each kind becomes a folder in here")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--width", choices=["small", "narrow"], default="small")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--golden", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "tests" / "golden" / "mobile_folder")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    if options.golden:
        write_golden(options.out)
        return
    if options.out_folder is None:
        parser.error("wanted OUT_FOLDER or --golden")
    for kind in options.kind:
        folder = options.out_folder / kind
        describe(folder, write(folder, kind, options.width, options.seed))


if __name__ == "__main__":
    main()
