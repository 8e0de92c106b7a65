"""tokenizer.json in exactly the form of Gemma 4's (or Gemma 3's) published file, from a list of learned merges.

Order of the ids: special tokens, runs of newlines, runs of "▁", the 256 byte tokens, the merged pieces in the order of their
merges, single characters, then "<unusedN>" up to the wanted size. Only the vocabulary differs from the published files.
"""

GEMMA4_SPECIAL_TOKENS = [
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>",
    "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>',
    "<|think|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>",
    "<|image>", "<|audio>", "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>",
]
GEMMA3_SPECIAL_TOKENS = [
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
]
WORD_START = "▁"  # what the normalizer makes of a space
LONGEST_RUN = 8


def run_merges(character):
    """Merges that turn 2 to LONGEST_RUN equal characters into one piece; longer results first, so that a run never stays cut."""
    return [
        (character * left, character * (length - left))
        for length in range(LONGEST_RUN, 1, -1)
        for left in range(length - 1, 0, -1)
    ]


def tokenizer_json(family, learned_merges, characters, size):
    """The file as a dictionary. `learned_merges`: pairs of pieces; `characters`: single characters that get ids of their own.

    Raises ValueError if the pieces do not fit into `size` ids.
    """
    special_tokens = {"gemma4": GEMMA4_SPECIAL_TOKENS, "gemma3": GEMMA3_SPECIAL_TOKENS}[family]
    pieces = list(special_tokens)
    for character in "\n" + WORD_START:
        pieces += [character * length for length in range(1, LONGEST_RUN + 1)]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += [left + right for left, right in learned_merges]
    pieces += sorted(characters)
    pieces = list(dict.fromkeys(pieces))
    if len(pieces) > size:
        raise ValueError(f"{len(pieces)} pieces do not fit into a vocabulary of {size}")
    pieces += [f"<unused{index}>" for index in range(size - len(pieces))]

    merges = run_merges("\n") + run_merges(WORD_START) + list(learned_merges)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": token, **flags} for index, token in enumerate(special_tokens)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": WORD_START},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": post_processor(family),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": WORD_START}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": [list(merge) for merge in merges],
        },
    }


def post_processor(family):
    """Gemma 3's file puts <bos> in front of a text, Gemma 4's adds nothing."""
    bos = {"gemma4": [], "gemma3": ["<bos>"]}[family]
    first = [{"SpecialToken": {"id": token, "type_id": 0}} for token in bos] + [{"Sequence": {"id": "A", "type_id": 0}}]
    second = [{"SpecialToken": {"id": token, "type_id": 1}} for token in bos] + [{"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": first + second,
        "special_tokens": {token: {"id": token, "ids": [2], "tokens": [token]} for token in bos},
    }


def tokenizer_config(family):
    """tokenizer_config.json that transformers needs beside the file."""
    return {
        "tokenizer_class": "GemmaTokenizer",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "add_bos_token": family == "gemma3",
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "model_max_length": 2048,
    }
