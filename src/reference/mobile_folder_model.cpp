#include "reference/mobile_folder_model.h"

namespace qat {

MobileFolderModel::MobileFolderModel(const MobileFolder& folder) : folder_(folder), where_(folder.path().string()) {
  for (const WeightSpec& spec : folder.table().weights()) {
    const MobileWeight& weight = folder.weight(spec.name);
    WeightView& view = weights_[spec.name];
    view = {weight.scheme, spec.shape, weight.bytes, spec.name, CodeBytes::Offset};
    view.scales = weight.scales;
    view.scale_width = spec.scale_width;
    view.edges = weight.edges;
  }
}

std::vector<float> MobileFolderModel::vector(std::string_view name) const {
  std::vector<float> values = ReferenceWeights::vector(name);
  const auto offset = static_cast<float>(folder_.config().norm_offset);
  if (offset != 0 && folder_.table().find(name)->role == WeightRole::Norm) {
    for (float& value : values) value += offset;
  }
  return values;
}

CacheScales MobileFolderModel::cache_scales(int64_t layer) const { return folder_.static_scales().of_cache(layer); }

}  // namespace qat
