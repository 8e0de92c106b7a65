#include "quant/scheme.h"

#include <array>
#include <vector>

#include "core/comma_list.h"
#include "core/error.h"
#include "core/json.h"

namespace qat {

namespace {

constexpr std::array kSchemes{
    QuantScheme{Scheme::F32, "f32", 0, 1, 4, 0, 0, ScaleRule::None, Granularity::None, false},
    QuantScheme{Scheme::F16, "f16", 1, 1, 2, 0, 0, ScaleRule::None, Granularity::None, false},
    QuantScheme{Scheme::BF16, "bf16", 30, 1, 2, 0, 0, ScaleRule::None, Granularity::None, false},
    QuantScheme{Scheme::Q4_0, "q4_0", 2, 32, 18, -8, 7, ScaleRule::SignedExtremum, Granularity::Block, true},
    QuantScheme{Scheme::Q8_0, "q8_0", 8, 32, 34, -127, 127, ScaleRule::AbsoluteMax, Granularity::Block, false},
    QuantScheme{Scheme::Q6_K, "q6_k", 14, 256, 210, -32, 31, ScaleRule::SearchedTwoLevel, Granularity::Block, false},
    QuantScheme{Scheme::Int2, "int2", -1, 4, 1, -2, 1, ScaleRule::Free, Granularity::Row, true},
    QuantScheme{Scheme::Int4, "int4", -1, 2, 1, -8, 7, ScaleRule::Free, Granularity::Row, true},
    QuantScheme{Scheme::Int8, "int8", -1, 1, 1, -128, 127, ScaleRule::Free, Granularity::Row, true},
};

}  // namespace

std::span<const QuantScheme> all_schemes() { return kSchemes; }

const QuantScheme& scheme(Scheme id) {
  for (const QuantScheme& candidate : kSchemes) {
    if (candidate.id == id) return candidate;
  }
  QAT_CHECK(false);
  return kSchemes[0];
}

const QuantScheme& scheme_by_name(std::string_view name) {
  std::vector<std::string> names;
  for (const QuantScheme& candidate : kSchemes) {
    if (candidate.name == name) return candidate;
    names.emplace_back(candidate.name);
  }
  const auto nearest = nearest_name(name, names);
  fail_usage("\"", name, "\": no such quantization scheme", nearest ? "; did you mean \"" + *nearest + "\"?" : "",
             " (known: ", comma_list(names), ")");
}

const QuantScheme& scheme_by_gguf_type(int gguf_type, const std::string& where) {
  for (const QuantScheme& candidate : kSchemes) {
    if (candidate.gguf_type >= 0 && candidate.gguf_type == gguf_type) return candidate;
  }
  fail(where, ": ggml tensor type ", gguf_type, " is not supported (supported: F32, F16, BF16, Q4_0, Q8_0, Q6_K)");
}

}  // namespace qat
