"""Makes the model that the recordings are taken from: a two-layer Qwen2 with random weights.

Run by the vLLM environment's own Python: ``make_model.py FOLDER``. Nothing is downloaded: the tokenizer is a
byte-level BPE trained on the spot on Python's own library, the weights are drawn from a fixed seed. It writes
nonsense quickly, which is all that metering needs: real token counts, real streams, real cuts.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 2048
CONTEXT = 2048
END_OF_TURN = "<|im_end|>"
PADDING = "<|endoftext|>"
SPECIAL = [PADDING, "<|im_start|>", END_OF_TURN, "<think>", "</think>"]

# ChatML, with content given as a string or as a list of text parts.
CHAT_TEMPLATE = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n"
    "{%- if message.content is string %}{{ message.content }}"
    "{%- elif message.content %}{%- for part in message.content %}{{ part.text }}{%- endfor %}{%- endif %}"
    "<|im_end|>\n{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}"
)


def train_tokenizer() -> Tokenizer:
    library = Path(sysconfig.get_path("stdlib"))
    corpus = [str(path) for path in sorted(library.glob("*.py"))[:120]]
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train(
        corpus,
        trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet),
    )
    return tokenizer


def write_model(folder: Path) -> None:
    tokenizer = train_tokenizer()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PADDING,
        additional_special_tokens=["<|im_start|>"],
        model_max_length=CONTEXT,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)

    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id(END_OF_TURN),
        pad_token_id=tokenizer.token_to_id(PADDING),
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).to(torch.float32)
    with torch.no_grad():
        # Untrained heads give nearly equal logits; spread ones make the temperature matter.
        model.lm_head.weight.normal_(0, 1.0)
    model.generation_config.eos_token_id = config.eos_token_id
    model.save_pretrained(folder, safe_serialization=True)


if __name__ == "__main__":
    # config.json is what install.sh looks for, so it appears together with everything else.
    target = Path(sys.argv[1])
    made = target.with_name(target.name + ".new")
    made.mkdir(parents=True, exist_ok=True)
    write_model(made)
    made.replace(target)
