// An adapter that was trained beside quantized weights, exported for llama.cpp's --lora: the reference inference with
// it computes what training computed, and other adapters are refused.
#include <gtest/gtest.h>

#include "core/output_file.h"
#include "exporters/export_checkpoint.h"
#include "exporters/gguf_adapter_exporter.h"
#include "exporters/verify.h"
#include "gemma4/adapter_folder.h"
#include "reference/reference_model.h"
#include "support/expect_error.h"
#include "support/tiny_model_folder.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::TinyRun;

class AdapterExport : public ::testing::Test {
 protected:
  AdapterExport() { testing::write_random_weights(run_.model(), 7); }

  fs::path file(const std::string& name) const { return run_.folder(name); }
  // A run beside its quantized weights, with its base and its adapter exported.
  void train_and_export(const std::string& out, std::vector<std::string> overrides) {
    overrides.insert(overrides.begin(), {"initialize=pretrained", "lora.rank=4", "lora.through_quantizer=false",
                                         "optimizer.learning_rate=2e-2"});
    ASSERT_EQ(testing::train(run_.config(out, overrides)), 0);
    const ModelFolder checkpoint(file(out) / "checkpoint");
    export_checkpoint(checkpoint, file(out + ".gguf"), {"", 1});
    export_gguf_adapter(AdapterFolder(file(out) / "adapter", checkpoint.table()), checkpoint.config(), out,
                        file(out + "-lora.gguf"));
  }
  VerifyReport verify(const std::string& out, const fs::path& adapter) const {
    VerifyOptions options{true, 1};
    options.adapter = adapter;
    return verify_gguf(file(out + ".gguf"), ModelFolder(file(out) / "checkpoint"), options);
  }

  TinyRun run_;
};

TEST_F(AdapterExport, VerifyHoldsWithTheAdapterOfTheRunAlone) {
  for (const char* cache : {"kv_cache=none", "kv_cache=q8_0"}) {
    for (const char* stabilized : {"lora.rank_stabilized=false", "lora.rank_stabilized=true"}) {
      const std::string out = std::string(cache).substr(9) + "-" + std::string(stabilized).substr(21);
      train_and_export(out, {cache, stabilized});
      const VerifyReport report = verify(out, file(out + "-lora.gguf"));
      for (const std::string& difference : report.differences) ADD_FAILURE() << difference;
      EXPECT_GT(report.witness_positions, 0);
      EXPECT_LT(report.largest_logit_difference, 1e-3);
      EXPECT_FALSE(verify(out, {}).equal());
    }
  }
  EXPECT_FALSE(verify("none-true", file("none-false-lora.gguf")).equal());
}

TEST_F(AdapterExport, OtherFilesAndOtherModelsAreRefused) {
  train_and_export("a", {"steps=2", "lora.roles=[\"mlp_up\"]"});
  const GgufFile base(file("a.gguf"));
  expect_error([&] { const GgufAdapter adapter(file("a.gguf")); }, {"is no LoRA adapter", "general.type is model"});

  const auto refused = [&](const std::string& name, const std::function<void(GgufWriter&)>& write,
                           std::initializer_list<std::string> parts) {
    {
      GgufWriter writer(file(name));
      write(writer);
      writer.commit();
    }
    expect_error(
        [&] {
          const GgufAdapter adapter(file(name));
          ReferenceOptions options;
          options.adapter = &adapter;
          make_reference_model(base, options);
        },
        parts);
  };
  const auto head = [](GgufWriter& writer, const char* architecture, float alpha) {
    writer.add("general.architecture", std::string(architecture));
    writer.add("general.type", std::string("adapter"));
    writer.add("adapter.type", std::string("lora"));
    writer.add("adapter.lora.alpha", alpha);
  };
  const auto tensors = [](GgufWriter& writer, const std::vector<std::pair<std::string, std::vector<int64_t>>>& list) {
    for (const auto& [name, shape] : list) writer.declare(name, shape, Scheme::F32);
    writer.begin_data();
    for (size_t i = 0; i < list.size(); ++i) {
      writer.write(i, 0, std::vector<std::byte>(writer.tensor_bytes(i)));
    }
  };
  const std::string up = "blk.0.ffn_up.weight";
  refused("arch",
          [&](GgufWriter& w) {
            head(w, "gemma3", 8);
            tensors(w, {{up + ".lora_a", {4, 64}}, {up + ".lora_b", {96, 4}}});
          },
          {"general.architecture is gemma3", "belongs to another model"});
  refused("shape",
          [&](GgufWriter& w) {
            head(w, "gemma4", 8);
            tensors(w, {{up + ".lora_a", {4, 32}}, {up + ".lora_b", {96, 4}}});
          },
          {up, "[96, 32]", "the model's is [96, 64]"});
  refused("name",
          [&](GgufWriter& w) {
            head(w, "gemma4", 8);
            tensors(w, {{"blk.9.ffn_up.weight.lora_a", {4, 64}}, {"blk.9.ffn_up.weight.lora_b", {96, 4}}});
          },
          {"changes blk.9.ffn_up.weight, which is no matrix of the model"});
  refused("half",
          [&](GgufWriter& w) {
            head(w, "gemma4", 8);
            tensors(w, {{up + ".lora_a", {4, 64}}});
          },
          {up + " has no " + up + ".lora_b"});
  refused("rank",
          [&](GgufWriter& w) {
            head(w, "gemma4", 8);
            tensors(w, {{up + ".lora_a", {4, 64}}, {up + ".lora_b", {96, 5}}});
          },
          {"no rank in common"});
  refused("alpha",
          [&](GgufWriter& w) {
            head(w, "gemma4", 0);
            tensors(w, {{up + ".lora_a", {4, 64}}, {up + ".lora_b", {96, 4}}});
          },
          {"adapter.lora.alpha is 0"});
}

}  // namespace
}  // namespace qat
