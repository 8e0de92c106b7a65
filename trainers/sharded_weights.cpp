#include "trainers/sharded_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "fake_quant/weight_fake_quantizer.h"
#include "model/absent_weight.h"
#include "trainers/run_checks.h"
#include "trainers/weight_shares.h"

namespace qat {

namespace {

constexpr int64_t kPieceBytes = int64_t{8} << 20;
constexpr int64_t kNothingMore = -1;  // in place of the index of a weight

void for_pieces(const at::Tensor& flat, const std::function<void(const at::Tensor&)>& visit) {
  const int64_t step = kPieceBytes / static_cast<int64_t>(flat.element_size());
  for (int64_t first = 0; first < flat.numel(); first += step) {
    visit(flat.narrow(0, first, std::min(step, flat.numel() - first)));
  }
}

bool is_layer_matrix(const WeightSpec& weight) { return weight.layer.has_value() && is_matrix(weight.role); }

std::map<std::string, int64_t, std::less<>> owners_of(const BaseModel& base, const std::vector<std::string>& unchanged,
                                                      int64_t processes) {
  std::vector<const WeightSpec*> trained;
  std::vector<int64_t> sizes;
  for (const WeightSpec& weight : base.table().weights()) {
    if (std::find(unchanged.begin(), unchanged.end(), weight.name) != unchanged.end()) continue;
    trained.push_back(&weight);
    sizes.push_back(weight.elements());
  }
  std::vector<int64_t> load(static_cast<size_t>(processes));
  const std::vector<int64_t> owners = balanced_owners(sizes, load);
  std::map<std::string, int64_t, std::less<>> result;
  for (size_t i = 0; i < trained.size(); ++i) {
    if (is_layer_matrix(*trained[i])) result.emplace(trained[i]->name, owners[i]);
  }
  return result;
}

}  // namespace

// One weight, and what of it travels.
class ShardedWeights::Weight final : public WeightLender {
 public:
  Weight(ShardedWeights& all, size_t index, Projection& projection, int64_t owner)
      : all_(all), index_(index), projection_(projection), owner_(owner) {}

  std::unique_ptr<WeightLoan> lend_master() override;
  std::unique_ptr<WeightLoan> lend_for_product() override;

  bool is_here() const { return owner_ == all_.rank_; }
  // The numbers to send, or their place.
  at::Tensor at_owner(bool as_codes) const {
    const at::Tensor weight = projection_.weight.detach();
    return (as_codes ? block_quantizer()->codes_of(weight) : weight.to(at::kBFloat16)).view(-1);
  }
  at::Tensor place(bool as_codes) const {
    const at::Tensor weight = projection_.weight.detach();
    if (as_codes) return at::empty({scheme(block_quantizer()->scheme_id()).row_bytes(weight.numel())}, at::kByte);
    give_memory(weight);
    return weight.scalar_type() == at::kBFloat16 ? weight.view(-1) : at::empty({weight.numel()}, at::kBFloat16);
  }
  // At a process that is not the owner.
  void use(const at::Tensor& arrived, bool as_codes) const {
    const at::Tensor weight = projection_.weight.detach();
    if (as_codes) {
      block_quantizer()->give_codes(arrived);
    } else if (weight.scalar_type() != at::kBFloat16) {
      weight.copy_(arrived.view(weight.sizes()));  // BF16 numbers in the owner's, too
    }
  }
  void drop() const {
    if (!is_absent(projection_.weight)) take_memory(projection_.weight);
    if (projection_.weight_transform) projection_.weight_transform->forget();
  }

  ShardedWeights& all() const { return all_; }
  size_t index() const { return index_; }
  int64_t owner() const { return owner_; }

 private:
  // Null unless the plan has a block scheme for the weight.
  WeightFakeQuantizer* block_quantizer() const {
    return dynamic_cast<WeightFakeQuantizer*>(projection_.weight_transform.get());
  }

