#include "reference/mobile_folder_model.h"

#include "core/error.h"

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

const WeightView& MobileFolderModel::weight(std::string_view name) const {
  const auto found = weights_.find(name);
  QAT_CHECK(found != weights_.end());
  return found->second;
}

std::vector<float> MobileFolderModel::vector(std::string_view name) const {
  const WeightView& view = weight(name);
  std::vector<float> values(static_cast<size_t>(view.rows() * view.columns()));
  decode_rows(view, 0, view.rows(), values);
  const auto offset = static_cast<float>(folder_.config().norm_offset);
  if (offset != 0 && folder_.table().find(name)->role == WeightRole::Norm) {
    for (float& value : values) value += offset;
  }
  return values;
}

CacheScales MobileFolderModel::cache_scales(int64_t layer) const {
  const auto& caches = folder_.static_scales().caches;
  const auto found = caches.find(layer);
  return found == caches.end() ? CacheScales{} : found->second;
}

}  // namespace qat
