#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/measure.h"
#include "cli/open_model.h"
#include "core/error.h"
#include "eval/table.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat eval MODEL --data FILE [--reference MODEL] [--json]",
    "Measures a model on a file. Text and chats: perplexity over the trained tokens, and with --reference the KL divergence "
    "from the reference's distributions. Multiple choice (choices, answer): accuracy as lm-evaluation-harness counts it.\n"
    "Intervals are 95 %, over documents (bootstrap) or items (Wilson).",
    "  gemma-qat eval e2b.gguf --data heldout.jsonl --reference gemma-4-E2B-it\n"
    "  gemma-qat eval runs/e2b/checkpoint --data questions.jsonl --json"};

void print_choices(const ChoiceSummary& summary, bool as_json) {
  if (as_json) {
    const auto entry = [](const Accuracy& accuracy) {
      return nlohmann::ordered_json{{"share", accuracy.share},
                                    {"correct", accuracy.correct},
                                    {"items", accuracy.items},
                                    {"interval", {accuracy.interval.low, accuracy.interval.high}}};
    };
    const nlohmann::ordered_json json{{"accuracy", entry(summary.accuracy)},
                                      {"accuracy_by_characters", entry(summary.accuracy_by_characters)},
                                      {"accuracy_by_bytes", entry(summary.accuracy_by_bytes)}};
    std::printf("%s\n", json.dump(2).c_str());
    return;
  }
  const auto line = [](const char* name, const Accuracy& accuracy) {
    std::printf("%-10s %s (%" PRId64 " of %" PRId64 ", 95 %% interval %s to %s)\n", name, format_percent(accuracy.share, 1).c_str(),
                accuracy.correct, accuracy.items, format_percent(accuracy.interval.low, 1).c_str(),
                format_percent(accuracy.interval.high, 1).c_str());
  };
  line("acc", summary.accuracy);
  line("acc_norm", summary.accuracy_by_characters);
  line("acc_bytes", summary.accuracy_by_bytes);
}

void print_text(const TextMeasures& measures, bool as_json) {
  const TextSummary summary = summarize(measures);
  const auto tokens = token_column(measures);
  const Estimate loss = bootstrap_ratio(column(measures, &DocumentMeasures::negative_log_likelihood), tokens, {});
  nlohmann::ordered_json json{{"documents", summary.documents},
                              {"tokens", summary.tokens},
                              {"perplexity", summary.perplexity},
                              {"loss", summary.mean_negative_log_likelihood},
                              {"loss_interval", {loss.interval.low, loss.interval.high}}};
  if (summary.divergence) {
    const DivergenceSummary& kl = *summary.divergence;
    const Estimate mean = bootstrap_ratio(column(measures, &DocumentMeasures::divergence), tokens, {});
    json["kl"] = {{"mean", kl.mean},
                  {"interval", {mean.interval.low, mean.interval.high}},
                  {"median", kl.median},
                  {"percentile_90", kl.percentile_90},
                  {"percentile_99", kl.percentile_99},
                  {"percentile_99_9", kl.percentile_99_9},
                  {"maximum", kl.maximum},
                  {"same_top", kl.same_top_share},
                  {"mean_probability_change", kl.mean_probability_change},
                  {"rms_probability_change", kl.rms_probability_change},
                  {"reference_perplexity", kl.reference_perplexity}};
  }
  if (as_json) {
    std::printf("%s\n", json.dump(2).c_str());
    return;
  }
  std::printf("%" PRId64 " documents, %" PRId64 " tokens\n", summary.documents, summary.tokens);
  std::printf("perplexity  %s   (loss %s, 95 %% interval %s to %s)\n", format_fixed(summary.perplexity, 4).c_str(),
              format_fixed(loss.value, 4).c_str(), format_fixed(loss.interval.low, 4).c_str(),
              format_fixed(loss.interval.high, 4).c_str());
  if (!summary.divergence) return;
  const DivergenceSummary& kl = *summary.divergence;
  std::printf("KL          %s   (95 %% interval %s to %s)\n", format_significant(kl.mean, 4).c_str(),
              format_significant(json["kl"]["interval"][0].get<double>(), 4).c_str(),
              format_significant(json["kl"]["interval"][1].get<double>(), 4).c_str());
  std::printf("  median %s, 90 %% %s, 99 %% %s, 99.9 %% %s, max %s\n", format_significant(kl.median, 3).c_str(),
              format_significant(kl.percentile_90, 3).c_str(), format_significant(kl.percentile_99, 3).c_str(),
              format_significant(kl.percentile_99_9, 3).c_str(), format_significant(kl.maximum, 3).c_str());
  std::printf("same top    %s   RMS Δp %s   reference perplexity %s\n", format_percent(kl.same_top_share, 2).c_str(),
              format_percent(kl.rms_probability_change, 3).c_str(), format_fixed(kl.reference_perplexity, 4).c_str());
}

}  // namespace

int command_eval(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("data", "JSONL or .txt file", cxxopts::value<std::string>())(
            "reference", "model that KL divergence is measured from", cxxopts::value<std::string>())(
            "documents", "measure only the first N documents or questions, 0 = all",
            cxxopts::value<int64_t>()->default_value("0"))(
            "max-tokens", "longest window of a document", cxxopts::value<int64_t>()->default_value("2048"))(
            "json", "print JSON");
        describe_model_options(options);
        describe_adapter_option(options);
      },
      1, 1);
  if (parsed.helped) return 0;
  if (parsed.options.count("data") == 0) fail_usage("--data is missing\n  usage: ", kHelp.usage);
  const std::string data = parsed.options["data"].as<std::string>();
  const ModelOptions model_options = read_model_options(parsed.options);
  const MeasureOptions measure{parsed.options["documents"].as<int64_t>(), parsed.options["max-tokens"].as<int64_t>()};
  const bool json = parsed.options.count("json") > 0;

  const std::string& path = parsed.positional[0];
  OpenedModel opened = open_model(path, model_options);
  opened.require_tokenizer(path);
  if (is_multiple_choice_file(data)) {
    print_choices(summarize(measure_questions(opened, data, measure)), json);
    return 0;
  }
  std::optional<OpenedModel> reference;
  if (parsed.options.count("reference") > 0) {
    ModelOptions reference_options = model_options;
    reference_options.adapter.clear();
    reference = open_model(parsed.options["reference"].as<std::string>(), reference_options);
  }
  const auto documents = load_documents(opened, data, measure);
  print_text(measure_documents(opened, reference ? &*reference : nullptr, documents, measure), json);
  return 0;
}

}  // namespace qat
