// The processes that train together: those that torchrun started, or this one alone. Knows no gradients and no weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace c10d {
class Store;
}

namespace qat {

// A message that another process sends or gets while this one goes on.
struct Transfer {
  // Returns when the message has left or arrived. Throws Error naming the other process if the connection breaks.
  std::function<void()> wait;
};

class ProcessGroup {
 public:
  // Of this process alone: every operation leaves what it is given as it is.
  ProcessGroup() = default;
  // The group that torchrun's environment variables describe (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT); this process
  // alone where they are not set. Throws Error (usage) for values that make no sense, and Error naming address, port
  // and the processes that did not come within `patience`.
  static ProcessGroup from_environment(std::chrono::seconds patience = std::chrono::seconds(60));

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  // The process that alone writes the run folder and speaks to people.
  bool is_first() const { return rank_ == 0; }
  // How many processes of the group run on this machine, and which of them this is.
  int64_t local_size() const { return local_size_; }
  int64_t local_rank() const { return local_rank_; }

  // Runs what all processes of the group run. An exception on one of them ends all within half a minute, and so does a
  // process that was killed: one of them prints one message that names the rank, and none of them returns. Alone, the
  // exception leaves this call.
  int run(const std::function<int()>& body);

  // The same processes over connections of their own: its messages have no order with those of this group, so that
  // another thread may send them. All call it.
  ProcessGroup beside() const;

  // Keys and values that all processes of the group see, for those who make connections of their own. Not alone.
  c10::intrusive_ptr<c10d::Store> store(const std::string& prefix) const;

  // Messages between two processes arrive in the order in which both name them. The tensor is contiguous, of equal type
  // and size on both sides, on the CPU or a device, and stays alive until it has arrived.
  Transfer send(const at::Tensor& tensor, int64_t to);
  Transfer receive(const at::Tensor& tensor, int64_t from);

  // What follows, all processes call at the same time.
  // Sums of each value over the processes, added in the order of ranks: the same bits everywhere.
  std::vector<double> sum(std::vector<double> values);
  bool any(bool mine);
  // The text that the first process gave.
  std::string from_first(const std::string& text);
  // The texts that all gave, by rank, at the first process; nothing at the others.
  std::vector<std::string> at_first(const std::string& text);
  // The first process's values, of a contiguous tensor of equal type and size everywhere, on all.
  void copy_from_first(const at::Tensor& tensor);

 private:
  class Links;

  [[noreturn]] void end_all(const std::string& message, int exit_code);

  int64_t rank_ = 0;
  int64_t size_ = 1;
  int64_t local_size_ = 1;
  int64_t local_rank_ = 0;
  std::shared_ptr<Links> links_;  // none alone
  size_t connections_ = 0;        // which of the links' sets of connections
};

}  // namespace qat
