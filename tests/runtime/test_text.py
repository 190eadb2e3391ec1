"""Text and token ids: what is printed as tokens come, and chat templates beside transformers' own rendering."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helixctl.errors import HelixError
from helixctl_runtime.generate.chat import chats
from helixctl_runtime.generate.text import Printer, decoded, encoded, ends_of

TEXTS = ("Grüße, 四季", " two  blanks ", "x")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One token a byte, so that characters come in parts; 256 ends a sequence."""
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["</s>"])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return str(path)


def row(tokenizer: str, text: str) -> list[int]:
    prompts = encoded(tokenizer, [text])
    return prompts.ids[0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_printed_as_its_tokens_come(text: str, tokenizer: str) -> None:
    """After every token all whole characters are there, and no half of one."""
    stream = io.StringIO()
    printer = Printer(tokenizer, stream)
    for number, token in enumerate(row(tokenizer, text), 1):
        printer.add(torch.tensor([token, 7]))
        assert stream.getvalue() == text.encode()[:number].decode(errors="ignore")
    printer.add(torch.tensor([256, 7]))
    printer.add(torch.tensor([-1, 7]))
    printer.end()
    assert stream.getvalue() == text


def test_the_rest_of_a_character_that_does_not_come(tokenizer: str) -> None:
    stream = io.StringIO()
    printer = Printer(tokenizer, stream)
    tokens = row(tokenizer, "a四")[:-1]
    for token in tokens:
        printer.add(torch.tensor([token]))
    assert stream.getvalue() == "a"
    printer.end()
    assert [stream.getvalue()] == decoded(tokenizer, [tokens])
    assert stream.getvalue() != "a"


def test_nobody_reads_any_more(tokenizer: str) -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    printer = Printer(tokenizer, Gone())
    printer.add(torch.tensor(row(tokenizer, "x")))
    printer.end()


def test_prompts_are_padded_to_the_longest(tokenizer: str) -> None:
    prompts = encoded(tokenizer, TEXTS)
    assert prompts.lengths.tolist() == [len(text.encode()) for text in TEXTS]
    rows = [ids[:length].tolist() for ids, length in zip(prompts.ids, prompts.lengths, strict=True)]
    assert decoded(tokenizer, [[*its, 256, -1, -1] for its in rows]) == list(TEXTS)


def test_a_text_without_a_token(tokenizer: str) -> None:
    with pytest.raises(HelixError, match="HX507 the prompt '' has no token"):
        encoded(tokenizer, ["x", ""])


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({"generation_config.json": {"eos_token_id": [3, 5]}, "config.json": {"eos_token_id": 7}}, (3, 5)),
        ({"generation_config.json": {}, "config.json": {"eos_token_id": 7}}, (7,)),
        ({"config.json": {"eos_token_id": None}}, ()),
        ({}, ()),
    ],
)
def test_what_ends_a_sequence(files: dict[str, Any], ends: tuple[int, ...], tmp_path: Path) -> None:
    for name, config in files.items():
        (tmp_path / name).write_text(json.dumps(config))
    assert ends_of(str(tmp_path)) == ends
    assert ends_of(str(tmp_path / "model.safetensors")) == ends


# What templates of published models do: conditions, blocks that are trimmed, marks of training, loops with break, JSON.
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "special": "{{ bos_token }}{%- for m in messages -%}\n    [INST] {{ m['content'] | trim }} [/INST]{{ eos_token }}"
    "\n{%- endfor %}",
    "blocks": "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\nend",
    "loop": "{% for m in messages %}{% if not m.content %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "tools": "{% if tools %}tools{% endif %}{% if not tools is defined %}none{% endif %}{{ messages[0].content }}",
}


def folder_of(template: str, folder: Path, tokenizer: str, *, apart: bool = True) -> Any:
    """transformers' tokenizer of a folder with a template, which it wrote."""
    transformers = pytest.importorskip("transformers")
    made = transformers.PreTrainedTokenizerFast(tokenizer_file=tokenizer, bos_token="<s>", eos_token="</s>")
    made.chat_template = template
    made.save_pretrained(folder, save_jinja_files=apart)
    return made


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_is_rendered_as_by_transformers(template: str, apart: bool, tokenizer: str, tmp_path: Path) -> None:
    theirs = folder_of(template, tmp_path, tokenizer, apart=apart)
    assert (tmp_path / "chat_template.jinja").exists() == apart
    for text, ours in zip(TEXTS, chats(str(tmp_path), TEXTS), strict=True):
        message = [{"role": "user", "content": text}]
        assert ours == theirs.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


def test_the_default_one_of_several_templates(tmp_path: Path) -> None:
    templates = [{"name": "rag", "template": "no"}, {"name": "default", "template": "{{ messages[0].content }}!"}]
    token = {"content": "<s>", "special": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates, "bos_token": token}))
    assert chats(str(tmp_path), ["a"]) == ["a!"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role') }}", "cannot be rendered: no system role"),
        ("{% for %}", "cannot be rendered: "),
        ("{{ messages[0].content.__class__.__mro__ }}", "cannot be rendered: "),
        ("{{ 1 + 'a' }}", "cannot be rendered: "),
        (None, "there is no chat_template.jinja, and no chat_template in tokenizer_config.json"),
    ],
)
def test_a_template_that_cannot_be_rendered(template: str | None, message: str, tmp_path: Path) -> None:
    if template:
        (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(HelixError, match="HX507") as caught:
        chats(str(tmp_path), ["a"])
    assert message in str(caught.value)
    assert "hint: leave out --chat" in str(caught.value)
