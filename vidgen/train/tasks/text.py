"""Train the text tower: a caption in, the scene that it describes out.

A BERT-shaped encoder reads a caption worded at random; linear heads on its pooled vector, and on
the mean of its tokens, say each factor of the scene. Of a factor that the caption leaves open the
best answer is the world's own distribution, so "not said" has its place in the vector too. The
heads are thrown away; the encoder and its tokenizer are what is kept.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidgen.systems import save
from vidgen.train.recipe import section
from vidgen.train.task import Modules, Task, share
from vidgen.train.tasks.tokenizer import build_tokenizer, pad_id
from vidgen.world.captions import caption
from vidgen.world.scene import FACTORS, VALIDATION_SEEDS, labels, sample_scene


@dataclass(frozen=True)
class Model:
    """Sizes of the encoder."""

    dim: int = 128
    depth: int = 3
    heads: int = 4
    max_length: int = 64


@dataclass(frozen=True)
class Data:
    """Captions."""

    level: str = "basic"  # of the world
    typos: float = 0.1  # share of captions with one letter changed, lost, doubled or swapped


class TowerWithHeads(nn.Module):
    """The encoder, and what asks it questions while it learns."""

    def __init__(self, model: Model, vocabulary: int, pad: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=model.dim,
            num_hidden_layers=model.depth,
            num_attention_heads=model.heads,
            intermediate_size=4 * model.dim,
            max_position_embeddings=model.max_length,
            type_vocab_size=1,
            pad_token_id=pad,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.encoder = BertModel(config)
        self.pooled_heads = _heads(model.dim)
        self.token_heads = _heads(model.dim)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """ids, mask `b l` → logits `b classes` of each factor, from pooled vector and tokens."""
        out = self.encoder(input_ids=ids, attention_mask=mask.long())
        weights = mask[..., None].to(out.last_hidden_state.dtype)
        mean = (out.last_hidden_state * weights).sum(dim=1) / weights.sum(dim=1)
        return (
            {name: head(out.pooler_output) for name, head in self.pooled_heads.items()},
            {name: head(mean) for name, head in self.token_heads.items()},
        )


def _heads(dim: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(dim, len(values)) for name, values in FACTORS.items()})


class TextTask(Task):
    """One sample is one caption."""

    name = "text"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.model = section(Model, self.recipe.model, where="model")
        self.data = section(Data, self.recipe.data, where="data")
        self.tokenizer = build_tokenizer(self.data.level, self.model.max_length)
        self.pad = pad_id(self.tokenizer)
        self.tokenizer.enable_truncation(self.model.max_length)

    def build(self) -> dict[str, nn.Module]:
        return {"tower": TowerWithHeads(self.model, self.tokenizer.get_vocab_size(), self.pad)}

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        draw = random.Random(f"{self.recipe.seed}/{step}/{rank}")
        first = step * self.recipe.batch_size
        scenes = [
            sample_scene(first + row, level=self.data.level)
            for row in share(self.recipe.batch_size, rank, world)
        ]
        captions = [caption(scene, draw) for scene in scenes]
        captions = [typo(c, draw) if draw.random() < self.data.typos else c for c in captions]
        return self._tensors(scenes, captions)

    def _tensors(self, scenes: list, captions: list[str]) -> dict[str, Tensor]:
        ids = [torch.tensor(e.ids) for e in self.tokenizer.encode_batch(captions)]
        batch = {"ids": nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad)}
        said = [labels(scene) for scene in scenes]
        for name, values in FACTORS.items():
            batch[name] = torch.tensor([values.index(s[name]) for s in said])
        return batch

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        pooled, tokens = modules["tower"](batch["ids"], batch["ids"] != self.pad)
        losses = [
            F.cross_entropy(pooled[name], batch[name])
            + 0.5 * F.cross_entropy(tokens[name], batch[name])
            for name in FACTORS
        ]
        return torch.stack(losses).sum(), {}

    @torch.no_grad()
    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """Share of factors read rightly, from captions that say everything: plain, and with a
        typing error in each."""
        start, draw = VALIDATION_SEEDS.start, random.Random(0)
        scenes = [sample_scene(s, level=self.data.level) for s in range(start, start + 512)]
        plain = [caption(scene) for scene in scenes]
        scores = {}
        for name, texts in (("plain", plain), ("typos", [typo(c, draw) for c in plain])):
            batch = {k: x.to(self.device) for k, x in self._tensors(scenes, texts).items()}
            pooled, _ = modules["tower"](batch["ids"], batch["ids"] != self.pad)
            right = torch.stack([pooled[f].argmax(dim=-1) == batch[f] for f in FACTORS])
            scores[f"factors_{name}"] = float(right.float().mean())
            scores[f"all_{name}"] = float(right.all(dim=0).float().mean())
        return scores

    def export(self, modules: Modules, folder: Path) -> None:
        """`text_encoder/` and `tokenizer/`, as transformers reads them."""
        tower = modules["tower"]
        assert isinstance(tower, TowerWithHeads)
        config = tower.encoder.config.to_dict() | {"architectures": ["BertModel"]}
        config = {k: v for k, v in config.items() if v is not None}
        save.write_component(
            folder / "text_encoder", config, tower.encoder, filename="model.safetensors"
        )
        self.tokenizer.no_truncation()
        (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
        save.write_json(
            folder / "tokenizer" / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": self.model.max_length,
                "pad_token": "[PAD]",
                "unk_token": "[UNK]",
                "cls_token": "[CLS]",
                "sep_token": "[SEP]",
            },
        )
        save.write_index(folder, "world", "world", ["text_encoder", "tokenizer"])


def typo(text: str, draw: random.Random) -> str:
    """One letter of a word changed, lost, doubled or swapped with its neighbour."""
    places = [i for i in range(1, len(text)) if text[i].isalpha() and text[i - 1].isalpha()]
    if not places:
        return text
    i = draw.choice(places)
    kind = draw.randrange(4)
    if kind == 0:
        return text[:i] + draw.choice("abcdefghijklmnopqrstuvwxyz") + text[i + 1 :]
    if kind == 1:
        return text[:i] + text[i + 1 :]
    if kind == 2:
        return text[:i] + text[i] + text[i:]
    return text[: i - 1] + text[i] + text[i - 1] + text[i + 1 :]
