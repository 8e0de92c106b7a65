"""Tiny Gemma 4 models in transformers' mobile form (`quant_method: gemma`) with random codes and calibrated static scales,
and their forward pass with the arithmetic of the runtime: int8 key-value cache, dynamically quantized head."""
import copy
import json
import pathlib
import sys

import safetensors.torch
import torch
from transformers import DynamicCache, Gemma4ForCausalLM, Gemma4TextConfig
from transformers.integrations import gemma_quant
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.utils.quantization_config import GemmaQuantizationConfig

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "quickstart_data"))
import tokenizer_file  # noqa: E402

VOCABULARY = 512
WINDOW = 16
BASE = dict(
    vocab_size=VOCABULARY, vocab_size_per_layer_input=VOCABULARY, hidden_size=128, intermediate_size=256,
    num_attention_heads=4, head_dim=16, global_head_dim=32, sliding_window=WINDOW, max_position_embeddings=512,
    final_logit_softcapping=30.0, tie_word_embeddings=False, bos_token_id=2, eos_token_id=1, pad_token_id=0,
)
VARIANTS = {
    "shared": dict(num_hidden_layers=6, layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
                   num_kv_shared_layers=3, num_key_value_heads=1, hidden_size_per_layer_input=8, use_double_wide_mlp=True),
    "key_is_value": dict(num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2,
                         num_kv_shared_layers=0, num_key_value_heads=2, num_global_key_value_heads=1,
                         attention_k_eq_v=True, hidden_size_per_layer_input=0, use_double_wide_mlp=False),
    "plain": dict(num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2,
                  num_kv_shared_layers=0, num_key_value_heads=2, hidden_size_per_layer_input=0,
                  use_double_wide_mlp=False),
}
PATTERNS = {
    r"^lm_head$": 2, r"embed_tokens$": 2, r"embed_tokens_per_layer$": 4,
    r"layers\.[01]\.mlp\.": 4, r"layers\.[2-9]\.mlp\.": 2, r"per_layer_(input_gate|projection)$": 8, r"self_attn\.": 4,
}


def tokenizer_json(vocabulary=VOCABULARY) -> str:
    """Token i is the text "<i>" and nothing else is a token; pieces for bytes stand behind the vocabulary."""
    pieces = {f"<{i}>": i for i in range(vocabulary)}
    added = [dict(id=i, content=piece, single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
             for piece, i in pieces.items()]
    pieces |= {f"<0x{i:02X}>": vocabulary + i for i in range(256)}
    decoder = dict(type="Sequence", decoders=[dict(type="ByteFallback"), dict(type="Fuse")])
    model = dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                 fuse_unk=True, byte_fallback=True, ignore_merges=False, vocab=pieces, merges=[])
    return json.dumps(dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None,
                           pre_tokenizer=None, post_processor=None, decoder=decoder, model=model))


def quantized_linears(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, gemma_quant.QuantizedLinear)}


class Int8Cache(DynamicCache):
    """Keeps what an int8 cache with static scales would hold; `scales` are {layer: (key, value)}, or None: notes maxima."""

    def __init__(self, scales):
        super().__init__()
        self.scales, self.maxima, self.codes = scales, {}, {}

    def update(self, keys, values, layer, *args, **kwargs):
        if self.scales is None:
            self.maxima[layer] = keys.abs().max().item()
        else:
            def code(x, scale):
                return torch.clamp(torch.round(x * (1 / torch.tensor(scale))), -128, 127)
            self.codes[layer] = tuple(code(x, s).to(torch.int8)[0] for x, s in zip((keys, values), self.scales[layer]))
            keys, values = (code(x, s) * s for x, s in zip((keys, values), self.scales[layer]))
        return super().update(keys, values, layer, *args, **kwargs)


