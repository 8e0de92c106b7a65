#include "cli/measure.h"

#include "core/error.h"
#include "core/terminal.h"

namespace qat {

namespace {

// Progress over counts that come as totals.
std::function<void(int64_t, int64_t)> advance(Progress& progress, int64_t& last) {
  return [&progress, &last](int64_t done, int64_t) {
    progress.advance(done - last);
    last = done;
  };
}

void keep_first(auto& items, int64_t count) {
  if (count > 0 && static_cast<int64_t>(items.size()) > count) items.erase(items.begin() + count, items.end());
}

}  // namespace

std::vector<Example> load_documents(const OpenedModel& opened, const std::string& data, const MeasureOptions& options) {
  auto documents = load_examples(data, opened.require_tokenizer(data), opened.dataset_options());
  keep_first(documents, options.documents);
  return documents;
}

TextMeasures measure_documents(OpenedModel& opened, OpenedModel* reference, const std::vector<Example>& documents,
                               const MeasureOptions& options) {
  Progress progress("measuring", static_cast<int64_t>(documents.size()), "documents");
  int64_t last = 0;
  TextOptions text;
  text.max_tokens = options.max_tokens;
  text.on_progress = advance(progress, last);
  return measure_text(*opened.model, reference == nullptr ? nullptr : reference->model.get(), documents, text);
}

std::vector<ChoiceResult> measure_questions(OpenedModel& opened, const std::string& data, const MeasureOptions& options) {
  auto questions = load_multiple_choice(data);
  keep_first(questions, options.documents);
  RenderOptions render;
  render.add_generation_prompt = true;
  std::vector<ChoiceItem> items;
  for (const auto& question : questions) {
    items.push_back(make_choice_item(opened.require_tokenizer(data), question, opened.chat_template, render));
  }
  Progress progress("measuring", static_cast<int64_t>(items.size()), "questions");
  int64_t last = 0;
  return measure_choices(*opened.model, items, advance(progress, last));
}

}  // namespace qat
