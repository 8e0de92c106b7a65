// Fake quantization of one weight in a block scheme: the forward pass reads bf16(decode(encode(bf16(master)))). The
// gradient passes straight through, but under learned scales, which clip: there values outside the code range get none.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "core/float_types.h"
#include "fake_quant/keep.h"
#include "fake_quant/learned_scale.h"
#include "fake_quant/weight_sample.h"
#include "gemma4/quant_plan.h"
#include "gemma4/witness.h"
#include "model/projection.h"

namespace qat {

// How the scales of Q4_0 blocks come about.
enum class BlockScaleMethod {
  Rule,      // from the master by ggml's rule
  Searched,  // from the master, of least squared error (quant/block_scales.h); anew whenever it is quantized
  Learned    // found by search once, learned from there on
};

class WeightFakeQuantizer final : public WeightTransform {
 public:
  // `stored_scales` is empty (the scheme's rule) or holds one fp16 per block of the weight, row-major. `device`: the
  // weight's.
  WeightFakeQuantizer(std::string name, Scheme scheme, std::span<const Float16> stored_scales,
                      at::Device device = at::kCPU);

  // Q4_0 only, before the first use: other scales than those.
  void search_scales();
  // `start`: fp16 [blocks]. A scale of 0 starts at 2^-14, so that its block can leave zero. `given`: by a checkpoint.
  void learn_scales(const at::Tensor& start, bool given);

  at::Tensor apply(const at::Tensor& master) override;
  at::Tensor apply_rows(const at::Tensor& values, const at::Tensor& rows) override;
  void forget() override { kept_ = at::Tensor(); }

  void set_enabled(bool enabled) { enabled_ = enabled; }
  bool is_enabled() const { return enabled_; }
  // At first Keep::Values: micro-batches and the two uses of a tied table share the forward value of the whole weight.
  void set_keep(Keep keep);
  // To call when master or scales moved: drops what was kept since the last apply().
  void changed();
  // Whether apply() reads nothing of the master but its codes: where these are kept, and scales do not learn.
  bool computes_from_codes() const { return enabled_ && keep_ == Keep::Codes && !learned_; }
  // Those codes, bytes [QuantScheme::row_bytes]; kept from here on. And the same from elsewhere, until forget().
  const at::Tensor& codes_of(const at::Tensor& master);
  void give_codes(const at::Tensor& codes) { kept_ = codes; }
  Scheme scheme_id() const { return scheme_; }
  bool has_fired() const { return fired_; }
  const std::string& name() const { return name_; }

  // Null where scales do not learn.
  LearnedScale* learned_scale() { return learned_ ? &*learned_ : nullptr; }
  // Whether stored_scales() reads the master's values.
  bool searches_scales() const { return searches_; }
  // What a checkpoint of this master stores, fp16 [blocks]; undefined under the scheme's rule.
  at::Tensor stored_scales(const at::Tensor& master) const { return scales_of(master, 0); }

  // Digests of codes and scales of a master, encoded on the CPU in bounded pieces; `values` is left empty.
  WeightDigest digest(const at::Tensor& master) const;
  WeightSample sample(const at::Tensor& master) const;

 private:
  // The scales of a part of the master that begins with this block.
  at::Tensor scales_of(const at::Tensor& part, int64_t first_block) const;
  at::Tensor forward_value(const at::Tensor& master);

  std::string name_;
  Scheme scheme_;
  bool searches_ = false;
  at::Tensor scales_;  // fp16 [blocks], stored or learned; undefined where they follow from the master
  std::optional<LearnedScale> learned_;
  bool enabled_ = true;
  bool fired_ = false;
  Keep keep_ = Keep::Values;
  at::Tensor kept_;  // the forward value or the blocks of the whole weight
};

}  // namespace qat
