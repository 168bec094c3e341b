"""The shipped words: their list, which of them a picture shows most, and that their embeddings are made once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_instantstyle.files.text_towers import TextTowerInfo
from lib_instantstyle.reference import vocabulary as words_of
from lib_instantstyle.reference.embedding import BATCH, Embedder
from lib_instantstyle.reference.vocabulary import best_words, read_words, vocabulary
from lib_instantstyle.units.errors import StoppedError

from ..tiny import TinyHost, clip_model, sdxl_unet


def test_list_holds_a_thousand_plain_words_each_once() -> None:
    listed = re.findall(r"^\w[\w ]*: (.+)$", words_of.FILE.read_text("utf-8"), re.MULTILINE)
    words = [word.strip() for line in listed for word in line.split(",")]
    assert list(vocabulary()) == words
    assert 1000 <= len(words) <= 2000
    assert all(re.fullmatch(r"[a-z][a-z' -]*", word) for word in words)


def test_words_are_read_without_kinds_remarks_and_repetition() -> None:
    assert read_words("# a remark\nanimals: cat,  dog ,,\n\nplaces: street, cat # again\nhouse") == (
        *("cat", "dog", "street", "house"),
    )


def in_a_cone(specific: float, kinds: int = 20) -> Tensor:
    """Unit vectors of `kinds` words: a common part along axis 0, and an axis for each."""
    own = torch.eye(kinds + 1)[1:] * specific
    own[:, 0] = (1 - specific**2) ** 0.5
    return own


def test_a_word_that_resembles_everything_does_not_come_first() -> None:
    hub = torch.zeros(1, 21)
    hub[0, 0], hub[0, 5] = 0.999, 0.001
    words = torch.cat([hub, in_a_cone(0.6)])
    picture = torch.zeros(1, 21)
    picture[0, 0], picture[0, 7] = 0.95, 0.2  # shows the word of axis 7
    assert torch.nn.functional.cosine_similarity(picture, words).argmax() == 0
    assert best_words(picture, words, 1)[0][0] == 7


def test_scores_are_plain_cosines_averaged_over_the_pictures() -> None:
    words, pictures = torch.randn(30, 16), torch.randn(2, 16)
    for row, score in best_words(pictures, words, 5):
        expected = torch.nn.functional.cosine_similarity(pictures, words[row]).mean().item()
        assert score == pytest.approx(expected, abs=1e-6)


def test_lengths_and_order_of_words_do_not_matter() -> None:
    words, pictures, order = torch.randn(30, 16), torch.randn(1, 16), torch.randperm(30)
    best = [row for row, _ in best_words(pictures, words, 6)]
    assert [row for row, _ in best_words(7 * pictures, words * torch.rand(30, 1).add(0.1), 6)] == best
    assert [order[row].item() for row, _ in best_words(pictures, words[order], 6)] == best


def test_near_twins_of_a_better_word_are_left_out() -> None:
    words = in_a_cone(0.8)
    words = torch.cat([words, words[3:4] + 0.05 * words[4:5]])
    pictures = 0.3 * words[3:4] + 0.1 * words[9:10] + 0.5 * torch.eye(21)[:1]
    assert [row for row, _ in best_words(pictures, words, 2)] in ([3, 9], [20, 9])


def test_fewer_words_than_asked_for_are_no_error() -> None:
    assert len(best_words(torch.randn(1, 16), torch.randn(3, 16), 10)) == 3
    assert best_words(torch.randn(1, 16), torch.randn(3, 16), 0) == []
    assert best_words(torch.zeros(1, 16), torch.zeros(3, 16), 1) == [(0, 0.0)]


def embeds(host: TinyHost, tower: TextTowerInfo | None = None) -> tuple[Tensor, list[float]]:
    heard: list[float] = []
    found = Embedder(host).word_list(words_of.vocabulary(), tower, heard.append)
    assert found is not None
    return found, heard


def again(host: TinyHost) -> TinyHost:
    """The same after a restart."""
    return TinyHost(host.live_unet, host.models, host.cache)


def test_words_are_read_in_batches_with_progress_and_then_never_again(host: TinyHost) -> None:
    found, heard = embeds(host)
    batches = -(-len(vocabulary()) // BATCH)
    assert host.text_encodings == len(heard) == batches
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    torch.testing.assert_close(found[-1:], host.text_embeds(vocabulary()[-1]))
    restarted = again(host)
    kept, silence = embeds(restarted)
    assert (restarted.text_encodings, silence) == (0, [])
    assert torch.equal(kept, found)
    assert len(list(host.cache.iterdir())) == batches


def test_reading_pauses_when_it_is_time_and_goes_on_where_it_stopped(host: TinyHost) -> None:
    heard: list[float] = []
    batches = -(-len(vocabulary()) // BATCH)
    for number in range(1, batches):
        assert Embedder(host).word_list(vocabulary(), None, heard.append, lambda: True) is None
        assert host.text_encodings == len(heard) == number
    found = Embedder(host).word_list(vocabulary(), None, heard.append, lambda: True)
    assert host.text_encodings == batches
    assert heard == sorted(heard)
    assert torch.equal(found, embeds(host)[0])
    torch.testing.assert_close(found, torch.cat([host.text_embeds(word) for word in vocabulary()]))


def test_what_was_read_before_an_interruption_is_kept(host: TinyHost) -> None:
    def stop(share: float) -> None:
        raise StoppedError("Stopped.")

    with pytest.raises(StoppedError):
        Embedder(host).word_list(vocabulary(), None, stop)
    assert host.text_encodings == 1
    embeds(host)
    assert host.text_encodings == -(-len(vocabulary()) // BATCH)


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_file_is_made_again(host: TinyHost, damage: bytes) -> None:
    found, _ = embeds(host)
    file = min(host.cache.iterdir())
    file.write_bytes(damage)
    restarted = again(host)
    assert torch.equal(embeds(restarted)[0], found)
    assert restarted.text_encodings == 1
    assert embeds(again(host))[1] == []


def test_file_of_other_words_is_not_taken(host: TinyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    embeds(host)
    monkeypatch.setattr(words_of, "vocabulary", lambda: ("a rabbit", "a forest"))
    found, heard = embeds(again(host))
    assert (len(found), heard) == (2, [1.0])


def test_file_with_too_few_rows_is_made_again(host: TinyHost) -> None:
    embeds(host)
    file = min(host.cache.iterdir())
    host.embed_store.put(file.stem, torch.zeros(3, 48))
    assert len(embeds(again(host))[0]) == len(vocabulary())


def test_every_checkpoint_has_its_own_and_a_nameless_one_keeps_none(host: TinyHost) -> None:
    embeds(host)
    host.checkpoint = "another"
    assert embeds(host)[1]
    kept = len(list(host.cache.iterdir()))
    assert kept == 2 * -(-len(vocabulary()) // BATCH)
    host.checkpoint = None
    assert embeds(host)[1]
    assert embeds(host)[1]
    assert len(list(host.cache.iterdir())) == kept


def test_text_tower_of_a_file_is_loaded_once(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")
    clip_model().save_pretrained(tmp_path / "world/encoders/zz-full", safe_serialization=True)
    host = TinyHost(sdxl_unet(), tmp_path / "world", tmp_path / "cache", text_width=None)
    tower = host.text_tower(host.files.encoder(host.files.adapter("base").feature))
    found, heard = embeds(host, tower)
    assert (host.encoder_loads, host.text_encodings, heard[-1]) == (1, 0, 1.0)
    assert torch.equal(embeds(host, tower)[0], found)
    assert host.encoder_loads == 1
    torch.testing.assert_close(Embedder(host).texts(["castle"], tower)[0], found[vocabulary().index("castle")])
