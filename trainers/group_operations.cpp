// What all processes of a group do together, made of messages between two: the first one collects and hands out.
#include <ATen/ops/from_blob.h>

#include <utility>

#include "trainers/distributed.h"

namespace qat {

std::vector<double> ProcessGroup::sum(std::vector<double> values) {
  if (size_ == 1 || values.empty()) return values;
  const auto as_tensor = [](std::vector<double>& numbers) {
    return at::from_blob(numbers.data(), {static_cast<int64_t>(numbers.size())}, at::kDouble);
  };
  if (!is_first()) {
    send(as_tensor(values), 0).wait();
    receive(as_tensor(values), 0).wait();
    return values;
  }
  std::vector<double> others(values.size());
  for (int64_t rank = 1; rank < size_; ++rank) {
    receive(as_tensor(others), rank).wait();
    for (size_t i = 0; i < values.size(); ++i) values[i] += others[i];
  }
  for (int64_t rank = 1; rank < size_; ++rank) send(as_tensor(values), rank).wait();
  return values;
}

bool ProcessGroup::any(bool mine) { return sum({mine ? 1.0 : 0.0}).front() > 0; }

std::string ProcessGroup::from_first(const std::string& text) {
  const auto length = static_cast<size_t>(sum({is_first() ? static_cast<double>(text.size()) : 0.0}).front());
  std::string result = is_first() ? text : std::string(length, ' ');
  copy_from_first(at::from_blob(result.data(), {static_cast<int64_t>(length)}, at::kByte));
  return result;
}

std::vector<std::string> ProcessGroup::at_first(const std::string& text) {
  const auto as_tensor = [](std::string& bytes) {
    return at::from_blob(bytes.data(), {static_cast<int64_t>(bytes.size())}, at::kByte);
  };
  std::vector<double> lengths(static_cast<size_t>(size_));
  lengths[static_cast<size_t>(rank_)] = static_cast<double>(text.size());
  lengths = sum(std::move(lengths));
  std::vector<std::string> texts;
  if (!is_first()) {
    std::string mine = text;
    if (!mine.empty()) send(as_tensor(mine), 0).wait();
    return texts;
  }
  texts.push_back(text);
  for (int64_t rank = 1; rank < size_; ++rank) {
    texts.emplace_back(static_cast<size_t>(lengths[static_cast<size_t>(rank)]), ' ');
    if (!texts.back().empty()) receive(as_tensor(texts.back()), rank).wait();
  }
  return texts;
}

void ProcessGroup::copy_from_first(const at::Tensor& tensor) {
  if (size_ == 1 || tensor.numel() == 0) return;
  if (!is_first()) receive(tensor, 0).wait();
  for (int64_t rank = 1; is_first() && rank < size_; ++rank) send(tensor, rank).wait();
}

}  // namespace qat
