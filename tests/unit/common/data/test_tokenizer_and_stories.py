"""The tokeniser is GPT-2's and needs no network; the built-in stories are many, distinct and always the same."""

from __future__ import annotations

import hashlib
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data import END_OF_TEXT, gpt2_vocabulary, load_tokenizer
from common.data.gpt2_files import load_gpt2_encoding
from common.data.stories import STORY_COUNT, VERSION, story
from common.data.story_words import NAMES


def test_known_texts_have_the_published_token_ids() -> None:
    encoding = load_tokenizer()
    assert encoding.n_vocab == 50257
    assert encoding.encode("Hello world") == [15496, 995]
    assert encoding.encode("Once upon a time") == [7454, 2402, 257, 640]
    assert encoding.encode(END_OF_TEXT, allowed_special={END_OF_TEXT}) == [gpt2_vocabulary().end_of_text_id]


@given(st.text())
def test_any_text_survives_a_round_trip(text: str) -> None:
    encoding = load_tokenizer()
    assert encoding.decode(encoding.encode_ordinary(text)) == text


@pytest.mark.parametrize("before", [None, "", "/somewhere/else"])
def test_the_environment_variables_are_restored(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if before is None:
        monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    else:
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", before)
    load_gpt2_encoding.cache_clear()
    load_gpt2_encoding()
    assert os.environ.get("TIKTOKEN_CACHE_DIR") == before


@pytest.fixture(scope="module")
def all_stories() -> list[str]:
    return [story(index) for index in range(STORY_COUNT)]


def test_twenty_thousand_stories_are_all_different(all_stories: list[str]) -> None:
    assert STORY_COUNT >= 20_000
    assert len(set(all_stories)) == STORY_COUNT
    beginnings = {" ".join(text.split()[:40]) for text in all_stories}
    assert len(beginnings) > 0.99 * STORY_COUNT


def test_stories_have_the_documented_length_and_clean_text(all_stories: list[str]) -> None:
    lengths = [len(text.split()) for text in all_stories]
    assert min(lengths) >= 100 and max(lengths) <= 220
    for text in all_stories:
        assert "  " not in text and text == text.strip() and "{" not in text
        assert re.fullmatch(r"[A-Za-z0-9 ,.!?'\"\n-]+", text)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text
        assert text.count('"') % 2 == 0


def test_a_story_has_few_characters_and_names_its_hero_throughout(all_stories: list[str]) -> None:
    names = {name for name, _ in NAMES}
    for text in all_stories[:2000]:
        people = [word for word in re.findall(r"[A-Z][a-z]+", text) if word in names]
        assert 1 <= len(set(people)) <= 2
        hero = people[0]
        assert all(hero in paragraph for paragraph in text.split("\n\n")[:3])


def test_the_corpus_is_the_same_everywhere(all_stories: list[str]) -> None:
    digest = hashlib.sha256("\n".join(all_stories).encode()).hexdigest()
    assert (VERSION, digest) == (1, "0027ec08916d931c38a7c66c3c7dfc6debcdeba7606a681b198907e97382709b"), (
        "the stories changed: raise VERSION, so that existing caches become stale"
    )
    assert story(3) == all_stories[3] != story(3, seed=8)
