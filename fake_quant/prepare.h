// Attaches fake quantization to a model as a plan says, and keeps account of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/float_types.h"
#include "gemma4/quant_plan.h"
#include "gemma4/witness.h"
#include "model/gemma4_model.h"

namespace qat {

class WeightFakeQuantizer;
class KeyValueFakeQuantizer;

// The fake quantizers of one model. The model must outlive it.
class FakeQuantSet {
 public:
  FakeQuantSet();
  ~FakeQuantSet();
  FakeQuantSet(FakeQuantSet&&) noexcept;
  FakeQuantSet& operator=(FakeQuantSet&&) noexcept;

  bool empty() const;
  // Switches all of them; off means the model computes with its masters (delayed start, --plain).
  void set_enabled(bool enabled);
  bool enabled() const;
  // To call after masters changed (an optimizer step): cached forward values are dropped.
  void masters_changed();
  // Throws Error naming every quantizer that was never used in a forward pass.
  void check_all_fired() const;
  // SHA-256 of the codes and scales of every quantized weight, from the encoder that the forward pass uses. Whole
  // tables are streamed in bounded pieces.
  std::map<std::string, WeightDigest, std::less<>> digests() const;

 private:
  friend class CacheRecording;
  friend FakeQuantSet prepare(Gemma4Model&, const ResolvedPlan&,
                              const std::function<std::span<const Float16>(const std::string&)>&);
  struct State;
  std::unique_ptr<State> state_;
};

// Fills the weight slots of every quantized weight, and the key and value slots if the plan quantizes the cache.
// `stored_scales` gives the scales (one fp16 per block) of weights whose plan says `stored`.
FakeQuantSet prepare(Gemma4Model& model, const ResolvedPlan& plan,
                     const std::function<std::span<const Float16>(const std::string&)>& stored_scales);

// Runs the model on the prompts (each cut to kWitnessPositions tokens) and records logits and digests. The model should
// be in Float mode: witness logits have fp32 activations.
Witness make_witness(const Gemma4Model& model, const FakeQuantSet& fake_quant,
                     const std::vector<std::vector<int32_t>>& prompts);

}  // namespace qat
