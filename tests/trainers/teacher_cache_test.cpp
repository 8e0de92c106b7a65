// Stored teacher states: equal to a running teacher's, small, and refused where they do not belong.
#include "trainers/teacher_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/mapped_file.h"
#include "core/output_file.h"
#include "core/terminal.h"
#include "model/gemma4_model.h"
#include "support/expect_error.h"
#include "support/tiny_model_folder.h"
#include "trainers/cache_teacher.h"
#include "trainers/distillation.h"
#include "trainers/teacher.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::expect_error;
using testing::metrics_of;
using testing::TinyRun;
using testing::train;

int cache(const TrainConfig& config, bool replace = false) {
  ::testing::internal::CaptureStdout();
  const auto stop = [] { ::testing::internal::GetCapturedStdout(); };
  try {
    const int code = cache_teacher(config, replace);
    stop();
    return code;
  } catch (...) {
    stop();
    throw;
  }
}

// A teacher with weights of its own beside a random student.
class DistilledRun : public TinyRun {
 public:
  DistilledRun() { testing::write_tiny_model(folder("teacher"), {}, /*seed=*/3); }

  fs::path file() const { return folder("teacher.h5"); }
  TrainConfig live(const std::string& out, std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"objective=forward_kl", "teacher=" + folder("teacher").string()});
    return config(out, more);
  }
  TrainConfig cached(const std::string& out, std::vector<std::string> more = {}) const {
    more.push_back("distillation.cache=" + file().string());
    return live(out, more);
  }
};

// The parts of a run that a teacher sees.
struct Parts {
  explicit Parts(const TrainConfig& config)
      : student(Gemma4Config::load(config.model)),
        data(config, student),
        teacher(make_teacher(config, student, data)) {}
  Gemma4Config student;
  TrainingData data;
  std::unique_ptr<Teacher> teacher;
};

class TeacherCacheOf : public ::testing::TestWithParam<const char*> {
 protected:
  static std::string dtype() { return std::string("dtype=") + GetParam(); }
};

TEST_P(TeacherCacheOf, FirstEpochTrainsBitForBitAsWithTheRunningTeacher) {
  const DistilledRun run;
  const TrainConfig live = run.live("live", {dtype()});
  const TrainConfig cached = run.cached("cached", {dtype()});
  ASSERT_EQ(cache(cached), 0);
  ASSERT_GE(Parts(live).data.source().rows_in_epoch(), 6 * 2);
  ASSERT_EQ(train(live), 0);
  ASSERT_EQ(train(cached), 0);
  EXPECT_EQ(metrics_of(run.folder("live")), metrics_of(run.folder("cached")));
  EXPECT_TRUE(bytes_of(run.folder("live") / "checkpoint/model.safetensors") ==
              bytes_of(run.folder("cached") / "checkpoint/model.safetensors"));
}

