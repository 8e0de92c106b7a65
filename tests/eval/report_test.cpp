#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "core/output_file.h"
#include "core/random.h"
#include "eval/html_report.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TemporaryFolder;

TEST(Table, AlignsNumbersRightAndTextLeft) {
  const Table table{{"model", "perplexity", "Δ"}, {{"BF16", "9.50", ""}, {"RTN, Q4_0", "12.25", "+2.75"}}};
  EXPECT_EQ(format_table(table),
            "model      perplexity      Δ\n"
            "---------  ----------  -----\n"
            "BF16             9.50\n"
            "RTN, Q4_0       12.25  +2.75\n");
}

TEST(Table, FormatsNumbers) {
  EXPECT_EQ(format_fixed(2.0 / 3, 3), "0.667");
  EXPECT_EQ(format_significant(0.000012345, 2), "1.2e-05");
  EXPECT_EQ(format_percent(0.6154, 1), "61.5 %");
  EXPECT_EQ(format_fixed(std::nan(""), 3), "n/a");
}

TEST(PlotAxis, HasRoundTicksAroundTheData) {
  EXPECT_THAT(PlotAxis(AxisScale::Linear, {3, 97}).ticks(), ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(PlotAxis(AxisScale::Logarithmic, {0.003, 70}).ticks(),
              ElementsAre(::testing::DoubleNear(1e-3, 1e-15), ::testing::DoubleNear(1e-2, 1e-14),
                          ::testing::DoubleNear(0.1, 1e-13), 1, 10, 100));
  const PlotAxis narrow(AxisScale::Logarithmic, {1.2, 4});
  EXPECT_THAT(narrow.ticks(), ElementsAre(1, 2, 5));
  EXPECT_DOUBLE_EQ(narrow.position(5), 1);
  EXPECT_DOUBLE_EQ(narrow.position(-1), 0);
}

TEST(PlotAxis, CoversAnyData) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  for (int trial = 0; trial < 2000; ++trial) {
    const AxisScale scale = trial % 2 == 0 ? AxisScale::Linear : AxisScale::Logarithmic;
    const double magnitude = std::pow(10.0, 16 * random.uniform() - 8);
    std::vector<double> values;
    for (uint64_t i = random.below(4) + 1; i > 0; --i) {
      values.push_back(magnitude * (random.uniform() + (scale == AxisScale::Linear ? -0.5 : 1e-3)));
    }
    const PlotAxis axis(scale, values);
    ASSERT_GE(axis.ticks().size(), 2u);
    ASSERT_LE(axis.ticks().size(), 12u);
    for (const double value : values) {
      ASSERT_GE(value, axis.low() - 1e-8 * std::fabs(value));
      ASSERT_LE(value, axis.high() + 1e-8 * std::fabs(value));
    }
    ASSERT_LT(axis.low(), axis.high());
  }
}

TEST(PlotAxis, SurvivesDataWithoutRange) {
  for (const auto& values : std::vector<std::vector<double>>{{}, {0}, {5}, {-2, -2}, {std::nan("")}}) {
    for (const AxisScale scale : {AxisScale::Linear, AxisScale::Logarithmic}) {
      const PlotAxis axis(scale, values);
      EXPECT_LT(axis.low(), axis.high());
      EXPECT_TRUE(std::isfinite(axis.position(1)));
    }
  }
}

TEST(PlotAxis, LabelsAreShort) {
  EXPECT_EQ(tick_label(0), "0");
  EXPECT_EQ(tick_label(12000), "12,000");
  EXPECT_EQ(tick_label(-1500), "-1,500");
  EXPECT_EQ(tick_label(999), "999");
  EXPECT_EQ(tick_label(1234567), "1,234,567");
  EXPECT_EQ(tick_label(0.25), "0.25");
  EXPECT_EQ(tick_label(0.30000000000000004), "0.3");
  EXPECT_EQ(tick_label(1e-5), "1e-5");
  EXPECT_EQ(tick_label(2e8), "2e8");
  EXPECT_EQ(tick_label(1234.5), "1,234.5");
}

