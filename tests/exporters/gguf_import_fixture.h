// Files that training exported, to be imported again.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "core/mapped_file.h"
#include "core/random.h"
#include "exporters/export_checkpoint.h"
#include "exporters/gguf_import.h"
#include "gguf_copy.h"
#include "quant/block_scales.h"
#include "exporters/small_gemma3.h"
#include "support/expect_error.h"
#include "support/fresh_seed.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat::test {

class GgufImportTest : public ::testing::Test {
 protected:
  // A folder with random weights, and `like` that has its small files alone.
  void make_model(const nlohmann::json& config) {
    for (const char* name : {"base", "like"}) {
      std::filesystem::create_directories(folder_ / name);
      write_file(folder_ / name / "config.json", config.dump());
      std::filesystem::copy_file(std::filesystem::path(QAT_SOURCE_DIR) / "tests/golden/data/tokenizer.json",
                                 folder_ / name / "tokenizer.json");
    }
    testing::write_random_weights(folder_ / "base", seed_);
  }

  // A checkpoint of the model under a plan, as training leaves it: Q4_0 scales that no rule finds again.
  void quantize(const QuantPlan& named) {
    const ModelFolder base(folder_ / "base");
    ResolvedPlan plan = named.resolve(base.table());
    std::map<std::string, std::vector<Float16>> scales;
    CheckpointContents contents;
    for (const WeightSpec& weight : base.table().weights()) {
      WeightPlan& rule = plan.weights[weight.name];
      if (rule.scheme != Scheme::Q4_0) continue;
      rule.scales = ScaleSource::Stored;
      std::vector<Float16>& found = scales[weight.name];
      found.resize(static_cast<size_t>(weight.elements() / 32));
      rule_block_scales(values_of(base, weight), found);
      for (Float16& scale : found) {
        const double factor = (random_.below(2) == 0 ? 1 : -1) * (0.6 + 0.6 * random_.uniform());
        scale = to_float16(static_cast<float>(factor) * to_float(scale));
      }
      contents.stored_scales[weight.name] = found;
    }
    contents.base_folder = &base.path();
    contents.base_tensors = &base.tensors();
    contents.table = &base.table();
    contents.plan = &plan;
    contents.write_master = [&](const WeightSpec& weight, const auto& write) { write(values_of(base, weight)); };
    write_checkpoint(folder_ / "trained", contents);
  }

  // The whole way with the layout that most files have: first.gguf.
  void make_file(const std::string& kind = "shared", const std::string& plan = "q4_0-q8-tables") {
    make_model(testing::tiny_config_json(kind));
    quantize(QuantPlan::load(plan));
    export_from("trained", "first.gguf");
  }

  static std::span<const BFloat16> values_of(const ModelFolder& folder, const WeightSpec& weight) {
    const auto bytes = folder.masters().of(weight).bytes;
    return {reinterpret_cast<const BFloat16*>(bytes.data()), bytes.size() / sizeof(BFloat16)};
  }

  void export_from(const std::string& checkpoint, const std::string& file) const {
    export_checkpoint(ModelFolder(folder_ / checkpoint), folder_ / file, {"tiny", 1});
  }
  GgufImportReport import(const std::string& file = "first.gguf", const std::string& like = "like") const {
    return import_gguf(folder_ / file, folder_ / like, folder_ / "imported", [](const std::filesystem::path&) {});
  }
  std::string read(const std::string& file) const { return read_text_file(folder_ / file); }

  // Imports first.gguf with a change, which is refused; nothing is left behind.
  void expect_refused(const std::function<void(GgufCopy&)>& change, std::initializer_list<std::string> parts) {
    GgufCopy copy(folder_ / "first.gguf");
    change(copy);
    copy.write(folder_ / "changed.gguf");
    testing::expect_error([&] { import("changed.gguf"); }, parts);
    expect_nothing_left();
  }
  void expect_nothing_left() const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      EXPECT_EQ(entry.path().string().find("imported"), std::string::npos) << entry.path();
    }
  }

  const uint64_t seed_ = testing::fresh_seed();
  SplitMix64 random_{seed_};
  testing::TemporaryFolder folder_;
};

}  // namespace qat::test
