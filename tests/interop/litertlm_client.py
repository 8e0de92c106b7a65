"""LiteRT-LM and the LiteRT interpreter, driven token by token, and three ways to damage a .litertlm file. The files hold the
tokenizer of litertlm_models: token i is the text "<i>", since the runtime takes and gives nothing but text."""
import json
import re
import struct
import subprocess

import litert_lm
import numpy as np
from ai_edge_litert.interpreter import Interpreter

GREEDY = litert_lm.SamplerConfig(top_k=1, top_p=1.0, temperature=1.0, seed=0)
litert_lm.set_min_log_severity(litert_lm.LogSeverity.ERROR)


def open_engine(path):
    # A cache beside the file would give the old weights back after a change.
    return litert_lm.Engine(str(path), backend=litert_lm.Backend.CPU(thread_count=1), cache_dir=":nocache")


def text_of(tokens):
    return "".join(f"<{token}>" for token in tokens)


def tokens_of(text):
    return [int(token) for token in re.findall(r"<(\d+)>", text)]


def generate(engine, prompt, count):
    with engine.create_session(apply_prompt_template=False, sampler_config=GREEDY, max_output_tokens=count) as session:
        session.run_prefill([text_of(prompt)])
        return tokens_of(session.run_decode().texts[0])


def score(engine, prompt, target):
    # The runtime scores with the last prompt token written over the one before it: a filler takes that place.
    with engine.create_session(apply_prompt_template=False, sampler_config=GREEDY) as session:
        session.run_prefill([text_of(prompt[:-1] + [0] + prompt[-1:])])
        return session.run_text_scoring([text_of(target)]).token_scores[0]


def read_listing(program, path):
    lines = subprocess.run([program, path], check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


class Signatures:
    """The graphs of a file in the LiteRT interpreter, called as the runtime calls them."""

    def __init__(self, path, listing):
        self.interpreters, self.contents, content = [], [], path.read_bytes()
        self.runners = {}
        for section in listing:
            if "model_type" in section.get("items", {}):
                data = content[section["offset"]:section["offset"] + section["bytes"]]
                self.contents.append(data)  # an interpreter does not keep its bytes alive
                self.interpreters.append(Interpreter(model_content=data, num_threads=1))
                for key in self.interpreters[-1].get_signature_list():
                    self.runners[key] = self.interpreters[-1].get_signature_runner(key)
        self.clear()

    def clear(self):
        self.position = 0
        self.caches = {name: np.zeros(facts["shape"], facts["dtype"])
                       for name, facts in self.runners["decode"].get_input_details().items() if name.startswith("kv_cache")}
        self.context = next(iter(self.caches.values())).shape[2]

    def look_up(self, key, tokens):
        return np.concatenate([next(iter(self.runners[key](token_ids=np.array([[t]], np.int32)).values())) for t in tokens], 1)

    def run(self, key, tokens):
        positions = np.arange(self.position, self.position + len(tokens), dtype=np.int32)
        inputs = dict(input_pos=positions, mask=(np.arange(self.context)[None] <= positions[:, None])[None, None])
        if "tokens" in self.runners[key].get_input_details():
            inputs["tokens"] = np.array([tokens], np.int32)
        else:
            inputs["embeddings"] = self.look_up("embedder", tokens)
            if "per_layer_embedder" in self.runners:
                inputs["per_layer_embeddings"] = self.look_up("per_layer_embedder", tokens)
        outputs = self.runners[key](**inputs, **self.caches)
        self.caches = {name: value for name, value in outputs.items() if name.startswith("kv_cache")}
        self.position += len(tokens)
        return outputs.get("logits")


def stretched(content):
    return (np.frombuffer(content, np.float32) * 1.02).tobytes()


def narrowed(content):
    return struct.pack("<i", struct.unpack("<i", content)[0] - 3)


# name -> (start of the name of the decoder's constant, its bytes from its bytes)
FAULTS = {
    "cache": ("integers/0", lambda content: struct.pack("<i", 1)),  # prefill writes one position too late
    "mask": ("window/", narrowed),
    "position": ("rope/10000/", stretched),
}


def plant(path, listing, fault):
    """-> a copy of the file with the fault."""
    start, change = FAULTS[fault]
    place = next(line for line in listing if line.get("model") == "tf_lite_prefill_decode" and "offset" in line
                 and (line["name"] == start or start.endswith("/") and line["name"].startswith(start)))
    content = bytearray(path.read_bytes())
    part = slice(place["offset"], place["offset"] + place["bytes"])
    content[part] = change(bytes(content[part]))
    result = path.with_suffix(f".{fault}.litertlm")
    result.write_bytes(content)
    return result
