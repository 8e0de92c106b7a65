#include "trainers/cache_teacher.h"

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/terminal.h"
#include "trainers/compute_settings.h"
#include "trainers/run_checks.h"
#include "trainers/teacher.h"
#include "trainers/teacher_cache.h"
#include "trainers/teacher_identity.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

void check_place(const fs::path& path, bool replace) {
  if (path.empty()) fail_usage("distillation.cache: is required (the file to write): distillation.cache=FILE");
  if (fs::exists(path) && !replace) fail_usage(path.string(), ": is there already; --force replaces it");
}

void check_disk_space(const fs::path& path, double bytes) {
  std::error_code error;
  const fs::space_info space = fs::space(fs::absolute(path).parent_path(), error);
  if (error || static_cast<double>(space.available) >= bytes) return;
  fail(path.string(), ": the teacher's states take ", format_bytes(bytes), ", ",
       format_bytes(static_cast<double>(space.available)), " are free. Free some, or choose another place ",
       "(distillation.cache=FILE)");
}

}  // namespace

int cache_teacher(TrainConfig config, bool replace) {
  const fs::path path = config.distillation.cache;
  check_place(path, replace);
  install_interrupt_handler();
  resolve_automatic_values(config);
  const Gemma4Config student = Gemma4Config::load(config.model);
  check_lengths(config, student);
  TrainingData data(config, student);
  auto folder = open_teacher(config, student);
  const at::ScalarType dtype = compute_type(config);
  const int64_t hidden_size = folder->config().hidden_size;
  const int64_t tokens = data.source().trained_tokens_per_epoch();
  const double bytes = static_cast<double>(tokens * hidden_size) * static_cast<double>(c10::elementSize(dtype));
  check_disk_space(path, bytes);

  TeacherCacheWriter cache(path, teacher_identity(config, *folder, data), data.source(), hidden_size, dtype);
  const std::unique_ptr<Teacher> teacher = run_teacher(std::move(folder), dtype, compute_device(config));
  Progress progress("caching the teacher", tokens, "trained tokens");
  while (!cache.is_complete()) {
    if (interrupt_requested()) {
      std::fputs("interrupted; nothing was written\n", stderr);
      return static_cast<int>(ExitCode::Interrupted);
    }
    const TrainingBatch batch = data.next();
    progress.advance(cache.add(batch, teacher->trained_states(batch)));
  }
  cache.commit();
  std::printf("wrote %s (%s trained tokens of %lld documents, %s, %s)\n", path.c_str(),
              format_count(static_cast<double>(tokens)).c_str(), static_cast<long long>(data.source().example_count()),
              config.dtype.c_str(), format_bytes(bytes).c_str());
  return 0;
}

}  // namespace qat
