"""Chat templates are rendered as transformers renders them; hostile ones are refused or cut within a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from common.chat.child import MEMORY_BYTES, MOST_CHARACTERS
from common.chat.template import (
    DEFAULT_TEMPLATE,
    MOST_TEMPLATE_BYTES,
    TEMPLATE_FILE,
    TemplateRenderer,
    find_template,
    read_template,
)
from common.errors import InvalidInputError

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <there> & {{ 7 * 7 }}"},
    {"role": "assistant", "content": "Hello é"},
    {"role": "user", "content": "Bye"},
]
CHATML = """{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
<|im_start|>system
{% endif %}
<|im_start|>{{ message['role'] }}
{{ message['content'] | trim }}<|im_end|>
{% if message.tool_calls is defined %}{{ message.tool_calls | tojson }}{% endif %}
{% if loop.index > 5 %}{% break %}{% endif %}
{% endfor %}
{% if tools %}tools{% endif %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture(scope="module")
def renderer() -> Iterator[TemplateRenderer]:
    renderer = TemplateRenderer()
    renderer.render("", MESSAGES)  # the start of the child does not count
    yield renderer
    renderer.close()


@pytest.mark.parametrize("template", [CHATML, DEFAULT_TEMPLATE, "{{ messages | tojson(indent=2) }}", "a\n"])
def test_templates_give_the_text_that_transformers_gives(renderer: TemplateRenderer, template: str) -> None:
    [[expected], _] = render_jinja_template([MESSAGES], chat_template=template, add_generation_prompt=True)
    assert renderer.render(template, MESSAGES).rstrip("\n") == expected.rstrip("\n")


def test_the_default_is_a_transcript(renderer: TemplateRenderer) -> None:
    assert renderer.render(DEFAULT_TEMPLATE, MESSAGES) == (
        "System: Be brief.\nUser: Hi <there> & {{ 7 * 7 }}\nAssistant: Hello é\nUser: Bye\nAssistant:"
    )


HOSTILE = {
    "attribute": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attribute by a filter": "{{ messages | map(attribute='__class__.__init__.__globals__') | list }}",
    "attribute by attr": "{{ (messages | attr('__class__')).__base__.__subclasses__() }}",
    "format string": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "globals of a function": "{{ raise_exception.__globals__['sys'].modules }}",
    "globals of a global": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "change of the arguments": "{{ messages.append(1) }}{{ messages.clear() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "endless loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "endless loop over a variable": (
        "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}{% endfor %}{% endfor %}"
    ),
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "huge text": "{{ 'a' * 10 ** 10 }}",
    "huge range": "{{ range(10 ** 9) | list }}",
    "huge padding": "{{ '%999999999d' | format(1) }}{{ 'a' | center(10 ** 10) }}",
    "huge output": "{% for a in range(99999) %}{{ 'b' * 1000 }}{% endfor %}",
    "doubling": "{% set ns = namespace(x='ab') %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "syntax": "{% for %}",
    "unknown filter": "{{ 1 | nothing }}",
    "refusal": "{{ raise_exception('roles must alternate') }}",
    "division": "{{ 1 / 0 }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_or_cut_within_a_second(renderer: TemplateRenderer, name: str) -> None:
    renderer.render("", MESSAGES)
    began = time.monotonic()
    with pytest.raises(InvalidInputError) as refused:
        renderer.render(HOSTILE[name], MESSAGES)
    assert time.monotonic() - began < 1.0
    assert "root:" not in refused.value.message and len(refused.value.message) < 1000
    assert renderer.render("{{ messages | length }}", MESSAGES) == "4"  # the next conversation is not affected


def test_a_refusal_has_the_words_of_the_template(renderer: TemplateRenderer) -> None:
    with pytest.raises(InvalidInputError, match="roles must alternate") as refused:
        renderer.render(HOSTILE["refusal"], MESSAGES)
    assert refused.value.errors[0]["location"] == "messages"


def test_the_child_gets_no_secrets(renderer: TemplateRenderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDAL_AUTH_TOKEN", "a secret")
    with_secret = TemplateRenderer()
    with_secret.render("", [])
    child = with_secret._child
    assert child is not None
    assert b"a secret" not in Path(f"/proc/{child.pid}/environ").read_bytes()
    with_secret.close()
    assert child.poll() is not None
    assert with_secret.render("{{ 1 + 1 }}", []) == "2"  # a new child
    with_secret.close()


def test_several_threads_share_a_renderer(renderer: TemplateRenderer) -> None:
    found: dict[int, str] = {}

    def work(number: int) -> None:
        found[number] = renderer.render("{{ messages[0].content }}", [{"role": "user", "content": str(number)}])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {number: str(number) for number in range(16)}


def test_a_template_is_found_beside_the_checkpoint_or_in_the_experiment(tmp_path: Path) -> None:
    step = tmp_path / "checkpoints" / "step-1"
    step.mkdir(parents=True)
    model = tmp_path / "model.safetensors"
    model.touch()
    assert find_template(step, tmp_path) is None
    (tmp_path / TEMPLATE_FILE).write_text("of the experiment é")
    assert find_template(step, tmp_path) == find_template(model, tmp_path) == tmp_path / TEMPLATE_FILE
    (step / TEMPLATE_FILE).write_text("of the checkpoint")
    assert find_template(step, tmp_path) == step / TEMPLATE_FILE
    assert read_template(tmp_path / TEMPLATE_FILE) == "of the experiment é"


@pytest.mark.parametrize("content", [b"\xff", b"a" * (MOST_TEMPLATE_BYTES + 1)])
def test_a_template_that_is_no_text_or_too_long_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TEMPLATE_FILE).write_bytes(content)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_template(tmp_path / TEMPLATE_FILE)


def test_the_limits_allow_the_longest_prompt(renderer: TemplateRenderer) -> None:
    longest = [{"role": "user", "content": "é" * (MOST_CHARACTERS - 17)}]
    assert len(renderer.render(DEFAULT_TEMPLATE, longest)) == MOST_CHARACTERS
    with pytest.raises(InvalidInputError, match="100,000 characters"):
        renderer.render(DEFAULT_TEMPLATE, [{"role": "user", "content": "é" * MOST_CHARACTERS}])
    assert 16 * 4 * MOST_CHARACTERS < MEMORY_BYTES