// Later rows hold other documents, so that a product may take its sums in another order: fp32 keeps 1e-5. A BF16 state
// is rounded to 8 bits and may then come out one step (0.4 %) aside, here and there.
TEST_P(TeacherCacheOf, LaterEpochsEqualTheRunningTeacherUpToRounding) {
  const DistilledRun run;
  const std::string together = "micro_batch_sequences=3";
  ASSERT_EQ(cache(run.cached("a", {dtype(), together})), 0);
  const TrainConfig config = run.cached("a", {dtype(), together, "seed=9"});
  const bool is_float = std::string(GetParam()) == "float32";
  const at::NoGradGuard no_grad;
  Parts cached(config);
  Gemma4Model model(cached.student, is_float ? at::kFloat : at::kBFloat16);
  initialize_weights(model, 1);
  const auto from_cache = make_distillation(config, std::move(cached.teacher));
  const auto from_model = make_distillation(config, Parts(run.live("a", {dtype()})).teacher);
  while (cached.data.position().epoch < 3) {
    const TrainingBatch batch = cached.data.next();
    const at::Tensor hidden = model.hidden_states(batch.input);
    const double found = from_cache->loss_sum(model, hidden, batch).item<double>();
    const double wanted = from_model->loss_sum(model, hidden, batch).item<double>();
    EXPECT_GT(wanted, 0.1);
    EXPECT_NEAR(found, wanted, (is_float ? 1e-5 : 1e-3) * wanted);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, TeacherCacheOf, ::testing::Values("float32", "bfloat16"));

TEST(TeacherCache, TakesTwoBytesPerValueAndLittleMore) {
  const DistilledRun run;
  const TrainConfig config = run.cached("a", {"dtype=bfloat16"});
  ASSERT_EQ(cache(config), 0);
  const int64_t tokens = Parts(config).data.source().trained_tokens_per_epoch();
  // The identity and HDF5's own tables are a few kilobytes, whatever the size of the data.
  EXPECT_LE(static_cast<int64_t>(fs::file_size(run.file())), tokens * 64 * 2 + 8192);
}

TEST(TeacherCache, TakesThreeKilobytesPerTokenAtHiddenSize1536) {
  const testing::TemporaryFolder folder;
  std::vector<Example> documents;
  for (int64_t size = 2; size < 60; ++size) {
    const auto count = static_cast<size_t>(size);
    documents.push_back({std::vector<int32_t>(count, 5), std::vector<uint8_t>(count, 1)});
  }
  BatchSource source(documents, {.sequence_length = 128});
  TeacherCacheWriter writer(folder / "teacher.h5", {{"model", "none"}}, source, 1536, at::kBFloat16);
  while (!writer.is_complete()) {
    const Batch row = source.next();
    const TrainingBatch batch = join_rows({&row, 1});
    writer.add(batch, at::randn({batch.trained_tokens, 1536}).to(at::kBFloat16));
  }
  writer.commit();
  const auto tokens = static_cast<double>(source.trained_tokens_per_epoch());
  EXPECT_LE(static_cast<double>(fs::file_size(folder / "teacher.h5")) / tokens, 3100);
}

TEST(TeacherCache, OfSomethingElseIsRefusedAndTheDifferenceNamed) {
  const DistilledRun run;
  const std::string other = run.folder("other.jsonl").string();
  write_file(other, "{\"text\": \"another river\"}\n");
  ASSERT_EQ(cache(run.cached("a")), 0);
  const auto refused = [&](const std::vector<std::string>& overrides, std::initializer_list<std::string> parts) {
    expect_error([&] { Parts(run.cached("a", overrides)); }, parts);
  };
  refused({"sequence_length=32"}, {"teacher.h5", "belong to something else", "sequence_length: 64 in the cache, 32 now",
                                   "tokens of the documents: ", "gemma-qat cache-teacher"});
  refused({"dtype=bfloat16"}, {"dtype: float32 in the cache, bfloat16 now"});
  refused({"data.train=" + other}, {"data.train, file 1: ", "tokens of the documents: "});
  refused({"data.train=[\"" + run.folder("train.jsonl").string() + "\",\"" + other + "\"]"},
          {"number of data.train files: 1 in the cache, 2 now", "data.train, file 2: absent in the cache"});
  refused({"data.enable_thinking=true"}, {"data.enable_thinking: false in the cache, true now"});
  refused({"data.parse_special_in_content=false"}, {"data.parse_special_in_content: true in the cache, false now"});
  refused({"data.chat_template=gemma3"}, {"chat template: none in the cache, gemma3 now"});

  testing::write_tiny_model(run.folder("another"), {}, /*seed=*/4);
  refused({"teacher=" + run.folder("another").string()}, {"teacher's weights: "});
  write_file(run.folder("teacher") / "config.json", std::string(testing::kTinyConfig) + "\n");
  refused({}, {"teacher's config.json: "});
  write_file(run.folder("teacher") / "config.json", testing::kTinyConfig);
  const std::string tokenizer = read_text_file(run.model() / "tokenizer.json");
  write_file(run.model() / "tokenizer.json", tokenizer + "\n");
  refused({}, {"tokenizer.json: "});
  // Nothing of the run appears.
  expect_error([&] { train(run.cached("a")); }, {"tokenizer.json: "});
  EXPECT_FALSE(fs::exists(run.folder("a")));

  write_file(run.model() / "tokenizer.json", tokenizer);
  EXPECT_NO_THROW(Parts(run.cached("a", {"seed=9", "data.shuffle=false", "objective=reverse_kl", "plan=bf16",
                                         "micro_batch_sequences=2", "kv_cache=plan"})));
}

TEST(TeacherCache, OneChangedWeightOfTheTeacherIsNoticed) {
  const DistilledRun run;
  ASSERT_EQ(cache(run.cached("a")), 0);
  const fs::path weights = run.folder("teacher") / "model.safetensors";
  std::string bytes = bytes_of(weights);
  bytes.back() = static_cast<char>(bytes.back() ^ 0x01);
  write_file(weights, bytes);
  expect_error([&] { Parts(run.cached("a")); }, {"teacher's weights: "});
}

TEST(TeacherCache, DamageIsAClearError) {
  const DistilledRun run;
  const TrainConfig config = run.cached("a");
  expect_error([&] { Parts{config}; }, {"distillation.cache", "there is no file", "gemma-qat cache-teacher"});
  ASSERT_EQ(cache(config), 0);
  const std::string whole = bytes_of(run.file());
  for (const size_t kept : {size_t{0}, size_t{100}, whole.size() / 2, whole.size() - 1}) {
    std::ofstream(run.file(), std::ios::binary) << whole.substr(0, kept);
    expect_error([&] { train(config); }, {"teacher.h5", "damaged, truncated or no HDF5 file"});
  }
  // A flipped bit among the states: found by the checksum when they are read.
  std::string flipped = whole;
  flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 0x10);
  std::ofstream(run.file(), std::ios::binary) << flipped;
  expect_error([&] { train(config); }, {"teacher.h5: states: cannot be read, the file is damaged"});

  const auto written = [&](const char* identity, uint64_t elements) {
    Hdf5Writer writer(run.file());
    if (identity != nullptr) writer.write_text("identity", identity);
    writer.declare("states", ElementType::F32, elements);
    writer.commit();
  };
  written(nullptr, 10);
  expect_error([&] { Parts{config}; }, {"teacher.h5: has no identity"});
  written("[1", 10);
  expect_error([&] { Parts{config}; }, {"identity: is no JSON object"});
  std::ofstream(run.file(), std::ios::binary) << whole;
  const std::string identity = Hdf5Reader(run.file()).read_text("identity");
  written(identity.c_str(), 10);
  expect_error([&] { Parts{config}; }, {"states: 10 elements, wanted "});
}

