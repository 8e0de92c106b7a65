// A model folder whose masters lie on a 4-bit lattice already: fake quantizers with the scales of that lattice.
#pragma once

#include <map>
#include <string>

#include "fake_quant/recovered_scales.h"
#include "trainers/base_model.h"

namespace qat {

class LatticeRecovery {
 public:
  // Looks at every Q4_0 weight of the plan, which wants stored scales, in the type that the base's files have. Throws
  // Error (usage) for a plan without such weights. `base` must outlive this.
  explicit LatticeRecovery(const BaseModel& base);

  // What BaseModel::attach_fake_quant() gives, with the scales found here.
  FakeQuantSet attach_fake_quant(Gemma4Model& model, RowScaleMethod row_method) const;

  // A table with a row per weight: how many blocks were found exactly, with a rounded scale, or not; and what to make
  // of it.
  std::string describe() const;

 private:
  const BaseModel& base_;
  std::map<std::string, RecoveredScales, std::less<>> weights_;
};

}  // namespace qat
