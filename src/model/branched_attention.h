// Attention over packed documents some of which continue others: the choices of a question after its text.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <optional>
#include <span>

#include "model/attention.h"

namespace qat {

// As attention(), but by document `continued` may name one before it whose keys come before its own. reach.past is 0.
at::Tensor attention_of_branches(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                 const AttentionReach& reach, std::span<const std::optional<size_t>> continued,
                                 double scale);

}  // namespace qat
