// One optimizer for a group of processes. Whether all of them keep its whole state, or each that of the weights it
// owns, changes no bit of a weight.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "trainers/distributed.h"
#include "trainers/optimizer.h"
#include "trainers/weight_shares.h"

namespace qat {

class GroupOptimizer final : public Optimizer {
 public:
  // The optimizer that `config.optimizer` names; with sharding = states or parameters of a process's own weights only:
  // masters and moments live at the owner, which sends to all the new parameters that are not sharded. `group` must
  // outlive this.
  GroupOptimizer(std::vector<TrainedWeight> weights, const TrainConfig& config, ProcessGroup& group);

  // Gradients of weights that this process does not update may be undefined.
  void step(const std::vector<at::Tensor>& gradients, const UpdateRule& rule) override;
  void start_update(const UpdateRule& rule) override;
  void update_weight(size_t index, const at::Tensor& gradient) override;
  std::vector<StateArray> state_arrays() const override { return inner_->state_arrays(); }
  void restored(int64_t steps_done) override;
  // The state in the file is that of one process, so that any number of them goes on from it.
  void write_state(const ArrayFunction& write) const override;
  void read_state(const ArrayFunction& read) override;
  uint64_t state_bytes() const override { return state_bytes_; }

 private:
  struct RemoteArray {
    std::string name;
    at::ScalarType type;
    int64_t elements;
  };

  void describe_to_first();
  void spread_parameters();

  ProcessGroup& group_;
  WeightShares shares_;
  bool sharded_;
  std::vector<WeightPiece> spread_;           // what goes from its owner to all after an update
  std::vector<std::optional<size_t>> index_;  // of a weight in inner_, if that updates it
  std::unique_ptr<Optimizer> inner_;
  std::vector<std::vector<RemoteArray>> remote_;  // at the first process, with sharding: of each other rank
  uint64_t state_bytes_ = 0;
};

// The optimizer of a run: make_optimizer()'s alone, a GroupOptimizer in a group.
std::unique_ptr<Optimizer> make_run_optimizer(std::vector<TrainedWeight> weights, const TrainConfig& config,
                                              ProcessGroup& group);

}  // namespace qat
