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

// ggml's other tensor types, for messages (enum ggml_type of ggml.h).
struct ForeignType {
  int gguf_type;
  std::string_view name;
};
constexpr std::array kForeignTypes{
    ForeignType{3, "Q4_1"},    ForeignType{6, "Q5_0"},     ForeignType{7, "Q5_1"},    ForeignType{9, "Q8_1"},
    ForeignType{10, "Q2_K"},   ForeignType{11, "Q3_K"},    ForeignType{12, "Q4_K"},   ForeignType{13, "Q5_K"},
    ForeignType{15, "Q8_K"},   ForeignType{16, "IQ2_XXS"}, ForeignType{17, "IQ2_XS"}, ForeignType{18, "IQ3_XXS"},
    ForeignType{19, "IQ1_S"},  ForeignType{20, "IQ4_NL"},  ForeignType{21, "IQ3_S"},  ForeignType{22, "IQ2_S"},
    ForeignType{23, "IQ4_XS"}, ForeignType{24, "I8"},      ForeignType{25, "I16"},    ForeignType{26, "I32"},
    ForeignType{27, "I64"},    ForeignType{28, "F64"},     ForeignType{29, "IQ1_M"},  ForeignType{34, "TQ1_0"},
    ForeignType{35, "TQ2_0"},  ForeignType{39, "MXFP4"},
};

std::string type_text(int gguf_type) {
  for (const ForeignType& type : kForeignTypes) {
    if (type.gguf_type == gguf_type) return join(gguf_type, " (", type.name, ")");
  }
  return std::to_string(gguf_type);
}

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
  fail(where, ": ggml tensor type ", type_text(gguf_type),
       " is not supported (supported: F32, F16, BF16, Q4_0, Q8_0, Q6_K)");
}

}  // namespace qat
