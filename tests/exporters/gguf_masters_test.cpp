// GGUF files that do not fit the folder they are imported with, and damaged ones, are refused with all that is wrong.
#include "exporters/gguf_masters.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "gguf_import_fixture.h"

namespace qat {
namespace {

using test::GgufCopy;
using testing::expect_error;

using GgufMastersTest = test::GgufImportTest;

const char* const kUp = "blk.0.ffn_up.weight";

TEST_F(GgufMastersTest, TensorsThatDoNotFitAreListedTogether) {
  make_file();
  expect_refused(
      [](GgufCopy& copy) {
        copy.drop("blk.1.attn_q.weight");
        copy.find("blk.3.ffn_norm.weight").name = "blk.3.ffn_norn.weight";
        copy.find(kUp).shape = {32, 192};
        copy.find("output_norm.weight").scheme = Scheme::Q8_0;
        copy.find("output_norm.weight").bytes.resize(68);
      },
      {"changed.gguf", "like/config.json", "5 faults", "blk.1.attn_q.weight is missing, wanted [128, 64]",
       "blk.3.ffn_norm.weight is missing, wanted [64]", "blk.3.ffn_norn.weight is f32 [64], which is no weight",
       "blk.0.ffn_up.weight is q4_0 [32, 192], wanted [96, 64]", "output_norm.weight is q8_0 [64], wanted F32"});
  expect_refused(
      [](GgufCopy& copy) {
        copy.find("token_embd.weight").shape[0] = 570;
        copy.find("token_embd.weight").bytes.resize(570 * 68);
      },
      {"token_embd.weight is q8_0 [570, 64], wanted [576, 64]", "set vocab_size to 570"});
}

TEST_F(GgufMastersTest, AnotherModelOfTheSameShapesIsNamed) {
  make_file();
  expect_refused([](GgufCopy& copy) { copy.value("gemma4.rope.freq_base") = 5e5f; },
                 {"changed.gguf", "another model than", "layer 1: rotary base is 500000, wanted 1e+06"});
  expect_refused(
      [](GgufCopy& copy) {
        copy.value("gemma4.final_logit_softcapping") = 0.0f;
        copy.value("gemma4.attention.layer_norm_rms_epsilon") = 1e-5f;
      },
      {"soft-cap of logits is 0, wanted 30", "epsilon of norms is 1e-05, wanted 1e-06"});
  expect_refused([](GgufCopy& copy) { copy.value("gemma4.attention.sliding_window") = 32u; },
                 {"layer 0: sliding window is 32, wanted 16"});
  write_file(folder_ / "like/config.json", test::small_gemma3_json(576, /*tied=*/false).dump());
  expect_refused([](GgufCopy&) {}, {"general.architecture is \"gemma4\"", "describes a gemma3 model"});
  write_file(folder_ / "like/config.json", testing::tiny_config_json("experts").dump());
  expect_refused([](GgufCopy&) {}, {"blk.0.ffn_gate_inp.weight is missing, wanted [4, 64]",
                                    "blk.2.ffn_gate.weight is q4_0 [192, 64], wanted [96, 64]", "and more"});
}

TEST_F(GgufMastersTest, NumbersThatAreNoneAreNamed) {
  make_file();
  for (const float bad : {INFINITY, -INFINITY, NAN, 3.4e38f}) {
    expect_refused(
        [&](GgufCopy& copy) { std::memcpy(copy.find("output_norm.weight").bytes.data() + 12, &bad, sizeof(bad)); },
        {"output_norm.weight: value at [0, 3] is", "no finite BF16 number"});
  }
  expect_refused(
      [](GgufCopy& copy) {
        copy.find(kUp).bytes[2 * 36 + 18] = std::byte{0};
        copy.find(kUp).bytes[2 * 36 + 19] = std::byte{0x7c};
      },
      {"blk.0.ffn_up.weight: value at [2, 3"});
}

TEST_F(GgufMastersTest, OtherTypesAndDamagedFilesAreNamed) {
  make_file();
  const std::string whole = read("first.gguf");
  std::string other = whole;
  const int32_t q4_k = 12;
  std::memcpy(other.data() + other.find(kUp) + std::strlen(kUp) + 4 + 2 * 8, &q4_k, sizeof(q4_k));
  write_file(folder_ / "changed.gguf", other);
  expect_error([&] { import("changed.gguf"); },
               {"changed.gguf", kUp, "type 12 (Q4_K)", "supported: F32, F16, BF16, Q4_0"});
  for (const size_t size : {size_t{3}, whole.size() / 8, whole.size() / 2, whole.size() - 64}) {
    write_file(folder_ / "changed.gguf", whole.substr(0, size));
    expect_error([&] { import("changed.gguf"); }, {"changed.gguf"});
  }
  expect_nothing_left();
}

}  // namespace
}  // namespace qat
