#include "trainers/run_folder.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/output_file.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kStepPrefix = "step-";

// N of "step-N", also with OutputFolder's suffixes.
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  int64_t step = 0;
  const char* begin = name.data() + kStepPrefix.size();
  if (std::from_chars(begin, name.data() + name.size(), step).ec != std::errc()) return std::nullopt;
  return step;
}

std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
  return paths;
}

}  // namespace

fs::path RunFolder::step(int64_t step) const { return path_ / (std::string(kStepPrefix) + std::to_string(step)); }

bool RunFolder::has_run() const {
  return fs::exists(resolved_config()) || fs::exists(state()) || fs::exists(metrics()) || fs::exists(checkpoint());
}

void RunFolder::refuse_second_run() const {
  if (!has_run()) return;
  fail_usage(path_.string(),
             ": a run is already here. Continue it with --resume, or choose another folder (out=FOLDER)");
}

void RunFolder::open() {
  lock_.emplace(for_scratch_files());
  std::error_code error;
  recover_output_folder(checkpoint());
  recover_output_folder(best());
  recover_output_folder(adapter());
  for (const fs::path& path : entries(path_)) {
    const std::string name = path.filename().string();
    if (fs::is_regular_file(path) && name.find(".partial-") != std::string::npos) fs::remove(path, error);
    if (const auto found = step_of(name); found && fs::is_directory(path)) recover_output_folder(step(*found));
  }
}

const fs::path& RunFolder::for_scratch_files() const {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) fail(path_.string(), ": cannot be created: ", error.message());
  return path_;
}

void RunFolder::keep_step(int64_t newest, int64_t kept) const {
  if (kept > 0) link_folder(checkpoint(), step(newest));
  std::vector<int64_t> steps;
  for (const fs::path& path : entries(path_)) {
    const auto found = step_of(path.filename().string());
    if (found && path == step(*found)) steps.push_back(*found);
  }
  std::sort(steps.rbegin(), steps.rend());
  std::error_code ignored;
  for (size_t i = static_cast<size_t>(kept); i < steps.size(); ++i) fs::remove_all(step(steps[i]), ignored);
}

std::optional<int64_t> checkpoint_step(const fs::path& folder) {
  const fs::path file = folder / "training.json";
  if (!fs::exists(file)) return std::nullopt;
  const nlohmann::json json = load_json(file);
  const auto found = json.find("step");
  if (found == json.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int64_t>();
}

void link_folder(const fs::path& from, const fs::path& to) {
  OutputFolder folder(to);
  for (const fs::path& path : entries(from)) {
    const fs::path target = folder.working_path() / path.filename();
    std::error_code error;
    fs::create_hard_link(path, target, error);
    if (!error) continue;
    fs::copy_file(path, target, error);
    if (error) fail(target.string(), ": cannot be written: ", error.message());
  }
  folder.commit();
}

}  // namespace qat
