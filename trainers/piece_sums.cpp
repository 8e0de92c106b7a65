#include "trainers/piece_sums.h"

#include <utility>

#include "core/error.h"
#include "trainers/collective_sums.h"
#include "trainers/device_links.h"
#include "trainers/host_sums.h"

namespace qat {

std::unique_ptr<PieceSums> make_piece_sums(const std::vector<TrainedWeight>& weights, const WeightShares& shares,
                                           ProcessGroup& group, bool owners_only) {
  const at::Device device = weights.front().parameter.device();
  if (auto links = connect_devices(group, device)) {
    return std::make_unique<CollectiveSums>(weights, shares, group, device, std::move(links));
  }
  return std::make_unique<HostSums>(weights, shares, group, owners_only);
}

int64_t elements_of(size_t weight, const WeightPiece& piece, const std::vector<TrainedWeight>& weights) {
  return piece.weights.size() == 1 ? piece.count : weights[weight].parameter.numel();
}

void fail_not_finite(int64_t step, const std::string& weight, const std::vector<size_t>& ranks) {
  if (ranks.empty()) {
    fail("step ", step, ": the sum over the processes of the gradient of ", weight,
         " is not finite; the weights were not updated. Lower optimizer.learning_rate");
  }
  std::string names = join(ranks.size() == 1 ? "rank " : "ranks ", ranks.front());
  for (size_t i = 1; i < ranks.size(); ++i) names += join(i + 1 == ranks.size() ? " and " : ", ", ranks[i]);
  fail("step ", step, ": the gradient of ", weight, " that ", names,
       " computed is not finite; the weights were not updated. Lower optimizer.learning_rate, or look at the ",
       "data of this step");
}

}  // namespace qat
