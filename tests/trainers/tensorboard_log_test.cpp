// Event files of a run, decoded here by the definitions of TFRecord and event.proto.
#include "trainers/tensorboard_log.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "trainers/tiny_run.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::metrics_of;
using testing::TinyRun;
using testing::train;

// Bit by bit, as CRC-32C is defined.
uint32_t checksum_of(std::string_view bytes) {
  uint32_t checksum = 0xFFFFFFFF;
  for (const char byte : bytes) {
    checksum ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) checksum = (checksum >> 1) ^ (0x82F63B78 & (0 - (checksum & 1)));
  }
  checksum = ~checksum;
  return ((checksum >> 15) | (checksum << 17)) + 0xA282EAD8U;
}

template <class T>
T take(std::string_view& bytes) {
  T value{};
  if (bytes.size() < sizeof(T)) throw std::runtime_error("cut off");
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes.remove_prefix(sizeof(T));
  return value;
}

uint64_t take_variable(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = take<uint8_t>(bytes);
    value |= uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80) return value;
  }
}

std::string_view take_bytes(std::string_view& bytes, uint64_t count) {
  const std::string_view part = bytes.substr(0, count);
  if (part.size() != count) throw std::runtime_error("cut off");
  bytes.remove_prefix(count);
  return part;
}

struct Event {
  double wall_time = 0;
  int64_t step = 0;
  std::string version;
  std::map<std::string, float> scalars;

  bool operator==(const Event& other) const { return step == other.step && scalars == other.scalars; }
};

void read_value(std::string_view bytes, std::map<std::string, float>& scalars) {
  std::string tag;
  while (!bytes.empty()) {
    const uint64_t key = take_variable(bytes);
    if (key == (1 << 3 | 2)) {
      tag = take_bytes(bytes, take_variable(bytes));
    } else {
      EXPECT_EQ(key, 2U << 3 | 5);
      scalars[tag] = take<float>(bytes);
    }
  }
}

Event read_event(std::string_view bytes) {
  Event event;
  while (!bytes.empty()) {
    const uint64_t key = take_variable(bytes);
    if (key == (1 << 3 | 1)) {
      event.wall_time = take<double>(bytes);
    } else if (key == (2 << 3 | 0)) {
      event.step = static_cast<int64_t>(take_variable(bytes));
    } else if (key == (3 << 3 | 2)) {
      event.version = take_bytes(bytes, take_variable(bytes));
    } else {
      EXPECT_EQ(key, 5U << 3 | 2);
      std::string_view summary = take_bytes(bytes, take_variable(bytes));
      while (!summary.empty()) {
        EXPECT_EQ(take_variable(summary), 1U << 3 | 2);
        read_value(take_bytes(summary, take_variable(summary)), event.scalars);
      }
    }
  }
  return event;
}

fs::path file_of(const fs::path& run, const char* part) {
  return run / "tensorboard" / part / "events.out.tfevents.gemma-qat";
}

// All events but the first, which must be the version; without measured speeds.
std::vector<Event> events_of(const fs::path& run, const char* part) {
  const std::string file = bytes_of(file_of(run, part));
  std::string_view bytes = file;
  std::vector<Event> events;
  while (!bytes.empty()) {
    const std::string_view length = bytes.substr(0, 8);
    const auto size = take<uint64_t>(bytes);
    EXPECT_EQ(take<uint32_t>(bytes), checksum_of(length));
    const std::string_view message = take_bytes(bytes, size);
    EXPECT_EQ(take<uint32_t>(bytes), checksum_of(message));
    events.push_back(read_event(message));
    EXPECT_GT(events.back().wall_time, 1.7e9);
  }
  EXPECT_EQ(events.at(0).version, "brain.Event:2");
  events.erase(events.begin());
  for (Event& event : events) {
    EXPECT_EQ(event.version, "");
    if (std::string_view(part) == "train") {
      EXPECT_GT(event.scalars.at("tokens_per_second"), 0);
    }
    event.scalars.erase("tokens_per_second");
  }
  return events;
}

