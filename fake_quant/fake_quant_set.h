// The fake quantizers of one model: switched together, calibrated together, accounted for together.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fake_quant/keep.h"
#include "fake_quant/key_value_fake_quantizer.h"
#include "fake_quant/row_weight_fake_quantizer.h"
#include "fake_quant/static_fake_quantizer.h"
#include "fake_quant/weight_fake_quantizer.h"
#include "gemma4/static_scales.h"
#include "gemma4/witness.h"
#include "model/gemma4_model.h"

namespace qat {

// What is quantized at a time. Training may start with weights and add the others later.
struct QuantizedParts {
  bool weights = true;
  bool activations = true;
  bool caches = true;

  static QuantizedParts none() { return {false, false, false}; }
  bool operator==(const QuantizedParts&) const = default;
};

// How the scale of a static edge follows from what calibration saw.
struct CalibrationRule {
  enum class Kind { LeastError, Percentile, Maximum };
  Kind kind = Kind::LeastError;
  double percentile = 99.99;
};

// What calibration found at one edge.
struct CalibratedEdge {
  std::string name;
  float scale = 0;
  float largest = 0;  // magnitude seen, documents' first tokens left out
  float largest_at_first =
      0;  // magnitude seen at documents' first tokens, where activations spike (qat_methods.md 3.5)
};

struct NamedStatistics {
  std::string name;
  QuantizationStatistics statistics;
  std::vector<int8_t> codes;  // of a sample of a weight that learns; empty for others
};

// An edge of static int8: an input that several linears may share, an output, or a layer's cached keys or values.
struct StaticEdge {
  enum class Kind { Input, Output, KeyCache, ValueCache };
  Kind kind;
  std::vector<std::string> weights;  // of inputs and outputs, by WeightTable name
  int64_t layer = -1;                // of caches
  int64_t width = 0;                 // values per token
  std::shared_ptr<StaticFakeQuantizer> quantizer;

  bool is_cache() const { return kind == Kind::KeyCache || kind == Kind::ValueCache; }
};

// A layer's keys and values in llama.cpp's q8_0 cache.
struct BlockCache {
  int64_t layer;
  std::shared_ptr<KeyValueFakeQuantizer> key;
  std::shared_ptr<KeyValueFakeQuantizer> value;
};

class FakeQuantSet {
 public:
  FakeQuantSet() = default;
  FakeQuantSet(FakeQuantSet&&) noexcept = default;
  FakeQuantSet& operator=(FakeQuantSet&&) noexcept = default;

  bool empty() const { return weights.empty() && row_weights.empty() && edges.empty() && block_caches.empty(); }
  // Off means that the model computes with its masters and whole activations.
  void enable(QuantizedParts parts);
  QuantizedParts enabled() const { return enabled_; }
  // What weights keep between uses; at first their forward values.
  void keep(Keep kept);
  // A head that no training changes keeps its forward value whatever keep() says, in a file of this folder without a
  // name: the loss needs all of it for a whole pass. On another device than the CPU, whose memory is no file, nothing
  // changes. To call when it is settled what learns, and scales are found.
  void keep_frozen_head_in(const std::filesystem::path& folder);
  // To call after masters or scales changed: what was kept is dropped.
  void changed();
  // The same after an optimizer step, which moves only what learns: frozen weights keep their values.
  void learned_weights_changed();
  // Throws Error naming every enabled quantizer that was never used in a forward pass.
  void check_all_fired() const;

  // SHA-256 of the codes and scales of every quantized weight, from the encoder that the forward pass uses. Whole
  // tables are streamed in bounded pieces.
  std::map<std::string, WeightDigest, std::less<>> digests() const;

  // Scales of rows as a checkpoint stores them, by weight; on the CPU.
  std::map<std::string, at::Tensor, std::less<>> row_scales() const;
  // The same of blocks whose scales do not follow the scheme's rule, fp16.
  std::map<std::string, at::Tensor, std::less<>> block_scales() const;
  // Every scale that is a free number: of learned blocks, rows, edges and integer caches.
  std::vector<LearnedScale*> scales();
  StaticScales static_scales() const;

  // Finds the scales of rows and of learned blocks again that no checkpoint gave, from the masters as they are now.
  void find_weight_scales(RowScaleMethod method);

  // Edges without a scale.
  bool needs_calibration() const;
  // While observing, activations pass unquantized and are counted. `first_rows`: rows of the next forward passes that
  // hold documents' first tokens; may change between passes.
  void start_calibration(const at::Tensor* first_rows);
  // Sets the scales of edges in `parts` that nobody gave, and returns all edges. Throws Error naming every edge that
  // saw no data, or nothing but zeros.
  std::vector<CalibratedEdge> finish_calibration(const CalibrationRule& rule, QuantizedParts parts);

  // Clipping and noise of edges in the forward passes until stop, then of weights as they are.
  void start_statistics();
  std::vector<NamedStatistics> stop_statistics();

  Gemma4Model* model = nullptr;
  std::vector<std::shared_ptr<WeightFakeQuantizer>> weights;
  std::vector<std::shared_ptr<RowWeightFakeQuantizer>> row_weights;
  std::vector<StaticEdge> edges;
  std::vector<BlockCache> block_caches;

 private:
  QuantizedParts enabled_;
  std::vector<NamedStatistics> statistics_;
};

}  // namespace qat
