"""Captions of the world's scenes, as networks are told them in training.

Each time a clip comes by it is captioned anew: other synonyms, other order, parts left out. Some
captions are empty, which makes what a network does without text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from vidgen.nn.text import TextTower
from vidgen.systems import world
from vidgen.systems.base import ModelFolder
from vidgen.train.tasks.tokenizer import pad_id
from vidgen.world.captions import caption
from vidgen.world.scene import sample_scene


class Captions:
    """Of scenes (level, seed), by the tokenizer of `folder`.

    drop       how many are left empty
    canonical  how many of the others say everything, in the first words for it
    """

    def __init__(self, folder: ModelFolder, *, drop: float = 0.0, canonical: float = 0.0) -> None:
        self.tokenizer = world.load_tokenizer(folder)
        self.pad = pad_id(self.tokenizer.fast)
        self.drop, self.canonical = drop, canonical

    def draw(self, clips: Sequence[tuple[str, int]], draw: random.Random) -> list[str]:
        """Captions to train on."""
        captions = []
        for level, seed in clips:
            scene = sample_scene(seed, level=level)
            text = caption(scene, None if draw.random() < self.canonical else draw)
            captions.append("" if draw.random() < self.drop else text)
        return captions

    def tokens(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Token numbers `b l`, padded to the longest."""
        ids = [torch.tensor(self.tokenizer(text)) for text in captions]
        return {
            "ids": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad)
        }

    def told(self, tower: torch.nn.Module, ids: Tensor) -> dict[str, Tensor]:
        """What networks take: text `b l d`, text_mask `b l`, pooled `b d`."""
        assert isinstance(tower, TextTower)
        mask = torch.ne(ids, self.pad)
        with torch.no_grad():
            out = tower.encoder(input_ids=ids, attention_mask=mask.long())
        return {
            "text": out.last_hidden_state.float(),
            "text_mask": mask,
            "pooled": out.pooler_output.float(),
        }
