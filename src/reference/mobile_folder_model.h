// A folder of transformers' mobile format as a source of weights.
#pragma once

#include <string>

#include "gemma4/mobile_folder.h"
#include "reference/reference_weights.h"

namespace qat {

class MobileFolderModel final : public ReferenceWeights {
 public:
  // `folder` must outlive this.
  explicit MobileFolderModel(const MobileFolder& folder);

  const Gemma4Config& config() const override { return folder_.config(); }
  const std::string& where() const override { return where_; }
  std::vector<float> vector(std::string_view name) const override;
  CacheScales cache_scales(int64_t layer) const override;

 private:
  const MobileFolder& folder_;
  std::string where_;
};

}  // namespace qat