TEST(MetricSeries, ReadsNestedFieldsOfResumedAndKilledRuns) {
  const TemporaryFolder folder;
  write_file(folder / "metrics.jsonl",
             "{\"kind\": \"step\", \"step\": 1, \"loss\": 4.5}\n"
             "{\"kind\": \"step\", \"step\": 2, \"loss\": 4.0, \"more\": {\"kl\": 0.5}}\n"
             "{\"kind\": \"eval\", \"step\": 2, \"loss\": 7.0}\n"
             "{\"kind\": \"step\", \"step\": 3, \"loss\": 9.0}\n"
             "{\"kind\": \"step\", \"step\": 3, \"loss\": 3.5, \"more\": {\"kl\": 0.25}}\n"
             "{\"kind\": \"step\", \"step\": 4, \"lo");
  const Series loss = read_metric_series(folder / "metrics.jsonl", "step", "loss", "run");
  EXPECT_THAT(loss.x, ElementsAre(1, 2, 3));
  EXPECT_THAT(loss.y, ElementsAre(4.5, 4.0, 3.5));
  const Series kl = read_metric_series(folder / "metrics.jsonl", "step", "more.kl", "run");
  EXPECT_THAT(kl.x, ElementsAre(2, 3));
  EXPECT_THAT(kl.y, ElementsAre(0.5, 0.25));
  EXPECT_THAT(read_metric_series(folder / "metrics.jsonl", "eval", "loss", "run").y, ElementsAre(7));

  write_file(folder / "bad.jsonl", "{\"step\": 1}\n{\"step\": \n{\"step\": 3}\n");
  expect_error([&] { read_metric_series(folder / "bad.jsonl", "step", "loss", "run"); }, {"bad.jsonl line 2"});
}

