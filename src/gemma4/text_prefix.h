// Where the text model is among the tensors of a file.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "gemma4/weight_table.h"
#include "io/tensor_source.h"

namespace qat {

// What stands before the table's names: where a token table, in one of these names, stands beside a final norm.
std::optional<std::string> find_text_prefix(const TensorSource& source, std::initializer_list<std::string_view> tables);

// "model.language_model.layers.0.mlp.up_proj": a weight's module under a prefix. An untied head stands beside the text
// model: "lm_head", or "language_model.lm_head" beside "language_model.model."; `ending` is what its tensor ends with.
std::string module_in_file(const TensorSource& source, const std::string& prefix, const WeightSpec& weight,
                           std::string_view ending);

}  // namespace qat
