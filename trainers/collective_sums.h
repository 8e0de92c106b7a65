// Pieces are added where they lie, by all-reduce operations of a c10d backend: NCCL between GPUs. The backend chooses
// the order of the additions; all processes get the same bits.
#pragma once

#include <deque>

#include "trainers/piece_sums.h"

namespace c10d {
class Backend;
}

namespace qat {

class CollectiveSums final : public PieceSums {
 public:
  // `links` join the processes of `group` and add tensors of `device`. `weights`, `shares` and `group` outlive this.
  CollectiveSums(const std::vector<TrainedWeight>& weights, const WeightShares& shares, ProcessGroup& group,
                 at::Device device, std::shared_ptr<c10d::Backend> links);

  at::Device device() const override { return device_; }
  void start(int64_t step) override;
  void add(const Parcel& parcel) override;
  std::vector<double> finish() override;

 private:
  void measure(const Parcel& parcel);
  void keep(size_t most);
  [[noreturn]] void explain(size_t piece);

  const std::vector<TrainedWeight>& weights_;
  const WeightShares& shares_;
  ProcessGroup& group_;
  at::Device device_;
  std::shared_ptr<c10d::Backend> links_;

  // Of the present step.
  int64_t step_ = 0;
  std::vector<at::Tensor> sums_;  // per piece, at its owner
  // Per piece and weight in it: the largest magnitude of this process's own share.
  std::vector<std::vector<at::Tensor>> peaks_;
  std::deque<Transfer> in_flight_;
};

}  // namespace qat
