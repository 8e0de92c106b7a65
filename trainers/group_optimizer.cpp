#include "trainers/group_optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <deque>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "model/absent_weight.h"

namespace qat {

namespace {

constexpr size_t kInFlight = 16;  // pieces of parameters that wait for other processes

at::Tensor flat(const TrainedWeight& weight) { return weight.parameter.detach().view(-1); }

at::Tensor values_of_piece(const WeightPiece& piece, const std::vector<TrainedWeight>& weights) {
  if (piece.weights.size() == 1) return flat(weights[piece.weights.front()]).narrow(0, piece.first, piece.count);
  std::vector<at::Tensor> parts;
  for (const size_t weight : piece.weights) parts.push_back(flat(weights[weight]));
  return at::cat(parts);
}

void unpack(const at::Tensor& values, const WeightPiece& piece, const std::vector<TrainedWeight>& weights) {
  int64_t first = 0;
  for (const size_t weight : piece.weights) {
    const int64_t count = weights[weight].parameter.numel();
    flat(weights[weight]).copy_(values.narrow(0, first, count));
    first += count;
  }
}

// The pieces of the weights that every process holds.
std::vector<WeightPiece> pieces_at_all(const WeightShares& shares, const std::vector<TrainedWeight>& weights) {
  std::vector<WeightPiece> pieces;
  for (WeightPiece piece : shares.pieces()) {
    for (const size_t weight : piece.weights) {
      if (weights[weight].is_sharded) piece.count -= weights[weight].parameter.numel();
    }
    std::erase_if(piece.weights, [&](size_t weight) { return weights[weight].is_sharded; });
    if (!piece.weights.empty()) pieces.push_back(std::move(piece));
  }
  return pieces;
}

}  // namespace

GroupOptimizer::GroupOptimizer(std::vector<TrainedWeight> weights, const TrainConfig& config, ProcessGroup& group)
    : Optimizer(std::move(weights)),
      group_(group),
      shares_(weights_, group.size()),
      sharded_(config.shards_states()),
      spread_(pieces_at_all(shares_, weights_)),
      index_(weights_.size()) {
  std::vector<TrainedWeight> own;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (sharded_ && shares_.owner(i) != group.rank()) continue;
    index_[i] = own.size();
    QAT_CHECK(!is_absent(weights_[i].parameter));
    own.push_back(weights_[i]);
  }
  inner_ = make_optimizer(std::move(own), config.optimizer, static_cast<uint64_t>(config.seed));
  state_bytes_ = inner_->state_bytes();
  if (sharded_) describe_to_first();
}

void GroupOptimizer::describe_to_first() {
  nlohmann::json mine = nlohmann::json::array();
  for (const StateArray& array : inner_->state_arrays()) {
    mine.push_back({{"name", array.name},
                    {"type", static_cast<int>(array.values.scalar_type())},
                    {"elements", array.values.numel()}});
  }
  for (const std::string& text : group_.at_first(mine.dump())) {
    std::vector<RemoteArray> arrays;
    for (const nlohmann::json& array : nlohmann::json::parse(text)) {
      arrays.push_back({array["name"], static_cast<at::ScalarType>(array["type"].get<int>()), array["elements"]});
    }
    remote_.push_back(std::move(arrays));
  }
  state_bytes_ = static_cast<uint64_t>(group_.sum({static_cast<double>(state_bytes_)}).front());
}

void GroupOptimizer::step(const std::vector<at::Tensor>& gradients, const UpdateRule& rule) {
  Optimizer::step(gradients, rule);
  if (sharded_) spread_parameters();
}

void GroupOptimizer::start_update(const UpdateRule& rule) {
  Optimizer::start_update(rule);
  inner_->start_update(rule);
}

void GroupOptimizer::update_weight(size_t index, const at::Tensor& gradient) {
  if (index_[index]) inner_->update_weight(*index_[index], gradient);
}

void GroupOptimizer::restored(int64_t steps_done) {
  inner_->restored(steps_done);
  steps_done_ = steps_done;
  if (sharded_) spread_parameters();
}

void GroupOptimizer::spread_parameters() {
  const at::NoGradGuard no_grad;
  std::deque<std::function<void()>> in_flight;
  const auto finish_until = [&](size_t most) {
    for (; in_flight.size() > most; in_flight.pop_front()) in_flight.front()();
  };
  for (const WeightPiece& piece : spread_) {
    if (piece.owner == group_.rank()) {
      const at::Tensor values = values_of_piece(piece, weights_);
      for (int64_t rank = 0; rank < group_.size(); ++rank) {
        if (rank != piece.owner) in_flight.emplace_back(group_.send(values, rank).wait);
      }
    } else if (piece.weights.size() == 1) {
      in_flight.emplace_back(group_.receive(values_of_piece(piece, weights_), piece.owner).wait);
    } else {
      const at::Tensor values = at::empty({piece.count}, weights_[piece.weights.front()].parameter.scalar_type());
      in_flight.emplace_back([this, &piece, values, arrival = group_.receive(values, piece.owner)] {
        arrival.wait();
        unpack(values, piece, weights_);
      });
    }
    finish_until(kInFlight);
  }
  finish_until(0);
}

void GroupOptimizer::write_state(const ArrayFunction& write) const {
  if (group_.is_first()) inner_->write_state(write);
  if (!sharded_) return;
  if (!group_.is_first()) {
    for (const StateArray& array : inner_->state_arrays()) group_.send(array.values, 0).wait();
    return;
  }
  for (size_t rank = 1; rank < remote_.size(); ++rank) {
    for (const RemoteArray& array : remote_[rank]) {
      const at::Tensor values = at::empty({array.elements}, array.type);
      group_.receive(values, static_cast<int64_t>(rank)).wait();
      write({array.name, values});
    }
  }
}

void GroupOptimizer::read_state(const ArrayFunction& read) {
  for (const StateArray& array : inner_->state_arrays()) {
    if (group_.is_first()) read(array);
    if (!sharded_) group_.copy_from_first(array.values);
    if (sharded_ && !group_.is_first()) group_.receive(array.values, 0).wait();
  }
  for (size_t rank = 1; rank < remote_.size(); ++rank) {
    for (const RemoteArray& array : remote_[rank]) {
      const at::Tensor values = at::empty({array.elements}, array.type);
      read({array.name, values});
      group_.send(values, static_cast<int64_t>(rank)).wait();
    }
  }
}

std::unique_ptr<Optimizer> make_run_optimizer(std::vector<TrainedWeight> weights, const TrainConfig& config,
                                              ProcessGroup& group) {
  if (group.size() > 1) return std::make_unique<GroupOptimizer>(std::move(weights), config, group);
  return make_optimizer(std::move(weights), config.optimizer, static_cast<uint64_t>(config.seed));
}

}  // namespace qat
