#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/open_model.h"
#include "core/error.h"
#include "eval/generate.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat generate MODEL (--prompt TEXT | --tokens 2,30,40) [--chat] [--max-new N] [--top K] [--json]",
    "Continues a prompt greedily. MODEL is a model folder, a checkpoint (run with its fake quantization; --plain without) or "
    "a GGUF file (run by the built-in reference inference). Stops early only at a stop token.",
    "  gemma-qat generate e2b.gguf --chat --prompt \"Why is the sky blue?\"\n"
    "  gemma-qat generate e2b.gguf --tokens 2,30,40 --max-new 8 --top 5 --json --arithmetic device"};

std::vector<int32_t> parse_tokens(const std::string& text, int64_t vocabulary) {
  std::vector<int32_t> tokens;
  const char* next = text.data();
  const char* end = next + text.size();
  for (;;) {
    int32_t token = 0;
    const auto [after, error] = std::from_chars(next, end, token);
    if (error != std::errc() || (after != end && *after != ',')) {
      fail_usage("--tokens ", text, ": wanted token ids separated by commas, for example 2,30,40");
    }
    if (token < 0 || token >= vocabulary) fail_usage("--tokens: ", token, " is outside the vocabulary of ", vocabulary);
    tokens.push_back(token);
    if (after == end) return tokens;
    next = after + 1;
  }
}

std::vector<int32_t> prompt_tokens(const cxxopts::ParseResult& options, const OpenedModel& opened, const std::string& path) {
  if (options.count("tokens") > 0) return parse_tokens(options["tokens"].as<std::string>(), opened.config.vocabulary_size);
  const Tokenizer& tokenizer = opened.require_tokenizer(path);
  const bool chat = options.count("chat") > 0;
  if (chat && !opened.chat_template) {
    fail_usage(path, ": the model brings no chat template that is known; name one with --chat-template");
  }
  RenderOptions render;
  render.add_generation_prompt = true;
  return tokenize_prompt(tokenizer, options["prompt"].as<std::string>(),
                         chat ? opened.chat_template : std::optional<ChatTemplate>(), render);
}

void print_json(const std::vector<int32_t>& prompt, const std::vector<GeneratedStep>& steps, const std::string& text) {
  // ordered_json keeps entries in a vector: references into it do not survive an insertion.
  nlohmann::ordered_json tokens = nlohmann::ordered_json::array();
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const GeneratedStep& step : steps) {
    tokens.push_back(step.token);
    nlohmann::ordered_json top = nlohmann::ordered_json::array();
    for (const auto& [token, logprob] : step.top) top.push_back({{"token", token}, {"logprob", logprob}});
    list.push_back({{"top", std::move(top)}});
  }
  const nlohmann::ordered_json json{{"prompt_tokens", prompt}, {"tokens", tokens}, {"text", text}, {"steps", list}};
  std::printf("%s\n", json.dump().c_str());
}

}  // namespace

int command_generate(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("prompt", "text to continue", cxxopts::value<std::string>())(
            "tokens", "token ids to continue, as they are", cxxopts::value<std::string>())(
            "chat", "the prompt is a user's turn in the model's chat template")(
            "max-new", "most new tokens", cxxopts::value<int64_t>()->default_value("128"))(
            "top", "log-probabilities of the K most likely tokens per step", cxxopts::value<int64_t>()->default_value("0"))(
            "json", "print prompt_tokens, tokens, text and steps as JSON");
        describe_model_options(options);
        describe_adapter_option(options);
      },
      1, 1);
  if (parsed.helped) return 0;
  if (parsed.options.count("prompt") + parsed.options.count("tokens") != 1) {
    fail_usage("give either --prompt or --tokens\n  usage: ", kHelp.usage);
  }
  GenerateOptions options;
  options.max_new = parsed.options["max-new"].as<int64_t>();
  options.top = parsed.options["top"].as<int64_t>();
  if (options.max_new < 1) fail_usage("--max-new ", options.max_new, ": wanted 1 or more");
  if (options.top < 0) fail_usage("--top ", options.top, ": wanted 0 or more");

  const std::string& path = parsed.positional[0];
  OpenedModel opened = open_model(path, read_model_options(parsed.options));
  options.stop_tokens = opened.stop_tokens;
  const auto prompt = prompt_tokens(parsed.options, opened, path);
  const auto is_stop = [&](int32_t token) {
    return std::find(options.stop_tokens.begin(), options.stop_tokens.end(), token) != options.stop_tokens.end();
  };

  // Text so far is printed as it grows; a cut multi-byte character waits for its rest.
  const bool json = parsed.options.count("json") > 0;
  std::vector<int32_t> tokens;
  std::string printed;
  // The embedding table may have more rows than the tokenizer has pieces; such tokens have no text.
  const auto text_of = [&] {
    if (!opened.tokenizer) return std::string();
    std::vector<int32_t> known;
    std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(known),
                 [&](int32_t token) { return token < opened.tokenizer->vocabulary_size(); });
    return opened.tokenizer->decode(known);
  };
  options.on_step = [&](const GeneratedStep& step) {
    if (is_stop(step.token)) return;
    tokens.push_back(step.token);
    if (json || !opened.tokenizer) return;
    const std::string text = text_of();
    if (!text.starts_with(printed) || text.ends_with("\uFFFD")) return;
    std::fputs(text.c_str() + printed.size(), stdout);
    std::fflush(stdout);
    printed = text;
  };
  const auto steps = generate(*opened.model, prompt, options);
  if (json) {
    print_json(prompt, steps, text_of());
  } else if (opened.tokenizer) {
    const std::string text = text_of();
    std::printf("%s\n", text.starts_with(printed) ? text.c_str() + printed.size() : "");
  } else {
    for (const int32_t token : tokens) std::printf("%d ", token);
    std::printf("\n");
  }
  return 0;
}

}  // namespace qat
