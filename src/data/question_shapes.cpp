#include <locale.h>
#include <wctype.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/question.h"
#include "data/record_fields.h"
#include "data/utf8.h"

namespace qat {
namespace {

using nlohmann::ordered_json;

int64_t answer_index(const ordered_json& answer, size_t choices) {
  int64_t index = -1;
  if (answer.is_number_integer()) {
    index = answer.get<int64_t>();
  } else if (answer.is_string()) {
    const auto text = std::string(trim_white_space(answer.get<std::string>()));
    if (text.size() == 1 && ((text[0] >= 'A' && text[0] <= 'Z') || (text[0] >= 'a' && text[0] <= 'z'))) {
      index = (text[0] | 0x20) - 'a';
    } else {
      const auto read = std::from_chars(text.data(), text.data() + text.size(), index);
      if (read.ec != std::errc() || read.ptr != text.data() + text.size()) index = -1;
    }
  }
  if (index < 0 || index >= static_cast<int64_t>(choices)) {
    fail("the answer is ", answer.dump(), "; an index from 0 to ", choices - 1, ", or a letter, is wanted");
  }
  return index;
}

std::vector<std::string> text_list(const ordered_json& texts, const char* name) {
  if (!texts.is_array() || texts.size() < 2)
    fail(name, " is ", texts.dump(), "; a list of two or more texts is wanted");
  std::vector<std::string> list;
  for (const ordered_json& text : texts) {
    if (!text.is_string() || text.get_ref<const std::string&>().empty()) {
      fail(name, " has ", text.dump(), ", text is wanted");
    }
    list.push_back(text.get<std::string>());
  }
  return list;
}

const ordered_json& field(const ordered_json& line, const char* name) { return line[first_of(line, {name})]; }

MultipleChoiceQuestion read_plain(const ordered_json& line) {
  MultipleChoiceQuestion question;
  question.question = filled_text(line, first_of(line, {"question", "query", "ctx"}));
  const char* name = first_of(line, {"choices", "endings"});
  question.choices = text_list(line[name], name);
  question.answer = answer_index(line[first_of(line, {"answer", "label", "gold"})], question.choices.size());
  return question;
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

// HellaSwag's texts hold marks of WikiHow; Python's re.sub("\\[.*?\\]", "", text) takes them out.
void remove_brackets(std::string& text) {
  for (size_t open = text.find('['); open != std::string::npos; open = text.find('[', open)) {
    const size_t close = text.find_first_of("]\n", open);
    if (close == std::string::npos || text[close] == '\n') {
      ++open;
    } else {
      text.erase(open, close + 1 - open);
    }
  }
}

std::string clean_hellaswag(const std::string& raw) {
  std::string text(trim_white_space(raw));
  replace_all(text, " [title]", ". ");
  remove_brackets(text);
  replace_all(text, "  ", " ");
  return text;
}

// Python's str.capitalize(), but for the few letters whose other case is more than one letter.
std::string capitalized(const std::string& text) {
  static const locale_t kUnicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  QAT_CHECK(kUnicode != nullptr);
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    const auto letter = static_cast<wint_t>(point.value);
    append_utf8(result, static_cast<char32_t>(i == 0 ? towupper_l(letter, kUnicode) : towlower_l(letter, kUnicode)));
    i += point.length;
  }
  return result;
}

MultipleChoiceQuestion read_hellaswag(const ordered_json& line) {
  MultipleChoiceQuestion question;
  const std::string context = text_of(line, "ctx_a") + " " + capitalized(text_of(line, "ctx_b"));
  question.question = clean_hellaswag(text_of(line, "activity_label") + ": " + context);
  for (const std::string& ending : text_list(field(line, "endings"), "endings")) {
    question.choices.push_back(clean_hellaswag(ending));
    if (question.choices.back().empty())
      fail("endings has \"", ending, "\", of which nothing is left without its marks");
  }
  question.answer = answer_index(field(line, "label"), question.choices.size());
  return question;
}

MultipleChoiceQuestion read_arc(const ordered_json& line) {
  MultipleChoiceQuestion question;
  question.question = "Question: " + filled_text(line, "question") + "\nAnswer:";
  const ordered_json& choices = field(line, "choices");
  if (!choices.is_object()) fail("choices is ", choices.type_name(), ", {\"text\": […], \"label\": […]} is wanted");
  question.choices = text_list(field(choices, "text"), "choices.text");
  const std::vector<std::string> labels = text_list(field(choices, "label"), "choices.label");
  if (labels.size() != question.choices.size()) {
    fail("choices has ", question.choices.size(), " texts and ", labels.size(), " labels");
  }
  const std::string key = text_of(line, "answerKey");
  const auto label = std::ranges::find(labels, key);
  if (label == labels.end()) fail("answerKey is \"", key, "\", which is none of the labels");
  question.answer = label - labels.begin();
  return question;
}

MultipleChoiceQuestion read_mmlu(const ordered_json& line) {
  MultipleChoiceQuestion question;
  question.subject = filled_text(line, "subject");
  std::string about = question.subject;
  std::ranges::replace(about, '_', ' ');
  question.preface = "The following are multiple choice questions (with answers) about " + about + ".\n\n";
  question.question = trim_white_space(filled_text(line, "question"));
  const std::vector<std::string> options = text_list(field(line, "choices"), "choices");
  if (options.size() > 26) fail("choices has ", options.size(), " texts, which are more than there are letters");
  for (const std::string& option : options) {
    question.choices.emplace_back(1, static_cast<char>('A' + question.choices.size()));
    question.question += "\n" + question.choices.back() + ". " + option;
  }
  question.question += "\nAnswer:";
  question.answer = answer_index(field(line, "answer"), question.choices.size());
  return question;
}

MultipleChoiceQuestion read_winogrande(const ordered_json& line) {
  MultipleChoiceQuestion question;
  const std::string sentence = filled_text(line, "sentence");
  const size_t blank = sentence.find('_');
  if (blank == std::string::npos) fail("sentence has no blank (_)");
  question.ending = trim_white_space(std::string_view(sentence).substr(blank + 1));
  if (question.ending.empty()) fail("sentence ends with its blank (_), so there is no text to score");
  for (const char* option : {"option1", "option2"}) {
    question.choices.push_back(sentence.substr(0, blank) + filled_text(line, option));
  }
  const std::string answer = text_of(line, "answer");
  if (answer != "1" && answer != "2") fail("the answer is \"", answer, "\"; \"1\" or \"2\" is wanted");
  question.answer = answer == "1" ? 0 : 1;
  return question;
}

MultipleChoiceQuestion read_piqa(const ordered_json& line) {
  MultipleChoiceQuestion question;
  question.question = "Question: " + filled_text(line, "goal") + "\nAnswer:";
  question.choices = {filled_text(line, "sol1"), filled_text(line, "sol2")};
  question.answer = answer_index(field(line, "label"), 2);
  return question;
}

}  // namespace

bool is_multiple_choice_line(const ordered_json& line) {
  return has(line, "choices") || has(line, "endings") || has(line, "sol1") || has(line, "option1");
}

MultipleChoiceQuestion read_multiple_choice(const ordered_json& line) {
  if (has(line, "activity_label")) return read_hellaswag(line);
  if (has(line, "answerKey")) return read_arc(line);
  if (has(line, "option1")) return read_winogrande(line);
  if (has(line, "sol1")) return read_piqa(line);
  if (has(line, "subject")) return read_mmlu(line);
  return read_plain(line);
}

}  // namespace qat
