#include "trainers/lattice_recovery.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "eval/table.h"
#include "fake_quant/tensor_values.h"
#include "model/mapped_tensor.h"

namespace qat {

namespace {

std::vector<std::string> row_of(const std::string& name, const LatticeCounts& counts) {
  const double share = static_cast<double>(counts.exact) / static_cast<double>(counts.blocks());
  return {name, std::to_string(counts.blocks()), format_percent(share, 2), std::to_string(counts.rounded),
          std::to_string(counts.off)};
}

}  // namespace

LatticeRecovery::LatticeRecovery(const BaseModel& base) : base_(base) {
  const at::NoGradGuard no_grad;
  QAT_CHECK(base.folder() != nullptr && base.plan() != nullptr);
  for (const WeightSpec& weight : base.table().weights()) {
    const WeightPlan& rule = base.plan()->of(weight.name);
    if (rule.scheme != Scheme::Q4_0) continue;
    QAT_CHECK(rule.scales == ScaleSource::Stored);
    const TensorView& tensor = base.folder()->masters().of(weight);
    weights_.emplace(weight.name, recovered_block_scales(aligned_tensor(tensor)));
    base.folder()->tensors().release(tensor.bytes);
  }
  if (weights_.empty()) {
    fail_usage("the plan \"", base.plan()->name,
               "\" has no q4_0 weights, whose scales could be recovered; plans that "
               "have: gemma-qat configs list");
  }
}

FakeQuantSet LatticeRecovery::attach_fake_quant(Gemma4Model& model, RowScaleMethod row_method) const {
  KnownScales known;
  known.blocks = [this](const std::string& weight) {
    return values_of<const Float16>(weights_.find(weight)->second.scales);
  };
  known.row_method = row_method;
  return prepare(model, *base_.plan(), known);
}

std::string LatticeRecovery::describe() const {
  Table table{{"weight", "blocks", "recovered exactly", "scale rounded", "requantized"}, {}};
  LatticeCounts all;
  size_t strangers = 0;  // weights that never were on a lattice: those on one have nearly all of their blocks there
  for (const auto& [name, weight] : weights_) {
    table.rows.push_back(row_of(name, weight.counts));
    all += weight.counts;
    if (2 * weight.counts.off > weight.counts.blocks()) ++strangers;
  }
  table.rows.push_back(row_of("all", all));
  std::string text = format_table(table);
  if (all.rounded > 0) {
    text +=
        "scale rounded: on a lattice whose step is no fp16 number; codes are kept, values move by a BF16 step at "
        "most\n";
  }
  if (all.off > 0) {
    text += "requantized: on no lattice of codes -8..7; rounded to nearest under ggml's scale, as method rtn does\n";
  }
  if (strangers > 0) {
    text += join(strangers, " of ", weights_.size(),
                 " weights were not trained for q4_0 blocks; if they are tables, a plan "
                 "with another scheme for them loses less (q4_0-google), else method mse does\n");
  }
  return text;
}

}  // namespace qat