def random_codes(tensor, bits, generator):
    """Fills packed offset codes: every code occurs, their mean is about 0 (2-bit codes would lean to one side)."""
    if bits == 2:
        chances = torch.tensor([0.1, 0.2, 0.3, 0.4])
        lanes = torch.multinomial(chances, tensor.numel() * 4, replacement=True, generator=generator).view(*tensor.shape, 4)
        tensor.copy_((lanes << torch.tensor([0, 2, 4, 6])).sum(-1))
    elif bits == 4:
        tensor.copy_(torch.randint(0, 256, tensor.shape, generator=generator))
    else:
        tensor.copy_(torch.randint(-128, 128, tensor.shape, generator=generator))


def random_values(model, generator, tied):
    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.dtype in (torch.uint8, torch.int8):
                random_codes(tensor, model.get_submodule(name.rpartition(".")[0]).num_bits, generator)
            elif "post_" in name or "q_norm" in name:
                # An activation on the edge between two codes falls either way with the last bit of fp32, and random
                # layers spread that. Soft attention and small branches keep it from deciding a text.
                uniform(tensor, *((0.2, 0.4) if "q_norm" in name else (0.05, 0.1)))
            elif "norm" in name and name.endswith("weight") or name.endswith("layer_scalar"):
                uniform(tensor, 0.6, 1.2)
            elif name.endswith("per_layer.embedding_scale"):
                uniform(tensor, 0.05, 0.15)
            elif name.endswith("per_layer_model_projection.weight"):
                uniform(tensor, -0.3, 0.3)
        for name, module in quantized_linears(model).items():
            size = {2: 1.2, 4: 4.6, 8: 74}[module.num_bits] * module.in_features**0.5
            uniform(module.weight_scale, 0.7 / size, 1.4 / size)
        uniform(model.lm_head.weight_scale, 0.04, 0.08)
        uniform(model.model.embed_tokens.embedding_scale, *((0.02, 0.04) if tied else (0.1, 0.2)))
        if tied:
            model.lm_head.weight.copy_(model.model.embed_tokens.embedding_quantized)
            model.lm_head.weight_scale.copy_(model.model.embed_tokens.embedding_scale)


def calibrate(model, tokens):
    """Static scales from the largest values seen, shared by q/k/v and gate/up; -> cache scales."""
    seen = {}

    def note(name):
        def hook(module, inputs, output):
            seen[name] = (inputs[0].abs().max().item(), output.abs().max().item())
        return hook

    handles = [m.register_forward_hook(note(n)) for n, m in quantized_linears(model).items()]
    cache = Int8Cache(None)
    with torch.no_grad():
        model(tokens, past_key_values=cache)
    for handle in handles:
        handle.remove()
    for name, module in quantized_linears(model).items():
        if name != "lm_head" and name in seen:
            module.input_activation_scale.data.fill_(seen[name][0] * 0.9 / 127)
            module.output_activation_scale.data.fill_(seen[name][1] * 0.9 / 127)
    return {layer: (largest * 0.95 / 127, 6.0 / 127) for layer, largest in cache.maxima.items()}