// What metrics.jsonl says, as the events should.
std::vector<Event> events_of_metrics(const fs::path& run, const char* kind, std::initializer_list<const char*> tags) {
  std::vector<Event> events;
  for (const std::string& line : metrics_of(run)) {
    const auto json = nlohmann::json::parse(line);
    if (json["kind"] != kind) continue;
    Event event;
    event.step = json["step"];
    for (const char* tag : tags) event.scalars[tag] = static_cast<float>(json[tag].get<double>());
    events.push_back(event);
  }
  return events;
}

void expect_events_of_metrics(const fs::path& run, std::initializer_list<const char*> eval_tags) {
  const auto steps = events_of_metrics(run, "step", {"loss", "learning_rate", "gradient_norm"});
  const auto evaluations = events_of_metrics(run, "eval", eval_tags);
  EXPECT_EQ(steps.size(), 6U);
  EXPECT_EQ(evaluations.size(), 4U);
  EXPECT_TRUE(events_of(run, "train") == steps);
  EXPECT_TRUE(events_of(run, "eval") == evaluations);
}

TEST(TensorboardLog, HoldsTheFiguresOfTheMetrics) {
  const TinyRun run;
  ASSERT_EQ(train(run.config("off")), 0);
  EXPECT_FALSE(fs::exists(run.folder("off") / "tensorboard"));
  ASSERT_EQ(train(run.config("on", {"tensorboard=true"})), 0);
  expect_events_of_metrics(run.folder("on"), {"loss"});
  EXPECT_EQ(metrics_of(run.folder("on")), metrics_of(run.folder("off")));
  const std::string reference = (run.folder("off") / "checkpoint").string();
  ASSERT_EQ(train(run.config("kl", {"tensorboard=true", "eval.metric=kl", "eval.reference=" + reference})), 0);
  expect_events_of_metrics(run.folder("kl"), {"loss", "kl"});
}

TEST(TensorboardLog, AResumedRunRepeatsNoEventAndMissesNone) {
  const TinyRun run;
  std::vector<std::string> overrides{"tensorboard=true", "optimizer.final_ratio=1", "steps=3"};
  ASSERT_EQ(train(run.config("a", overrides)), 0);
  // What a kill leaves behind: steps 4 and an evaluation at 4 that no save knows, and half a record.
  const RunFolder folder(run.folder("a"));
  TrainState later;
  later.step = 3;
  later.evaluated_step = 3;
  StepReport report;
  report.step = 4;
  {
    TensorboardLog log(folder, later);
    log.step(report, 1);
    log.evaluation(4, {.loss = 7, .kl = std::nullopt, .positions = 1});
  }
  ASSERT_EQ(events_of(run.folder("a"), "eval").back().step, 4);
  std::ofstream(file_of(run.folder("a"), "train"), std::ios::app) << std::string("\x30\0\0\0\0\0\0\0half", 12);
  overrides.back() = "steps=6";
  ASSERT_EQ(train(run.config("a", overrides), true), 0);
  const auto steps = events_of_metrics(run.folder("a"), "step", {"loss", "learning_rate", "gradient_norm"});
  EXPECT_EQ(steps.size(), 6U);
  EXPECT_TRUE(events_of(run.folder("a"), "train") == steps);
  EXPECT_TRUE(events_of(run.folder("a"), "eval") == events_of_metrics(run.folder("a"), "eval", {"loss"}));
}

TEST(TensorboardLog, CanBeSwitchedOnLater) {
  const TinyRun run;
  std::vector<std::string> overrides{"optimizer.final_ratio=1", "steps=3"};
  ASSERT_EQ(train(run.config("a", overrides)), 0);
  overrides = {"optimizer.final_ratio=1", "steps=6", "tensorboard=true"};
  ASSERT_EQ(train(run.config("a", overrides), true), 0);
  auto steps = events_of_metrics(run.folder("a"), "step", {"loss", "learning_rate", "gradient_norm"});
  steps.erase(steps.begin(), steps.begin() + 3);
  EXPECT_TRUE(events_of(run.folder("a"), "train") == steps);
}

}  // namespace
}  // namespace qat