TEST(TeacherCache, IsWrittenOnlyWhereNothingIsOrWhenTold) {
  const DistilledRun run;
  expect_error([&] { cache(run.live("a")); }, {"distillation.cache: is required"});
  write_file(run.file(), "something");
  expect_error([&] { cache(run.cached("a")); }, {"teacher.h5: is there already", "--force"});
  EXPECT_EQ(bytes_of(run.file()), "something");
  ASSERT_EQ(cache(run.cached("a"), /*replace=*/true), 0);
  const std::string first = bytes_of(run.file());
  ASSERT_EQ(cache(run.cached("a"), /*replace=*/true), 0);
  EXPECT_TRUE(bytes_of(run.file()) == first);
  expect_error([&] { run.config("b", {"distillation.cache=x.h5"}); },
               {"distillation.cache: needs objective = forward_kl, reverse_kl or jensen_shannon"});
}

// 130 if nothing but the inputs is left of an interrupted run.
int interrupted_caching() {
  const DistilledRun run;
  install_interrupt_handler();
  std::raise(SIGINT);
  const int code = cache_teacher(run.cached("a"), false);
  for (const auto& entry : fs::directory_iterator(run.file().parent_path())) {
    if (entry.path().filename().string().starts_with("teacher.h5")) return 1;
  }
  return code;
}

TEST(TeacherCacheDeathTest, InterruptedCachingLeavesNothing) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(std::exit(interrupted_caching()), ::testing::ExitedWithCode(130), "interrupted; nothing was written");
}

}  // namespace
}  // namespace qat
