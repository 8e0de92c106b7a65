#include "trainers/code_history.h"

#include "core/error.h"

namespace qat {

CodeChanges& CodeChanges::operator+=(const CodeChanges& more) {
  compared += more.compared;
  changed += more.changed;
  returned += more.returned;
  return *this;
}

CodeChanges CodeHistory::update(const std::string& weight, std::span<const int8_t> codes) {
  const std::vector<int8_t> present(codes.begin(), codes.end());
  const auto [entry, is_new] = samples_.try_emplace(weight, Sample{present, present});
  if (is_new) return {};
  auto& [now, before] = entry->second;
  QAT_CHECK(now.size() == codes.size());
  CodeChanges changes{static_cast<int64_t>(codes.size())};
  for (size_t i = 0; i < codes.size(); ++i) {
    if (codes[i] == now[i]) continue;
    ++changes.changed;
    if (codes[i] == before[i]) ++changes.returned;
    before[i] = now[i];
    now[i] = codes[i];
  }
  return changes;
}

}  // namespace qat