TEST(MetricSeries, ThinningKeepsEveryPeakAndTheOrder) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  Series series;
  for (int step = 0; step < 100'000; ++step) series.put(step, random.uniform());
  const size_t peak = random.below(100'000);
  const size_t dip = random.below(100'000);
  series.y[peak] = 7;
  series.y[dip] = -7;
  const Series thin = thinned(series, 500);
  EXPECT_LE(thin.x.size(), 500U);
  EXPECT_GT(thin.x.size(), 400U);
  EXPECT_TRUE(std::ranges::is_sorted(thin.x));
  for (size_t i = 0; i < thin.x.size(); ++i) EXPECT_EQ(thin.y[i], series.y[static_cast<size_t>(thin.x[i])]);
  EXPECT_EQ(std::ranges::max(thin.y), series.y[peak]);
  EXPECT_EQ(std::ranges::min(thin.y), series.y[dip]);
  EXPECT_EQ(thinned(thin, 500).y, thin.y);
}

Report sample_report() {
  SplitMix64 random(4);
  Report report;
  report.title = "Quickstart: BF16, RTN and QAT <Q4_0>";
  report.introduction = {"KL is measured against the BF16-tuned model, on documents that no run has seen."};
  const Table table{{"model", "size (MB)", "bits/weight", "perplexity", "KL to BF16", "accuracy", "greedy agreement"},
                    {{"BF16", "7.4", "16.00", "4.812", "0", "81.5 %", "100.0 %"},
                     {"RTN", "2.1", "4.55", "5.430", "0.0912", "74.0 %", "61.2 %"},
                     {"QAT", "2.1", "4.55", "4.951", "0.0288", "80.0 %", "79.8 %"}}};
  LinePlot loss{
      {"Training loss", "step", "loss (nats per token)"}, AxisScale::Linear, {{"BF16", {}, {}}, {"QAT", {}, {}}}};
  LinePlot kl{
      {"Held-out KL to the BF16 model", "step", "KL (nats per token)"}, AxisScale::Logarithmic, {{"QAT", {}, {}}}};
  for (int step = 1; step <= 200; ++step) {
    for (size_t s = 0; s < 2; ++s) {
      loss.series[s].x.push_back(step);
      loss.series[s].y.push_back(1.6 + 0.1 * static_cast<double>(s) + 2 * std::exp(-step / 30.0) +
                                 0.08 * random.uniform());
    }
    if (step % 20 == 0) {
      kl.series[0].x.push_back(step);
      kl.series[0].y.push_back(0.0288 + 0.3 * std::exp(-step / 35.0));
    }
  }
  ScatterPlot scatter{{"KL per document", "RTN (nats per token)", "QAT (nats per token)"},
                      AxisScale::Logarithmic,
                      true,
                      {{"document", {}, {}}}};
  Histogram histogram{{"KL per token", "KL (nats)", "tokens"}, AxisScale::Logarithmic, 40, {{"RTN", {}}, {"QAT", {}}}};
  for (int i = 0; i < 150; ++i) {
    const double rtn = 0.09 * std::exp(2 * random.uniform() - 1);
    scatter.series[0].x.push_back(rtn);
    scatter.series[0].y.push_back(rtn * (0.2 + 0.3 * random.uniform()));
  }
  for (int i = 0; i < 5000; ++i) {
    const double spread = random.uniform() + random.uniform() + random.uniform() + random.uniform() - 2;
    histogram.groups[0].values.push_back(0.05 * std::exp(4 * spread));
    histogram.groups[1].values.push_back(0.016 * std::exp(4 * spread));
  }
  report.sections = {{"Result", {table}},
                     {"Training", {loss, kl}},
                     {"Where the error is",
                      {std::string("A point below the line is a document that QAT improved."), scatter, histogram}}};
  return report;
}

TEST(HtmlReport, IsSelfContainedAndEscaped) {
  const std::string html = render_html(sample_report());
  EXPECT_THAT(html, HasSubstr("<title>Quickstart: BF16, RTN and QAT &lt;Q4_0&gt;</title>"));
  EXPECT_THAT(html, HasSubstr("prefers-color-scheme: dark"));
  EXPECT_THAT(html, HasSubstr("<td class=\"number\">4.951</td>"));
  EXPECT_THAT(html, HasSubstr("<a href=\"#section-2\">Training</a>"));
  EXPECT_THAT(html, HasSubstr("<section id=\"section-2\">"));
  for (const char* external : {"http:", "https:", "<script", "<link", "<img", "url(", "@import", "nan", "inf'"}) {
    EXPECT_THAT(html, Not(HasSubstr(external)));
  }
}

TEST(HtmlReport, DrawsEveryFigure) {
  const std::string html = render_html(sample_report());
  size_t figures = 0;
  for (size_t at = html.find("<svg"); at != std::string::npos; at = html.find("<svg", at + 1)) ++figures;
  EXPECT_EQ(figures, 4u);
  for (const char* label :
       {"loss (nats per token)", "KL per document", ">tokens<", "class='diagonal'", "class='area'"}) {
    EXPECT_THAT(html, HasSubstr(label));
  }
}

TEST(HtmlReport, DrawsPlotsWithoutData) {
  Report report;
  report.sections = {{"Empty",
                      {LinePlot{{"none", "x", "y"}, AxisScale::Linear, {{"a", {}, {}}}},
                       ScatterPlot{{"none", "x", "y"}, AxisScale::Logarithmic, true, {{"a", {0}, {-1}}}},
                       Histogram{{"none", "x", "y"}, AxisScale::Linear, 5, {}}}}};
  EXPECT_THAT(render_html(report), Not(HasSubstr("nan")));
}

// Where a value is drawn: the x axis spans 74 to 700 of the page, the y axis 326 down to 66.
TEST(Plot, PutsPointsWhereTheAxesSay) {
  const LinePlot plot{{"t", "x", "y"}, AxisScale::Linear, {{"a", {0, 5, 10}, {0, 10, 5}}}};
  EXPECT_THAT(svg(plot), HasSubstr("d='M74.0 326.0L387.0 66.0L700.0 196.0'"));
  const Histogram histogram{{"t", "x", "y"}, AxisScale::Linear, 2, {{"a", {0, 1, 2, 9, 10}}}};
  // Three of the five values lie below 5, two above; the axis ends at 3.
  EXPECT_THAT(svg(histogram), HasSubstr("M74.0 326.0L74.0 66.0L387.0 66.0L387.0 152.7L700.0 152.7L700.0 326.0"));
}

TEST(Plot, AColorStaysWithItsSeries) {
  const LinePlot plot{{"t", "x", "y"}, AxisScale::Linear, {{"a", {0, 1}, {0, 1}, 3}, {"b", {0, 1}, {1, 0}}}};
  const std::string text = svg(plot);
  EXPECT_THAT(text, HasSubstr("class='curve' stroke='var(--series-3)'"));
  EXPECT_THAT(text, HasSubstr("class='curve' stroke='var(--series-1)'"));
}

// Each curve has dashes of its own, the same in the legend.
TEST(Plot, CurvesAreToldApartWithoutTheirColors) {
  LinePlot plot{{"t", "x", "y"}, AxisScale::Linear, {}};
  for (int i = 0; i < kSeriesColors; ++i) plot.series.push_back({std::to_string(i), {0, 1}, {0, 1}});
  const std::string text = svg(plot);
  std::map<std::string, int> uses;
  const std::string attribute = "stroke-dasharray='";
  for (size_t at = text.find(attribute); at != std::string::npos; at = text.find(attribute, at + 1)) {
    const size_t begin = at + attribute.size();
    ++uses[text.substr(begin, text.find('\'', begin) - begin)];
  }
  EXPECT_EQ(uses.size(), static_cast<size_t>(kSeriesColors));
  for (const auto& [dashes, count] : uses) EXPECT_EQ(count, 2) << dashes;
}

// The legend's marks and the outlines differ in their dashes, points in their shape.
TEST(Plot, GroupsAndPointSetsAreToldApartWithoutTheirColors) {
  const std::string outlines = svg(Histogram{{"t", "x", "y"}, AxisScale::Linear, 2, {{"a", {0, 1}}, {"b", {0, 1}}}});
  EXPECT_THAT(outlines,
              HasSubstr("class='area' fill='var(--series-1)' stroke='var(--series-1)' stroke-dasharray='8 4'"));
  EXPECT_THAT(outlines, HasSubstr("class='key curve' stroke='var(--series-1)' stroke-dasharray='8 4'"));
  const std::string points =
      svg(ScatterPlot{{"t", "x", "y"}, AxisScale::Linear, false, {{"a", {0}, {0}}, {"b", {10}, {10}}}});
  EXPECT_THAT(points, HasSubstr("d='M70.5 326.0a3.5"));             // a circle at the lower left
  EXPECT_THAT(points, HasSubstr("d='M696.5 62.5h7.0v7.0h-7.0z'"));  // a square at the upper right
}

TEST(Plot, NamesBesidePointsDoNotCoverEachOther) {
  const NamedPoints plot{{"t", "x", "y"},
                         AxisScale::Logarithmic,
                         {{"low", 4.5, 0.001}, {"same", 4.5, 0.001}, {"none", 16, 0}, {"far", 8, 0.1}}};
  const std::string text = svg(plot);
  EXPECT_THAT(text, Not(HasSubstr(">none<")));
  EXPECT_THAT(text, HasSubstr("y='330.0' class='legend'>low<"));
  EXPECT_THAT(text, HasSubstr("y='346.0' class='legend'>same<"));
  EXPECT_THAT(text, HasSubstr("class='legend end'>far<"));
}

TEST(Plot, IntervalsLieAroundTheirDots) {
  const IntervalPlot plot{"t", "x", {{"a", {50, {0, 100}}}, {"b", {50, {25, 75}}}}};
  const std::string text = svg(plot);
  EXPECT_THAT(text, HasSubstr("M74.0 81.0H700.0"));
  EXPECT_THAT(text, HasSubstr("M230.5 111.0H543.5"));
  EXPECT_THAT(text, HasSubstr("d='M382.0 111.0a5.0"));
}

TEST(Plot, BothAxesMayBeLogarithmic) {
  const LinePlot plot{
      {"t", "x", "y"}, AxisScale::Logarithmic, {{"a", {0, 0.001, 1000}, {1, 0.001, 1000}}}, AxisScale::Logarithmic};
  EXPECT_THAT(svg(plot), HasSubstr("d='M74.0 326.0L700.0 66.0'"));  // 0 has no place on the axis
}

TEST(Plot, ALogarithmicHistogramKeepsTinyValuesInItsFirstBin) {
  const Histogram plot{{"t", "x", "y"}, AxisScale::Logarithmic, 6, {{"a", {0, 1e-30, -1, 1, 1}}}};
  // Three values in the first of six bins, two in the last: 1e-6 to 1.
  EXPECT_THAT(svg(plot), HasSubstr("d='M74.0 326.0L74.0 66.0L178.3 66.0"));
  EXPECT_THAT(svg(plot), HasSubstr("L700.0 152.7L700.0 326.0"));
}

TEST(Plot, LongLegendsAreBrokenIntoLines) {
  LinePlot plot{{"t", "x", "y"}, AxisScale::Linear, {}};
  for (int i = 0; i < 4; ++i) plot.series.push_back({"a run with a long name", {0, 1}, {0, 1}});
  EXPECT_THAT(svg(plot), HasSubstr("viewBox='0 -20.0 720.0 400.0'"));
}

TEST(Plot, BreaksACurveWhereAValueIsMissing) {
  const LinePlot plot{{"t", "x", "y"}, AxisScale::Linear, {{"a", {0, 1, 2, 3}, {0, std::nan(""), 1, 2}}}};
  const std::string text = svg(plot);
  EXPECT_THAT(text, Not(HasSubstr("nan")));
  const size_t path = text.rfind("class='curve'");  // the first is the legend's
  const std::string curve = text.substr(path, text.find("/>", path) - path);
  EXPECT_EQ(std::ranges::count(curve, 'M'), 2);
}

}  // namespace
}  // namespace qat
