"""A random language model with a tokenizer, in a folder that transformers wrote, and what transformers makes of it."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

SENTENCES = ("The quick brown fox jumps over the lazy dog.", "Ein Fuchs läuft über die Brücke.", "één, två, trzy, 四")
TEMPLATE = (
    "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}bot:{% endif %}"
)
END = "</s>"


@dataclass(frozen=True)
class LanguageModel:
    """The folder, and transformers' model and tokenizer."""

    folder: Path
    model: Any
    tokenizer: Any

    def continued(self, text: str, new: int, *, ends: bool = False) -> list[int]:
        """The tokens that transformers makes after a text, greedily; with ``ends`` up to the end of the sequence."""
        return self.after(self.tokenizer(text)["input_ids"], new, ends=ends)

    def after(self, ids: list[int], new: int, *, ends: bool = False) -> list[int]:
        """The same after token ids."""
        given = torch.tensor([ids])
        end = self.tokenizer.eos_token_id if ends else None
        how: dict[str, Any] = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0, "eos_token_id": end}
        made = self.model.generate(given, attention_mask=torch.ones_like(given), **how)
        return made[0, len(ids) :].tolist()  # type: ignore[no-any-return]

    def text(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)  # type: ignore[no-any-return]


def written(folder: Path) -> LanguageModel:
    """Make the model and its tokenizer, and save them."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", END], initial_alphabet=alphabet)
    made.train_from_iterator(SENTENCES, trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token=END)
    tokenizer.chat_template = TEMPLATE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        config = transformers.AutoConfig.for_model(
            "llama",
            vocab_size=made.get_vocab_size(),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=256,
            bos_token_id=0,
            eos_token_id=1,
        )
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" not in name:
                    parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return LanguageModel(folder, model, tokenizer)


def ends_with(folder: Path, *tokens: int) -> None:
    """Let other tokens end a sequence, by the generation_config.json of a folder."""
    path = folder / "generation_config.json"
    config = json.loads(path.read_text()) | {"eos_token_id": list(tokens) if len(tokens) > 1 else tokens[0]}
    path.write_text(json.dumps(config))