def make_model(folder: pathlib.Path, variant: str, seed: int, tied: bool = False):
    """Writes the folder; -> (model in fp32, cache scales)."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    quantization = GemmaQuantizationConfig(
        num_bits=4, quantize_embeddings=True, module_quant_configs={k: {"num_bits": v} for k, v in PATTERNS.items()},
        modules_to_not_convert=["per_layer_model_projection"])
    config = Gemma4TextConfig(**BASE, **VARIANTS[variant])
    config._attn_implementation = "eager"
    model = Gemma4ForCausalLM(config).to(torch.float32).eval()
    AutoHfQuantizer.from_config(quantization).preprocess_model(model=model)
    if config.hidden_size_per_layer_input:
        table = model.model.embed_tokens_per_layer
        table.embedding_scale = torch.nn.Parameter(torch.ones(VOCABULARY, config.num_hidden_layers))
    random_values(model, generator, tied)
    with torch.no_grad():  # what the folder stores in BF16
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" in name or name.endswith(("layer_scalar", "per_layer_model_projection.weight")):
                tensor.copy_(tensor.to(torch.bfloat16))
    scales = calibrate(model, torch.randint(0, VOCABULARY, (1, 64), generator=generator))
    model.config.quantization_config = quantization
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    for layer, (key, value) in scales.items():
        tensors[f"model.layers.{layer}.self_attn.k_cache_scale"] = torch.tensor(key)
        tensors[f"model.layers.{layer}.self_attn.v_cache_scale"] = torch.tensor(value)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    (folder / "tokenizer.json").write_text(tokenizer_json())
    scales = {layer: tuple(torch.tensor(s).item() for s in pair) for layer, pair in scales.items()}
    return model, scales


def make_plain_folder(folder: pathlib.Path, variant: str, seed: int):
    """Writes a BF16 model with random weights for `quantize`: soft attention and small branches, as in random_values."""
    generator = torch.Generator().manual_seed(seed)
    config = Gemma4TextConfig(**BASE, **VARIANTS[variant])
    model = Gemma4ForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            last = name.removesuffix(".weight").rpartition(".")[2]
            low, high = ((0.05, 0.1) if last.startswith("post_") else (0.2, 0.4) if last == "q_norm" else
                         (0.6, 1.2) if "norm" in last or last == "layer_scalar" else (None, None))
            if low is not None:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
            elif tensor.dim() == 2:
                width = 1 if last == "embed_tokens_per_layer" else tensor.shape[-1] ** 0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (1.5 if last == "embed_tokens" else 1) / width)
    model.save_pretrained(folder)
    characters = [chr(code) for code in range(33, 127)]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_file.tokenizer_json("gemma4", [], characters, VOCABULARY)))


def dynamic_linear(x, codes, scales):
    """XNNPACK's dynamically quantized product: int8 rows with a zero point."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    inverse = torch.where(high == low, torch.ones_like(high), 255 / (high - low))
    from_low, from_high = -128 - low * inverse, 127 - high * inverse
    zero_point = torch.where((-128 + low * inverse) + (127 + high * inverse) > 0, from_low, from_high)
    zero_point = torch.round(zero_point.clamp(-128, 127))
    rows = torch.clamp(torch.round(x * inverse) + zero_point, -128, 127)
    sums = ((rows - zero_point).double() @ codes.double().T).float()
    return sums * (1 / inverse) * scales.reshape(-1)


class StaticLinear(torch.nn.Module):
    """XNNPACK's static int8 product: sums of codes, one fp32 factor per row."""

    def __init__(self, module):
        super().__init__()
        self.input, self.output = module.input_activation_scale, module.output_activation_scale
        self.codes = torch.round(module._dequantize_weights(torch.float32) / module.weight_scale).double()
        self.factors = (self.input * module.weight_scale.reshape(-1)) / self.output

    def forward(self, x):
        codes = torch.round((x * (1 / self.input)).clamp(-128, 127))
        sums = (codes.double() @ self.codes.T).float()
        return torch.round((sums * self.factors).clamp(-128, 127)) * self.output


class Reference:
    """The model with the runtime's integer arithmetic; everything else is transformers' own forward pass in fp32."""

    def __init__(self, model, scales):
        self.model, self.scales = copy.deepcopy(model), scales
        head = model.lm_head
        self.head_codes = gemma_quant._unpack_int2(head.weight, head.in_features)
        self.head_scales = head.weight_scale
        for name, module in quantized_linears(model).items():
            if name != "lm_head" and module.input_activation_scale != 0:
                parent, _, child = name.rpartition(".")
                setattr(self.model.get_submodule(parent), child, StaticLinear(module))

    def logits(self, tokens):
        """[tokens, vocabulary] in fp32, and the cache's codes by layer: (keys, values) [heads, tokens, width]."""
        cache = Int8Cache(self.scales)
        with torch.no_grad():
            hidden = self.model.model(torch.tensor([tokens]), past_key_values=cache).last_hidden_state[0]
            logits = dynamic_linear(hidden, self.head_codes, self.head_scales)
        cap = self.model.config.final_logit_softcapping
        return torch.tanh(logits / cap) * cap, cache.codes