  ShardedWeights& all_;
  size_t index_;
  Projection& projection_;
  int64_t owner_;
};

class ShardedWeights::Loan final : public WeightLoan {
 public:
  Loan(const Weight& weight, bool as_codes) : weight_(weight), as_codes_(as_codes) {
    ShardedWeights& all = weight.all();
    ProcessGroup& others = all.connections_;
    if (!weight.is_here()) {
      if (all.first_is_alone_) all.ask(weight, as_codes);
      place_ = weight.place(as_codes);
      for_pieces(place_, [&](const at::Tensor& piece) { under_way_.push_back(others.receive(piece, weight.owner())); });
    } else if (!all.first_is_alone_) {
      for_pieces(weight.at_owner(as_codes), [&](const at::Tensor& piece) {
        for (int64_t rank = 0; rank < others.size(); ++rank) {
          if (rank != all.rank_) under_way_.push_back(others.send(piece, rank));
        }
      });
    }
  }
  // The owner's numbers may change from here on, so that they must have left.
  ~Loan() override {
    try {
      finish();
    } catch (const std::exception&) {
      // The connection is gone, as the next use of it says where it can be said.
    }
    if (!weight_.is_here()) weight_.drop();
  }
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;

  void arrive() override {
    if (weight_.is_here()) return;
    finish();
    weight_.use(std::exchange(place_, {}), as_codes_);
  }

 private:
  void finish() {
    for (const Transfer& transfer : std::exchange(under_way_, {})) transfer.wait();
  }

  const Weight& weight_;
  bool as_codes_;
  at::Tensor place_;
  std::vector<Transfer> under_way_;
};

std::unique_ptr<WeightLoan> ShardedWeights::Weight::lend_master() {
  return std::make_unique<Loan>(*this, /*as_codes=*/false);
}

std::unique_ptr<WeightLoan> ShardedWeights::Weight::lend_for_product() {
  const WeightFakeQuantizer* quantizer = block_quantizer();
  return std::make_unique<Loan>(*this, quantizer != nullptr && quantizer->computes_from_codes());
}

ShardedWeights::ShardedWeights(const TrainConfig& config, const BaseModel& base,
                               const std::vector<std::string>& unchanged, const ProcessGroup& group)
    : rank_(group.rank()) {
  if (!config.shards_parameters() || group.size() == 1) return;
  connections_ = group.beside();
  owners_ = owners_of(base, unchanged, group.size());
}

ShardedWeights::~ShardedWeights() = default;

void ShardedWeights::take(const WeightSpec& weight, Projection& projection, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const int64_t owner = owners_.at(weight.name);
  checksum_ += sum_of_bits(projection.weight);
  projection.weight = owner == rank_ ? projection.weight.to(dtype, /*non_blocking=*/false, /*copy=*/true)
                                     : absent_weight(weight.shape, dtype);
  weights_.push_back(std::make_shared<Weight>(*this, weights_.size(), projection, owner));
  projection.lender = weights_.back();
}

void ShardedWeights::for_first(const std::function<void()>& work) {
  if (rank_ != 0) {
    serve_first();
    return;
  }
  first_is_alone_ = true;
  work();
  first_is_alone_ = false;
  if (weights_.empty()) return;
  for (int64_t rank = 1; rank < connections_.size(); ++rank) tell(rank, kNothingMore, false);
}

void ShardedWeights::serve_first() {
  const at::Tensor request = at::empty({2}, at::kLong);
  while (!weights_.empty()) {
    connections_.receive(request, 0).wait();
    const auto index = request[0].item<int64_t>();
    if (index == kNothingMore) return;
    for_pieces(weights_.at(static_cast<size_t>(index))->at_owner(request[1].item<int64_t>() != 0),
               [&](const at::Tensor& piece) { connections_.send(piece, 0).wait(); });
  }
}

void ShardedWeights::ask(const Weight& weight, bool as_codes) {
  tell(weight.owner(), static_cast<int64_t>(weight.index()), as_codes);
}

void ShardedWeights::tell(int64_t rank, int64_t index, bool as_codes) {
  connections_.send(at::tensor({index, as_codes ? int64_t{1} : int64_t{0}}, at::kLong), rank).wait();
}

}  // namespace qat
