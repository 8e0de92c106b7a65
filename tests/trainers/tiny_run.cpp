#include "trainers/tiny_run.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/mapped_file.h"
#include "core/output_file.h"
#include "core/random.h"
#include "trainers/run_training.h"

namespace qat::testing {
namespace fs = std::filesystem;

namespace {

std::string random_documents(uint64_t seed, int count) {
  static constexpr const char* kWords[] = {"the", "river", "runs", "to", "a", "green", "hill", "and", "sings", "again"};
  SplitMix64 random(seed);
  std::string lines;
  for (int i = 0; i < count; ++i) {
    std::string text;
    for (uint64_t words = 5 + random.below(20); words > 0; --words) text += std::string(kWords[random.below(10)]) + " ";
    lines += nlohmann::json{{"text", text}}.dump() + "\n";
  }
  return lines;
}

nlohmann::json base_config(const TinyRun& run, const std::string& out) {
  return {{"model", run.model().string()},
          {"initialize", "random"},
          {"out", run.folder(out).string()},
          {"plan", "q4_0"},
          {"kv_cache", "q8_0"},
          {"dtype", "float32"},
          {"data", {{"train", {run.folder("train.jsonl").string()}}, {"eval", {run.folder("eval.jsonl").string()}}}},
          {"sequence_length", 64},
          {"gradient_accumulation", 2},
          {"steps", 6},
          {"seed", 5},
          {"threads", 1},
          {"optimizer", {{"learning_rate", 1e-3}, {"warmup_steps", 2}}},
          {"eval", {{"every_steps", 2}, {"documents", 6}}},
          {"checkpoint", {{"every_steps", 3}}}};
}

}  // namespace

TinyRun::TinyRun() {
  const fs::path source(QAT_SOURCE_DIR);
  fs::create_directories(model());
  fs::copy_file(source / "tests/trainers/tiny_model/config.json", model() / "config.json");
  fs::copy_file(source / "tests/golden/data/tokenizer.json", model() / "tokenizer.json");
  write_file(folder("train.jsonl"), random_documents(1, 40));
  write_file(folder("eval.jsonl"), random_documents(2, 8));
}

TrainConfig TinyRun::config(const std::string& out, const std::vector<std::string>& overrides) const {
  return TrainConfig::parse(base_config(*this, out), overrides, "test");
}

fs::path TinyRun::config_file(const std::string& out, const std::vector<std::string>& overrides) const {
  const fs::path file = folder(out + ".json");
  write_file(file, config(out, overrides).to_json().dump());
  return file;
}

int train(const TrainConfig& config, bool resume) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  const auto stop = [] {
    ::testing::internal::GetCapturedStdout();
    ::testing::internal::GetCapturedStderr();
  };
  try {
    ProcessGroup alone;
    const int code = run_training(config, resume, alone);
    stop();
    return code;
  } catch (...) {
    stop();
    throw;
  }
}

std::string bytes_of(const fs::path& file) {
  EXPECT_TRUE(fs::is_regular_file(file)) << file;
  return read_text_file(file);
}

std::vector<std::string> metrics_of(const fs::path& run) {
  std::vector<std::string> lines;
  std::ifstream file(run / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    auto json = nlohmann::json::parse(line);
    for (const char* measured : {"seconds", "tokens_per_second", "peak_memory"}) json.erase(measured);
    lines.push_back(json.dump());
  }
  return lines;
}

std::vector<double> step_losses(const fs::path& run) {
  std::vector<double> losses;
  for (const std::string& line : metrics_of(run)) {
    const auto json = nlohmann::json::parse(line);
    if (json["kind"] == "step") losses.push_back(json["loss"]);
  }
  return losses;
}

}  // namespace qat::testing
