#include "trainers/weight_shares.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace qat {

namespace {

constexpr int64_t kPieceElements = int64_t{1} << 22;
constexpr int64_t kSmallElements = int64_t{1} << 16;  // from here on a weight travels alone

}  // namespace

std::vector<int64_t> balanced_owners(const std::vector<int64_t>& sizes, std::vector<int64_t>& load) {
  std::vector<size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sizes[a] > sizes[b]; });
  std::vector<int64_t> owners(sizes.size());
  for (const size_t index : order) {
    const auto lightest = std::min_element(load.begin(), load.end());
    *lightest += sizes[index];
    owners[index] = lightest - load.begin();
  }
  return owners;
}

WeightShares::WeightShares(const std::vector<TrainedWeight>& weights, int64_t processes) : owners_(weights.size()) {
  std::vector<int64_t> load(static_cast<size_t>(processes));
  for (const bool that_stay_float : {false, true}) {
    std::vector<size_t> chosen;
    std::vector<int64_t> sizes;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (weights[i].stays_float() != that_stay_float) continue;
      chosen.push_back(i);
      sizes.push_back(weights[i].parameter.numel());
    }
    const std::vector<int64_t> owners = balanced_owners(sizes, load);
    for (size_t i = 0; i < chosen.size(); ++i) owners_[chosen[i]] = owners[i];
  }
  cut(weights, processes);
}

void WeightShares::cut(const std::vector<TrainedWeight>& weights, int64_t processes) {
  // Small weights wait for others of the same owner and type.
  std::vector<WeightPiece> waiting(static_cast<size_t>(processes));
  const auto close = [&](WeightPiece& piece) {
    if (!piece.weights.empty()) pieces_.push_back(std::exchange(piece, {}));
  };
  for (size_t weight = weights.size(); weight-- > 0;) {
    const int64_t elements = weights[weight].parameter.numel();
    if (elements >= kSmallElements) {
      for (int64_t first = 0; first < elements; first += kPieceElements) {
        pieces_.push_back({owners_[weight], {weight}, first, std::min(kPieceElements, elements - first)});
      }
      continue;
    }
    WeightPiece& piece = waiting[static_cast<size_t>(owners_[weight])];
    const auto type = [&](size_t index) { return weights[index].parameter.scalar_type(); };
    if (!piece.weights.empty() && type(piece.weights.front()) != type(weight)) close(piece);
    piece.owner = owners_[weight];
    piece.weights.push_back(weight);
    piece.count += elements;
    if (piece.count >= kSmallElements) close(piece);
  }
  for (WeightPiece& piece : waiting) close(piece);
}

}  // namespace qat
