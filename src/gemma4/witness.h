// The witness of a checkpoint: what the fake-quantized forward pass really used and computed. `verify` compares an
// artifact with it and needs neither LibTorch nor the training data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace qat {

inline constexpr int64_t kWitnessTopLogits = 64;
inline constexpr int64_t kWitnessPositions = 64;  // at most, per prompt

// SHA-256 of what the forward pass used of a weight: codes and scales of its encoder (quant/quantized_digest.h), and
// the matrix that the GEMM read (row-major, little-endian): BF16, which is bf16(decode(codes, scales)), or fp32 for schemes
// with a scale per row, which is decode(codes, scales).
struct WeightDigest {
  std::string codes;
  std::string scales;
  std::string values;
  bool operator==(const WeightDigest&) const = default;
};

// "codes, scales, the matrix that the forward pass read": those parts in which two digests differ.
std::string differing_parts(const WeightDigest& a, const WeightDigest& b);

// Logits that follow one position: the largest ones and the log of the sum of exp of all. fp32, after the soft-cap.
struct WitnessPosition {
  std::vector<int32_t> top_tokens;  // min(64, vocabulary), largest logit first
  std::vector<float> top_logits;
  float log_sum_exp = 0;
};

struct WitnessPrompt {
  std::vector<int32_t> tokens;
  std::vector<WitnessPosition> positions;  // one per token
};

// What a layer cached at all positions of all prompts, one after another: blocks of quant/key_value_block.h,
// [positions, key-value heads, head size].
struct WitnessCache {
  std::vector<std::byte> keys;
  std::vector<std::byte> values;
};

struct Witness {
  std::map<std::string, WeightDigest, std::less<>> digests;  // by WeightTable name; quantized weights
  std::map<int64_t, WitnessCache> caches;                    // by layer; empty unless the plan has a q8_0 cache
  // Codes of static int8 edges and caches at all positions of all prompts, one after another: [positions, width], by name
  // ("layers.3.mlp.input", "layers.3.mlp.down_proj.output", "layers.3.self_attn.key_cache").
  std::map<std::string, std::vector<int8_t>, std::less<>> edges;
  std::vector<WitnessPrompt> prompts;

  void save(const std::filesystem::path& file) const;
  // Throws Error if the file is missing or damaged.
  static Witness load(const std::filesystem::path& file);
};

// The witness entry of one row of logits.
WitnessPosition witness_position(std::span<const float> logits);

}  // namespace qat
