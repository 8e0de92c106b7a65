#!/usr/bin/env python3
"""Renders random conversations by the chat template inside a .litertlm file, through LiteRT-LM's own template engine, and
compares the texts with transformers' apply_chat_template of the Hugging Face template. Skipped (77) without litert-lm.

usage: litertlm_template_against_transformers.py EXPORT_DUMP [COUNT [SEED]]
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
try:
    import litert_lm
    from transformers import PreTrainedTokenizerFast

    import conversations
    import litertlm_models as models
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

DATA = pathlib.Path(__file__).resolve().parents[1] / "golden" / "data"
BOS = "<bos>"


class Declared(litert_lm.Tool):
    def __init__(self, description):
        self.description = description

    def get_tool_description(self):
        return self.description

    def execute(self, param):
        return None


def plain_numbers(value):
    """Without numbers that Python writes with an exponent: the engine writes those out."""
    if isinstance(value, dict):
        return {key: plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    return 0.5 if isinstance(value, float) and "e" in repr(value) else value


def for_the_runtime(request):
    """The request up to the last message after which the model speaks, as the runtime can be given it; or None."""
    messages = list(request["messages"])
    while messages and messages[-1]["role"] not in ("user", "tool"):
        messages.pop()
    if not messages or any("tool_responses" in message for message in messages):
        return None
    return dict(plain_numbers(request), messages=plain_numbers(messages), add_generation_prompt=True)


def render(engine, request):
    options = {key: request[key] for key in ("enable_thinking", "preserve_thinking")}
    tools = [Declared(tool) for tool in request["tools"]]
    history, last = request["messages"][:-1], request["messages"][-1]
    with engine.create_conversation(messages=history, tools=tools or None, extra_context=options,
                                    automatic_tool_calling=False) as conversation:
        return conversation.render_message_to_string(last)


def compare(export, folder, name, template, requests):
    folder.joinpath("chat_template.jinja").write_text(template, encoding="utf-8")
    file = folder / f"{name}.litertlm"
    subprocess.run([export, folder, file, "context=256"], check=True, stdout=subprocess.DEVNULL)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token=BOS)
    different = 0
    with litert_lm.Engine(str(file), backend=litert_lm.Backend.CPU(thread_count=1), cache_dir=":nocache") as engine:
        for request in requests:
            options = {key: request[key] for key in ("enable_thinking", "preserve_thinking", "add_generation_prompt")}
            wanted = tokenizer.apply_chat_template(request["messages"], chat_template=template, tokenize=False,
                                                   tools=request["tools"] or None, **options)
            found = BOS + render(engine, request)
            if found != wanted:
                different += 1
                if different <= 2:
                    print(f"{name}:\n  request {request}\n  found  {found!r}\n  wanted {wanted!r}")
    print(f"{name}: {len(requests)} conversations, {different} differ", flush=True)
    return different


def main(export, count=200, seed=1):
    litert_lm.set_min_log_severity(litert_lm.LogSeverity.ERROR)
    large = (DATA / "gemma4_31b_chat_template.jinja").read_text(encoding="utf-8")
    variants = {"large": large, "small": conversations.small(large), "large-july": conversations.july(large),
                "small-july": conversations.july(conversations.small(large))}
    requests = [request for request in map(for_the_runtime, conversations.make(seed, count)) if request]
    different = 0
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place, "model")
        models.VOCABULARY = models.BASE["vocab_size"] = models.BASE["vocab_size_per_layer_input"] = 1024
        models.make_model(folder, "plain", seed=1)
        shutil.copy(DATA / "tokenizer.json", folder)
        for name, template in variants.items():
            different += compare(export, folder, name, template, requests)
    return 1 if different else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], *(int(number) for number in sys.argv[2:])))
