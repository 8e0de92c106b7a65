#include "trainers/train_config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "trainers/config_checks.h"

namespace qat {

void DataConfig::visit_fields(FieldVisitor& visitor) {
  visitor.field("train", train, "training files: JSONL, or .txt with blank lines between documents");
  visitor.field("eval", eval, "held-out files; without them there is no evaluation and no best checkpoint");
  visitor.field("chat_template", chat_template, "gemma4, gemma4-large or gemma3; empty: the model's own");
  visitor.field("enable_thinking", enable_thinking, "render conversations with thinking switched on");
  visitor.field("parse_special_in_content", parse_special_in_content,
                "special tokens written inside a message become tokens");
  visitor.field("shuffle", shuffle, "a new seeded order of documents in every epoch");
}

void OptimizerConfig::visit_fields(FieldVisitor& visitor) {
  visitor.choice("kind", kind, {"adamw", "adamw8bit", "adafactor"},
                 "adamw8bit: moments in 8 bits; adafactor: a factored second moment only, beta1 and beta2 unused");
  visitor.choice("masters", masters, {"float32", "bfloat16"},
                 "bfloat16: the parameters themselves, rounded stochastically, which saves four bytes a weight");
  visitor.field("learning_rate", learning_rate, "the rate after the warm-up");
  visitor.field("beta1", beta1, "decay of the first moment");
  visitor.field("beta2", beta2, "decay of the second moment");
  visitor.field("epsilon", epsilon, "added to the root of the second moment");
  visitor.field("weight_decay", weight_decay, "decoupled decay of matrices and tables");
  visitor.field("warmup_steps", warmup_steps, "steps of linear warm-up");
  visitor.field("final_ratio", final_ratio, "rate at the last step, as a part of learning_rate (cosine)");
  visitor.field("clip_norm", clip_norm, "largest global gradient norm; 0: no clipping");
  visitor.field("step_in_backward", step_in_backward,
                "a weight moves as soon as its gradient is complete, which is then gone; less memory, same bits; a "
                "second forward and backward pass finds the norm first, unless clip_norm is 0");
}

void CalibrationConfig::visit_fields(FieldVisitor& visitor) {
  visitor.field("rows", rows, "packed training rows that are looked at");
  visitor.choice("method", method, {"least_error", "percentile", "maximum"}, "how a range follows from magnitudes");
  visitor.field("percentile", percentile, "share of magnitudes inside the range, in percent");
}

void QuantizationConfig::visit_fields(FieldVisitor& visitor) {
  visitor.field("start_step", start_step, "steps that train without fake quantization first");
  visitor.field("activation_start_step", activation_start_step, "first step with static int8 activations");
  visitor.field("cache_start_step", cache_start_step, "first step with an int8 KV cache");
  visitor.choice("keep", keep, {"values", "codes", "nothing"},
                 "what quantized weights keep between uses: values for the GEMM, packed codes that are decoded at every "
                 "use, or nothing, so that they are quantized at every use; same bits. Less than values saves memory with "
                 "activation_checkpointing = layers only: else the values of all layers wait for the backward pass. The value "
                 "of a frozen head then lies in an unnamed file in out, whose pages the system can drop");
  visitor.choice("block_scales", block_scales, {"rule", "search", "learned"},
                 "scales of q4_0 blocks: by ggml's rule; of least squared error, found again at every step (lost a fifth less in "
                 "short runs, costs 0.3 microseconds per block); or learned, from those that the checkpoint in model "
                 "stores or a search finds (takes 30 bytes per block)");
  visitor.choice("row_scales", row_scales, {"search", "absolute_max"},
                 "how int2, int4 and int8 rows get the scales that the model does not bring");
  visitor.field("learn_scales", learn_scales, "scales of learned blocks, rows, activations and caches learn with the weights");
  visitor.field("scale_learning_rate", scale_learning_rate, "relative change of a scale per step, after the warm-up");
  visitor.field("scale_freeze_share", scale_freeze_share, "last part of the run in which scales stay as they are");
  visitor.object("calibration", "first scales of static activations and caches",
                 [this](FieldVisitor& nested) { calibration.visit_fields(nested); });
}

void DistillationConfig::visit_fields(FieldVisitor& visitor) {
  visitor.field("temperature", temperature,
                "divides both models' logits; the divergence is multiplied by its square, so that gradients keep their size");
  visitor.field("cross_entropy_share", cross_entropy_share,
                "share of the data's own cross entropy in the loss, at temperature 1; the divergence has the rest");
  visitor.field("beta", beta, "weight of the teacher in jensen_shannon's mixture");
  visitor.field("cache", cache, "file of the teacher's states (gemma-qat cache-teacher); empty: the teacher runs");
}

void LoraConfig::visit_fields(FieldVisitor& visitor) {
  visitor.field("rank", rank, "columns of B and rows of A in W + s B A; they alone learn then; 0: all weights learn");
  visitor.field("alpha", alpha, "s is alpha / rank");
  visitor.field("dropout", dropout,
                "probability with which a step leaves out each rank component of a weight, the others counting "
                "1 / (1 - dropout) times; not parts of a layer's input as in PEFT, for W + s B A is quantized as one");
  visitor.field("rank_stabilized", rank_stabilized, "s is alpha / sqrt(rank) (rsLoRA)");
  visitor.field(
      "through_quantizer", through_quantizer,
      "the quantizer sees W + s B A, and a checkpoint holds it merged; false: weights and scales stay as they are, "
      "products get s (x A^T) B^T added, and export-adapter writes A and B for llama.cpp's --lora");
  visitor.choice(
      "base", base, {"bfloat16", "packed"},
      "packed: matrices of layers that the plan quantizes are kept as its codes and decoded at every use, so that "
      "W is bf16(decode(codes)); needs activation_checkpointing = layers");
  visitor.field(
      "keep_merged", keep_merged,
      "keep W + s B A between its uses; false: it is computed at every use, which saves two bytes a value of the "
      "adapted weights with activation_checkpointing = layers (always so on a packed base); same bits");
  visitor.field("roles", roles, "weight roles that get A and B: matrices, no tables and no stacked experts");
  visitor.field("adapter", adapter, "folder in PEFT's format to start from; empty: A random, B zero");
}

void EvaluationConfig::visit_fields(FieldVisitor& visitor) {
  visitor.field("every_steps", every_steps, "optimizer steps between evaluations; 0: never");
  visitor.field("documents", documents, "held-out documents used; 0: all");
  visitor.choice("metric", metric, {"loss", "kl"}, "what decides which checkpoint is best");
  visitor.field("reference", reference,
                "model folder that KL is measured to; empty: the teacher that is named, else the model the run starts "
                "from");
}

void CheckpointConfig::visit_fields(FieldVisitor& visitor) {
  visitor.field("every_steps", every_steps, "optimizer steps between saves; 0: only at the end");
  visitor.field("keep_last", keep_last, "how many step-N folders stay beside checkpoint/");
  visitor.field("keep_best", keep_best, "keep best/, the checkpoint with the lowest held-out metric");
  visitor.field("witness_prompts", witness_prompts, "held-out documents whose logits go into the witness");
}

void TrainConfig::visit_fields(FieldVisitor& visitor) {
  visitor.field("about", about, "one line for people");
  visitor.field("model", model, "Hugging Face folder or checkpoint to start from");
  visitor.choice("initialize", initialize, {"pretrained", "random"},
                 "random: only config.json and tokenizer.json of the folder are read");
  visitor.field("out", out, "run folder");
  visitor.field("plan", plan, "quantization plan: a name, a file, or model for that of the checkpoint in model; empty: plain BF16 fine-tuning");
  visitor.choice("kv_cache", kv_cache, {"plan", "none", "q8_0", "int8"}, "fake quantization of keys and values");
  visitor.choice("activations", activations, {"plan", "none", "input"},
                 "static int8 ends of linears: as the plan says, none, or inputs only");
  visitor.field("device", device,
                "where the model, its optimizer and the teacher live: cpu, cuda or cuda:N (the N-th GPU, from 0)");
  visitor.choice("dtype", dtype, {"auto", "bfloat16", "float32"},
                 "of the forward pass; weights are BF16 numbers either way");
  visitor.choice("objective", objective, {"cross_entropy", "forward_kl", "reverse_kl", "jensen_shannon"},
                 "what is minimised: -log p of the data's tokens, or at them KL(teacher || model), KL(model || teacher), "
                 "or beta KL(teacher || m) + (1 - beta) KL(model || m) to the mixture m = beta teacher + (1 - beta) model");
  visitor.field("teacher", teacher,
                "model folder that is distilled, run beside the model without quantization; empty: the model the run starts from");
  visitor.object("distillation", "how a teacher is followed",
                 [this](FieldVisitor& nested) { distillation.visit_fields(nested); });
  visitor.object("data", "what is learned", [this](FieldVisitor& nested) { data.visit_fields(nested); });
  visitor.field("sequence_length", sequence_length, "tokens a packed row holds at most; longer documents are cut");
  visitor.field("micro_batch_sequences", micro_batch_sequences, "packed rows per forward pass");
  visitor.field("gradient_accumulation", gradient_accumulation,
                "forward passes per optimizer step, shared by the processes of a run under torchrun");
  visitor.choice("sharding", sharding, {"none", "states", "parameters"},
                 "under torchrun: every process keeps masters and moments of all weights, or of its share; parameters: of "
                 "layers' matrices that learn also the values, which come from their owners whenever a layer computes and "
                 "go afterwards, as packed codes with quantization.keep = codes; needs activation_checkpointing = layers; "
                 "same bits");
  visitor.choice("activation_checkpointing", activation_checkpointing, {"none", "layers"},
                 "layers: a layer keeps only its inputs and is computed again in the backward pass; less memory, same bits");
  visitor.choice("memory_check", memory_check, {"refuse", "warn"},
                 "what happens to a run that is predicted to need more memory than there is");
  visitor.field("steps", steps, "optimizer steps");
  visitor.field("seed", seed, "of the data order and of random initial weights");
  visitor.field("threads", threads, "0: all");
  visitor.object("optimizer", "how weights move; rates with warm-up and cosine",
                 [this](FieldVisitor& nested) { optimizer.visit_fields(nested); });
  visitor.field("parameters", parameters,
                "weight roles that are trained, tables and what the plan freezes among them; empty: all that freeze and "
                "freeze_tables leave");
  visitor.field("freeze", freeze, "weight roles that are not trained");
  visitor.choice("freeze_tables", freeze_tables, {"plan", "yes", "no"},
                 "token and per-layer embeddings: as the plan says, not trained, or trained");
  visitor.object("lora", "low-rank adapters instead of all weights",
                 [this](FieldVisitor& nested) { lora.visit_fields(nested); });
  visitor.object("quantization", "fake quantization in time",
                 [this](FieldVisitor& nested) { quantization.visit_fields(nested); });
  visitor.object("eval", "held-out evaluation", [this](FieldVisitor& nested) { eval.visit_fields(nested); });
  visitor.object("checkpoint", "what is kept", [this](FieldVisitor& nested) { checkpoint.visit_fields(nested); });
  visitor.field("tensorboard", tensorboard, "event files for TensorBoard in the run folder, beside metrics.jsonl");
}

TrainConfig TrainConfig::load(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  if (!std::filesystem::exists(path) || std::filesystem::is_directory(path)) {
    fail_usage(path.string(), ": there is no such configuration; examples are in configs/train");
  }
  return parse(load_json(path), overrides, path.string());
}

TrainConfig TrainConfig::parse(nlohmann::json document, const std::vector<std::string>& overrides,
                               const std::string& where) {
  std::vector<std::string> problems;
  for (const std::string& assignment : overrides) {
    try {
      apply_override(document, assignment);
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  }
  TrainConfig config;
  read_fields(
      document, [&](FieldVisitor& visitor) { config.visit_fields(visitor); }, problems);
  check_values(config, problems);
  if (problems.empty()) return config;
  std::string message = join(where, ": ", problems.size(), problems.size() == 1 ? " problem:" : " problems:");
  for (const std::string& problem : problems) message += "\n  " + problem;
  throw Error(message, ExitCode::Usage);
}

nlohmann::ordered_json TrainConfig::to_json() const {
  TrainConfig copy = *this;
  return write_fields([&](FieldVisitor& visitor) { copy.visit_fields(visitor); });
}

std::string TrainConfig::describe() {
  TrainConfig defaults;
  return describe_fields([&](FieldVisitor& visitor) { defaults.visit_fields(visitor); });
}

bool TrainConfig::computes_in_bfloat16() const {
#if defined(__x86_64__)
  const bool fast = __builtin_cpu_supports("avx512bf16") > 0;
#else
  const bool fast = false;
#endif
  return dtype == "bfloat16" || (dtype == "auto" && (fast || !computes_on_cpu()));
}

std::vector<std::string> changed_fields(const nlohmann::ordered_json& before, const nlohmann::ordered_json& now) {
  static constexpr std::array kFree{"/out",
                                    "/about",
                                    "/device",
                                    "/sharding",
                                    "/activation_checkpointing",
                                    "/lora/keep_merged",
                                    "/optimizer/step_in_backward",
                                    "/memory_check",
                                    "/quantization/keep",
                                    "/steps",
                                    "/threads",
                                    "/tensorboard",
                                    "/checkpoint/every_steps",
                                    "/checkpoint/keep_last",
                                    "/checkpoint/keep_best"};
  const nlohmann::ordered_json old_fields = before.flatten();
  const nlohmann::ordered_json new_fields = now.flatten();
  std::vector<std::string> changed;
  const auto compare = [&](const std::string& key) {
    if (std::find(kFree.begin(), kFree.end(), key) != kFree.end()) return;
    const auto text = [&](const nlohmann::ordered_json& fields) {
      const auto found = fields.find(key);
      return found == fields.end() ? std::string("absent") : found->dump();
    };
    if (text(old_fields) == text(new_fields)) return;
    std::string name = key.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    changed.push_back(join(name, ": ", text(old_fields), " before, ", text(new_fields), " now"));
  };
  for (const auto& item : new_fields.items()) compare(item.key());
  for (const auto& item : old_fields.items()) {
    if (!new_fields.contains(item.key())) compare(item.key());
  }
  return changed;
}

}  // namespace qat
