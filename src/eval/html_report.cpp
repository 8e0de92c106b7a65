#include "eval/html_report.h"

#include <algorithm>

namespace qat {
namespace {

constexpr const char* kStyle = R"(
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --surface: #ffffff; --text: #1a1a19; --quiet: #5f5e5a; --rule: #e3e2de; --axis: #8c8b85; --shadow: #0003;
  --series-0: #2a6fd0; --series-1: #d9541e; --series-2: #12866a; --series-3: #a8730a;
  --series-4: #8a4bc4; --series-5: #c43d74; --series-6: #3f7d1f; --series-7: #6b6a65;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161615; --surface: #1f1f1e; --text: #f0efec; --quiet: #b1b0aa; --rule: #363533; --axis: #86857e; --shadow: #000c;
    --series-0: #6ea8ff; --series-1: #ff8f5c; --series-2: #3cc9a3; --series-3: #e8b94a;
    --series-4: #c39bf5; --series-5: #f58ab5; --series-6: #93cf6b; --series-7: #b8b7b0;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 75rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1, h2, p { overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 0.75rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.75rem; }
p { max-width: 46rem; margin: 0.5rem 0; color: var(--quiet); }
nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1.1rem; margin: 1.25rem 0 0; font-size: 0.93rem; }
a { color: var(--series-0); text-underline-offset: 0.2em; }
.figure { background: var(--surface); border: 1px solid var(--rule); border-radius: 8px; margin: 1rem 0; overflow-x: auto; }
/* A shadow at the side where a figure that is wider than the page goes on. */
.figure {
  background-image: linear-gradient(to right, var(--surface), transparent), linear-gradient(to left, var(--surface), transparent),
    linear-gradient(to right, var(--shadow), transparent), linear-gradient(to left, var(--shadow), transparent);
  background-position: left, right, left, right; background-repeat: no-repeat;
  background-size: 3rem 100%, 3rem 100%, 0.8rem 100%, 0.8rem 100%; background-attachment: local, local, scroll, scroll;
}
.plot { max-width: 62rem; padding: 0.75rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.93rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.5rem 0.75rem; text-align: left; vertical-align: top; white-space: nowrap; border-bottom: 1px solid var(--rule); }
.long { min-width: 15rem; white-space: normal; }
tr:last-child td, tr:last-child th { border-bottom: 0; }
thead th { color: var(--quiet); font-weight: 600; font-size: 0.87rem; border-bottom: 1px solid var(--axis); }
tbody th { font-weight: 600; }
tbody th.long { font-weight: 400; }
.number { text-align: right; }
svg { display: block; width: 100%; min-width: 45rem; max-width: 60rem; height: auto; font: 12px system-ui, "Segoe UI", sans-serif; }
svg text { fill: var(--quiet); }
svg .title { fill: var(--text); font-size: 15px; font-weight: 600; }
svg .legend { fill: var(--text); font-size: 13px; }
svg .label { font-size: 13px; }
svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--rule); }
svg .axis { stroke: var(--axis); }
svg .leader { stroke: var(--axis); fill: none; }
svg .diagonal { stroke: var(--axis); stroke-dasharray: 5 4; }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .area { fill-opacity: 0.15; stroke-width: 1.75; }
@media (max-width: 40rem) {
  main { padding: 1.25rem 0.75rem 2rem; }
  th, td { padding: 0.45rem 0.6rem; }
  .pairs th, .pairs td { white-space: normal; overflow-wrap: anywhere; }
}
@media print { .figure { break-inside: avoid; } }
)";

std::string paragraph(const std::string& text) { return "<p>" + escape_markup(text) + "</p>\n"; }

// How the cells of each column are shown: numbers to the right, texts that need it in several lines.
std::vector<std::string> column_styles(const Table& table) {
  constexpr size_t kLongText = 40;  // bytes
  const std::vector<bool> numeric = numeric_columns(table);
  std::vector<std::string> styles;
  for (size_t c = 0; c < table.header.size(); ++c) {
    const bool is_long = std::ranges::any_of(table.rows, [&](const auto& row) { return row[c].size() > kLongText; });
    styles.emplace_back(numeric[c] ? " class=\"number\"" : is_long ? " class=\"long\"" : "");
  }
  return styles;
}

std::string html(const Table& table) {
  const std::vector<std::string> styles = column_styles(table);
  const auto cell = [&](const std::string& tag, const std::string& attribute, size_t c, const std::string& text) {
    return "<" + tag + attribute + styles[c] + ">" + escape_markup(text) + "</" + tag + ">";
  };
  const bool is_list = table.header.size() == 2;
  std::string out =
      std::string("<div class=\"figure\"><table") + (is_list ? " class=\"pairs\"" : "") + ">\n<thead><tr>";
  for (size_t c = 0; c < table.header.size(); ++c) out += cell("th", " scope=\"col\"", c, table.header[c]);
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows) {
    out += "<tr>";
    for (size_t c = 0; c < row.size(); ++c) {
      out += c == 0 ? cell("th", " scope=\"row\"", c, row[c]) : cell("td", "", c, row[c]);
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

struct RenderItem {
  std::string operator()(const std::string& text) const { return paragraph(text); }
  std::string operator()(const Table& table) const { return html(table); }
  template <class Plot>
  std::string operator()(const Plot& plot) const {
    return "<div class=\"figure plot\">" + svg(plot) + "</div>\n";
  }
};

std::string anchor(size_t section) { return "section-" + std::to_string(section + 1); }

// Links to the sections.
std::string contents(const Report& report) {
  std::string out = "<nav>\n";
  for (size_t i = 0; i < report.sections.size(); ++i) {
    out += "<a href=\"#" + anchor(i) + "\">" + escape_markup(report.sections[i].heading) + "</a>\n";
  }
  return out + "</nav>\n";
}

}  // namespace

std::string render_html(const Report& report) {
  const std::string title = escape_markup(report.title);
  std::string out =
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      title + "</title>\n<style>" + kStyle + "</style>\n</head>\n<body>\n<main>\n<h1>" + title + "</h1>\n";
  for (const std::string& text : report.introduction) out += paragraph(text);
  out += contents(report);
  for (size_t i = 0; i < report.sections.size(); ++i) {
    const ReportSection& section = report.sections[i];
    out += "<section id=\"" + anchor(i) + "\">\n<h2>" + escape_markup(section.heading) + "</h2>\n";
    for (const ReportItem& item : section.items) out += std::visit(RenderItem{}, item);
    out += "</section>\n";
  }
  return out + "</main>\n</body>\n</html>\n";
}

}  // namespace qat
