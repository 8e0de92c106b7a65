// Pieces travel to the process that owns them, which adds them on the CPU in fp32 in the order of ranks. So the sums
// have the same bits wherever they are wanted, at all processes or at the owners alone, and every time.
#pragma once

#include <deque>

#include "trainers/background_queue.h"
#include "trainers/piece_sums.h"

namespace qat {

class HostSums final : public PieceSums {
 public:
  // With `owners_only` a sum arrives at the owner of its weight and nowhere else. `weights`, `shares` and `group`
  // outlive this.
  HostSums(const std::vector<TrainedWeight>& weights, const WeightShares& shares, ProcessGroup& group,
           bool owners_only);

  at::Device device() const override { return at::kCPU; }
  void start(int64_t step) override;
  void add(const Parcel& parcel) override;
  std::vector<double> finish() override;

 private:
  void exchange(const Parcel& parcel);
  void add_up(const Parcel& parcel, const std::vector<at::Tensor>& shares);
  [[noreturn]] void explain(const WeightPiece& piece, const std::vector<at::Tensor>& shares) const;
  void keep(Transfer transfer, size_t most);

  const std::vector<TrainedWeight>& weights_;
  const WeightShares& shares_;
  ProcessGroup& group_;
  bool owners_only_;
  int64_t step_ = 0;
  std::vector<double> squares_;     // of the sums, per piece, at its owner
  std::deque<Transfer> in_flight_;  // of the queue's thread
  BackgroundQueue queue_;
};

}  // namespace qat
