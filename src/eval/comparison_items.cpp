#include "eval/comparison_items.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/utf8.h"

namespace qat {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMostItems = 10;
// Of a long text its beginning and its end: a question stands last, after the story that it is about.
std::string shortened(const std::string& text) {
  constexpr size_t kFirst = 40, kLast = 80;  // code points
  const std::string_view beginning = first_characters(text, kFirst), end = last_characters(text, kLast);
  if (beginning.size() + end.size() >= text.size()) return text;
  return join(beginning, " … ", end);
}

// With white space that would not be seen in a table.
std::string visible(const std::string& text) {
  std::string out;
  for (const char character : text) {
    if (character == '\n') {
      out += "⏎";
    } else if (character == '\t') {
      out += "⇥";
    } else {
      out += character;
    }
  }
  if (out.starts_with(' ')) out.replace(0, 1, "␣");
  if (out.ends_with(' ')) out.replace(out.size() - 1, 1, "␣");
  return out;
}

// Of WinoGrande the text after the choices stands for the question.
const std::string& text_of(const MultipleChoiceQuestion& question) {
  return question.question.empty() ? question.ending : question.question;
}

// Where a document stands: its file, without the folder, and line.
std::string place_of(const MeasuredModel& model, size_t document) {
  const int64_t line = model.text.documents[document].line;
  for (const MeasuredFile& file : model.files) {
    if (document < file.documents) return join(fs::path(file.name).filename().string(), " line ", line);
    document -= file.documents;
  }
  return join("line ", line);
}

}  // namespace

std::vector<FlippedItem> flipped_items(const MeasuredModel& reference, const MeasuredModel& model,
                                       std::span<const MultipleChoiceQuestion> questions) {
  QAT_CHECK(reference.choices.size() == questions.size() && model.choices.size() == questions.size());
  std::vector<FlippedItem> items;
  for (size_t i = 0; i < questions.size(); ++i) {
    const auto chosen = static_cast<size_t>(model.choices[i].chosen);
    const auto reference_chosen = static_cast<size_t>(reference.choices[i].chosen);
    if (chosen == reference_chosen) continue;
    const std::vector<double>& scores = model.choices[i].log_likelihoods;
    const MultipleChoiceQuestion& question = questions[i];
    items.push_back({question.line, shortened(text_of(question)),
                     question.choices[static_cast<size_t>(question.answer)], question.choices[reference_chosen],
                     question.choices[chosen], scores[chosen] - scores[reference_chosen]});
  }
  std::ranges::stable_sort(items, std::greater<>(), &FlippedItem::margin);
  items.resize(std::min(items.size(), kMostItems));
  return items;
}

Table flipped_table(std::span<const FlippedItem> items, const std::string& reference, const std::string& model) {
  Table table{{"question", "right", reference + " chose", model + " chose", "by (nats)"}, {}};
  for (const FlippedItem& item : items) {
    table.rows.push_back({visible(item.question), shortened(visible(item.right)),
                          shortened(visible(item.reference_choice)), shortened(visible(item.choice)),
                          format_fixed(item.margin, 2)});
  }
  return table;
}

Table worst_tokens_table(const MeasuredModel& model, const std::string& reference) {
  const auto percent = [](double share) { return format_significant(100 * share, 2) + " %"; };
  Table table{{"KL", "text before", "right token", "p of " + reference, "p of " + model.name,
               reference + " would write", model.name + " would write", "where"},
              {}};
  for (const StrayToken& token : model.text.places.worst()) {
    table.rows.push_back({format_significant(token.divergence, 3), visible(token.before), visible(token.right),
                          percent(token.reference_probability), percent(token.probability),
                          visible(token.reference_chosen), visible(token.chosen), place_of(model, token.document)});
  }
  return table;
}

Json flipped_json(std::span<const FlippedItem> items) {
  Json json = Json::array();
  for (const FlippedItem& item : items) {
    json.push_back({{"line", item.line},
                    {"question", item.question},
                    {"right", item.right},
                    {"reference_choice", item.reference_choice},
                    {"choice", item.choice},
                    {"margin", item.margin}});
  }
  return json;
}

Json worst_tokens_json(const MeasuredModel& model) {
  Json json = Json::array();
  for (const StrayToken& token : model.text.places.worst()) {
    json.push_back({{"where", place_of(model, token.document)},
                    {"position", token.position},
                    {"before", token.before},
                    {"right", token.right},
                    {"kl", token.divergence},
                    {"probability", token.probability},
                    {"reference_probability", token.reference_probability},
                    {"choice", token.chosen},
                    {"reference_choice", token.reference_chosen}});
  }
  return json;
}

}  // namespace qat
