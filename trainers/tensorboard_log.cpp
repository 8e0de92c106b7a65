#include "trainers/tensorboard_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/mapped_file.h"
#include "io/protobuf_message.h"
#include "io/tfrecord.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

// TensorBoard takes every file whose name holds "tfevents".
constexpr const char* kFileName = "events.out.tfevents.gemma-qat";

// Field numbers of event.proto and summary.proto.
constexpr uint32_t kEventWallTime = 1;
constexpr uint32_t kEventStep = 2;
constexpr uint32_t kEventFileVersion = 3;
constexpr uint32_t kEventSummary = 5;
constexpr uint32_t kSummaryValue = 1;
constexpr uint32_t kValueTag = 1;
constexpr uint32_t kValueSimple = 2;

// Wall time and step come first in every event that is written here: a byte of key and eight of time, then the step.
constexpr size_t kTimeBytes = 9;

ProtobufMessage make_event(int64_t step) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  ProtobufMessage event;
  event.number(kEventWallTime, std::chrono::duration<double>(now).count()).integer(kEventStep, step);
  return event;
}

// The step of such an event; nothing if it is another program's.
std::optional<int64_t> step_of(std::string_view event) {
  if (event.size() <= kTimeBytes || static_cast<uint8_t>(event[kTimeBytes]) != kEventStep << 3) return std::nullopt;
  uint64_t step = 0;
  int shift = 0;
  for (size_t i = kTimeBytes + 1; i < event.size() && shift < 63; ++i, shift += 7) {
    step |= static_cast<uint64_t>(event[i] & 0x7F) << shift;
    if ((event[i] & 0x80) == 0) return static_cast<int64_t>(step);
  }
  return std::nullopt;
}

// Bytes of the leading events up to `last_step`, the one with the file's version included.
size_t end_of_events(std::string_view bytes, int64_t last_step) {
  std::string_view rest = bytes;
  size_t end = 0;
  while (const auto event = take_tfrecord(rest)) {
    const auto step = step_of(*event);
    const bool is_version = end == 0;
    if (!step || (!is_version && *step > last_step)) break;
    end = bytes.size() - rest.size();
  }
  return end;
}

fs::path event_file(const RunFolder& folder, const char* part) {
  const fs::path place = folder.tensorboard() / part;
  std::error_code error;
  fs::create_directories(place, error);
  if (error) fail(place.string(), ": cannot be created: ", error.message());
  return place / kFileName;
}

}  // namespace

EventFile::EventFile(const fs::path& path, int64_t last_step) : path_(path) {
  const size_t end = fs::exists(path) ? end_of_events(read_text_file(path), last_step) : 0;
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(path.string(), ": cannot be opened: ", std::strerror(errno));
  if (::ftruncate(descriptor_, static_cast<off_t>(end)) != 0) {
    fail(path.string(), ": cannot be cut to the resumed step: ", std::strerror(errno));
  }
  if (end == 0) write(make_event(0).text(kEventFileVersion, "brain.Event:2").bytes());
}

EventFile::~EventFile() { ::close(descriptor_); }

void EventFile::append(int64_t step, std::initializer_list<std::pair<const char*, double>> scalars) {
  ProtobufMessage summary;
  for (const auto& [tag, value] : scalars) {
    summary.message(kSummaryValue,
                    ProtobufMessage().text(kValueTag, tag).number(kValueSimple, static_cast<float>(value)));
  }
  write(make_event(step).message(kEventSummary, summary).bytes());
}

void EventFile::write(const std::string& message) {
  const std::string record = make_tfrecord(message);
  if (::write(descriptor_, record.data(), record.size()) != static_cast<ssize_t>(record.size())) {
    fail(path_.string(), ": cannot be written: ", std::strerror(errno));
  }
}

void EventFile::sync() {
  if (::fsync(descriptor_) != 0) fail(path_.string(), ": cannot be synced: ", std::strerror(errno));
}

TensorboardLog::TensorboardLog(const RunFolder& folder, const TrainState& state)
    : train_(event_file(folder, "train"), state.step), eval_(event_file(folder, "eval"), state.evaluated_step) {}

void TensorboardLog::step(const StepReport& report, double tokens_per_second) {
  train_.append(report.step, {{"loss", report.loss()},
                              {"learning_rate", report.learning_rate},
                              {"gradient_norm", report.gradient_norm},
                              {"tokens_per_second", tokens_per_second}});
}

void TensorboardLog::evaluation(int64_t step, const HeldOutResult& result) {
  if (result.kl) {
    eval_.append(step, {{"loss", result.loss}, {"kl", *result.kl}});
  } else {
    eval_.append(step, {{"loss", result.loss}});
  }
}

void TensorboardLog::sync() {
  train_.sync();
  eval_.sync();
}

}  // namespace qat
