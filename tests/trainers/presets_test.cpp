// The training configurations that come along: they load, and need the memory that they say they need.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "core/output_file.h"
#include "support/published_models.h"
#include "trainers/base_model.h"
#include "trainers/memory_estimate.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::TinyRun;

std::vector<fs::path> presets() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(configs_folder() / "train")) files.push_back(entry.path());
  return files;
}

// What the file is for, by its name; null for those that are for any model.
nlohmann::json published_model_of(const std::string& preset) {
  if (preset.starts_with("gemma4_e2b_")) return testing::published_e2b();
  if (preset.starts_with("gemma4_e4b_")) return testing::published_e4b();
  if (preset.starts_with("gemma4_12b_")) return testing::published_12b();
  if (preset.starts_with("gemma4_26b_a4b_")) return testing::published_26b_a4b();
  if (preset.starts_with("gemma4_31b_")) return testing::published_31b();
  if (preset.starts_with("gemma3_270m_")) return testing::published_gemma3_270m();
  return {};
}

// A file of BF16 weights as large as the model and without blocks on the disk: only its header is read.
void write_hollow_weights(const fs::path& folder) {
  nlohmann::json header;
  int64_t end = 0;
  const WeightTable table(Gemma4Config::load(folder));
  for (const WeightSpec& weight : table.weights()) {
    const int64_t begin = end;
    end += 2 * weight.elements();
    header["model." + weight.name] = {{"dtype", "BF16"}, {"shape", weight.shape}, {"data_offsets", {begin, end}}};
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  write_file(folder / "model.safetensors", std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text);
  fs::resize_file(folder / "model.safetensors", sizeof(length) + length + static_cast<uint64_t>(end));
}

// A model folder of the published shapes, and the tiny run's data.
TrainConfig load_preset(const TinyRun& run, const fs::path& file) {
  const fs::path model = run.folder(file.stem().string());
  fs::create_directories(model);
  const nlohmann::json published = published_model_of(file.stem().string());
  fs::copy_file(run.model() / "tokenizer.json", model / "tokenizer.json");
  write_file(model / "config.json", published.is_null() ? "{}" : published.dump());
  if (!published.is_null()) write_hollow_weights(model);
  return TrainConfig::load(file, {"model=" + model.string(), "out=" + run.folder("out").string(),
                                  "data.train=[\"" + run.folder("train.jsonl").string() + "\"]",
                                  "data.eval=[\"" + run.folder("eval.jsonl").string() + "\"]"});
}

// In GB. `auto` stands for BF16.
double estimated_gigabytes(TrainConfig config) {
  if (config.dtype == "auto") config.dtype = "bfloat16";
  const BaseModel base(config);
  return static_cast<double>(estimate_memory(config, base, frozen_weights(config, base)).total()) / 1e9;
}

TEST(Presets, AllLoadAndSayWhatTheyAreFor) {
  const TinyRun run;
  ASSERT_GT(presets().size(), 20U);
  for (const fs::path& file : presets()) {
    SCOPED_TRACE(file);
    EXPECT_FALSE(load_preset(run, file).about.empty());
  }
}

TEST(Presets, NeedTheMemoryThatTheySay) {
  const TinyRun run;
  const std::regex claim(R"(Needs about ([0-9.]+) GB of memory( in BF16)?: for machines with ([0-9]+) GB\.)");
  int64_t checked = 0;
  for (const fs::path& file : presets()) {
    if (published_model_of(file.stem().string()).is_null()) continue;
    SCOPED_TRACE(file);
    const TrainConfig config = load_preset(run, file);
    const double estimate = estimated_gigabytes(config);
    std::smatch found;
    if (!std::regex_search(config.about, found, claim)) {
      ADD_FAILURE() << "`about` does not say \"Needs about N GB of memory: for machines with M GB.\"; N is "
                    << estimate;
      continue;
    }
    ++checked;
    const double said = std::stod(found[1]);
    EXPECT_NEAR(said / estimate, 1, 0.05) << "says " << said << " GB, the estimate is " << estimate;
    EXPECT_EQ(found[2].matched, config.dtype == "auto");
    EXPECT_GE(std::stod(found[3]), 1.1 * said) << "the process needs more than its tensors";
  }
  EXPECT_GE(checked, 19);
}

// What the README says of one process where several train 31B.
TEST(Presets, TheLargestFitsSeveralProcessesWithShardedParameters) {
  const TinyRun run;
  TrainConfig config = load_preset(run, configs_folder() / "train/gemma4_31b_q4_0.json");
  config.sharding = "parameters";
  for (const auto& [processes, gigabytes] : {std::pair(8, 26.0), std::pair(16, 15.0)}) {
    config.gradient_accumulation = processes;
    const BaseModel base(config);
    const auto estimate =
        static_cast<double>(estimate_memory(config, base, frozen_weights(config, base), processes).total());
    EXPECT_NEAR(estimate / 1e9 / gigabytes, 1, 0.05) << processes << " processes: " << estimate;
  }
}

}  // namespace
}  // namespace qat
