"""Train the text tower: a caption in, the scene that it describes out.

A BERT-shaped encoder reads a caption worded at random; linear heads on its pooled vector, and on
the mean of its tokens, say each factor of the scene, and of any two objects which one is left of or
in front of the other. Of what the caption leaves open the best answer is the world's own
distribution, so "not said" has its place in the vector too. The heads are thrown away; the encoder
and its tokenizer are what is kept.

Captions are roughened as people's prompts are: typing errors, words that mean nothing here, and
two colors for one thing, of which the one nearest the noun counts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidgen.errors import UsageError
from vidgen.systems import save
from vidgen.systems.base import ModelFolder
from vidgen.systems.world import load_text_tower, load_tokenizer
from vidgen.train.recipe import section
from vidgen.train.task import Modules, Task, share
from vidgen.train.tasks.tokenizer import build_tokenizer, pad_id
from vidgen.train.tasks.wording import contradicted, padded, typo
from vidgen.world.captions import caption, relations
from vidgen.world.parts import Scene
from vidgen.world.scene import FACTORS_FULL, VALIDATION_SEEDS, labels, sample_scene

# What two objects are to each other → how captions say it; first: neither.
RELATED = {
    "beside": ("", "to the left of", "to the right of"),
    "depth": ("", "in front of", "behind"),
}
PAIRS = ((0, 1), (0, 2), (1, 2))
# Question → its answers.
QUESTIONS: dict[str, tuple[str, ...]] = FACTORS_FULL | {
    f"{name}_{i + 1}{j + 1}": words for name, words in RELATED.items() for i, j in PAIRS
}


def answers(scene: Scene) -> dict[str, str]:
    """What is true of a scene, question by question."""
    found = {(i, words, j) for i, words, j in relations(scene)}
    return labels(scene) | {
        f"{name}_{i + 1}{j + 1}": next((w for w in words if (i, w, j) in found), "")
        for name, words in RELATED.items()
        for i, j in PAIRS
    }


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

    full: float = 0.4  # share of captions of the full world; the others are of the basic one
    canonical: float = 0.0  # share that says everything, in the first words there are for it
    typos: float = 0.25  # share with one letter changed, lost, doubled or swapped
    filler: float = 0.1  # share with a word that says nothing about the scene
    contradictions: float = 0.03  # share that names two colors of one thing
    # A folder that holds `text_encoder/` and `tokenizer/`: where the encoder begins.
    start: str | None = None


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


def _shape(config) -> tuple[int, ...]:
    """What two encoders must share for one to take the other's weights."""
    return (
        config.vocab_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.max_position_embeddings,
    )


def _heads(dim: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(dim, len(values)) for name, values in QUESTIONS.items()})


class TextTask(Task):
    """One sample is one caption."""

    name = "text"
    eight_bits = False  # transformers reads them

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.model = section(Model, self.recipe.model, where="model")
        self.data = section(Data, self.recipe.data, where="data")
        self.tokenizer = build_tokenizer(self.model.max_length)
        self.pad = pad_id(self.tokenizer)
        self.tokenizer.enable_truncation(self.model.max_length)

    def build(self) -> dict[str, nn.Module]:
        tower = TowerWithHeads(self.model, self.tokenizer.get_vocab_size(), self.pad)
        if self.data.start is not None:
            folder = ModelFolder(Path(self.data.start))
            if load_tokenizer(folder).fast.get_vocab() != self.tokenizer.get_vocab():
                raise UsageError(
                    f"recipe: data.start is {folder.path}, whose encoder reads other words",
                    why="its tokenizer.json gives numbers to other words than the world has now",
                    next="leave data.start out",
                )
            trained = load_text_tower(folder).encoder
            if _shape(trained.config) != _shape(tower.encoder.config):
                raise UsageError(
                    f"recipe: data.start is {folder.path}, whose encoder has other sizes",
                    next=f"make `model` the same as {folder.path}/text_encoder/config.json",
                )
            tower.encoder.load_state_dict(trained.float().state_dict())
        return {"tower": tower}

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        draw = random.Random(f"{self.recipe.seed}/{step}/{rank}")
        first = step * self.recipe.batch_size
        scenes = [
            sample_scene(first + row, level="full" if draw.random() < self.data.full else "basic")
            for row in share(self.recipe.batch_size, rank, world)
        ]
        return self._tensors(scenes, [self._worded(scene, draw) for scene in scenes])

    def _worded(self, scene: Scene, draw: random.Random) -> str:
        text = caption(scene, None if draw.random() < self.data.canonical else draw)
        if draw.random() < self.data.contradictions:
            text = contradicted(text, draw)
        if draw.random() < self.data.filler:
            text = padded(text, draw)
        if draw.random() < self.data.typos:
            text = typo(text, draw)
        return text

    def _tensors(self, scenes: list, captions: list[str]) -> dict[str, Tensor]:
        ids = [torch.tensor(e.ids) for e in self.tokenizer.encode_batch(captions)]
        batch = {"ids": nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad)}
        said = [answers(scene) for scene in scenes]
        for name, values in QUESTIONS.items():
            batch[name] = torch.tensor([values.index(s[name]) for s in said])
        return batch

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        pooled, tokens = modules["tower"](batch["ids"], batch["ids"] != self.pad)
        losses = [
            F.cross_entropy(pooled[name], batch[name])
            + 0.5 * F.cross_entropy(tokens[name], batch[name])
            for name in QUESTIONS
        ]
        return torch.stack(losses).sum(), {}

    @torch.no_grad()
    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """Of held-out captions that say everything, the share whose every factor is read rightly:
        as they are, with a typing error in each, with a filler word in each, in the full world;
        there also the share of the relations said that are read rightly.
        And how often, of 512 scenes, the caption's own is the likeliest (or as likely as it)."""
        start, draw = VALIDATION_SEEDS.start, random.Random(0)
        seeds = range(start, start + 512)
        basic = [sample_scene(s, level="basic") for s in seeds]
        full = [sample_scene(s, level="full", num_events=1) for s in seeds]
        plain = [caption(scene) for scene in basic]
        scores = {}
        for name, scenes, texts in (
            ("plain", basic, plain),
            ("typos", basic, [typo(c, draw) for c in plain]),
            ("filler", basic, [padded(c, draw) for c in plain]),
            ("full", full, [caption(scene) for scene in full]),
        ):
            batch = {k: x.to(self.device) for k, x in self._tensors(scenes, texts).items()}
            pooled, _ = modules["tower"](batch["ids"], batch["ids"] != self.pad)
            right = torch.stack([pooled[f].argmax(dim=-1) == batch[f] for f in FACTORS_FULL])
            scores[f"all_{name}"] = float(right.all(dim=0).float().mean())
            scores[f"retrieval_{name}"] = _retrieval(pooled, batch)
            if name == "full":
                scores["relation_full"] = _related(pooled, scenes)
        return scores

    def export(self, modules: Modules, folder: Path) -> None:
        """`text_encoder/` and `tokenizer/`, as transformers reads them."""
        tower = modules["tower"]
        assert isinstance(tower, TowerWithHeads)
        config = tower.encoder.config.to_dict() | {"architectures": ["BertModel"]}
        config = {k: v for k, v in config.items() if v is not None}
        self.write_component(
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


def _related(logits: dict[str, Tensor], scenes: list[Scene]) -> float:
    """Of the relations that canonical captions say, the share that is read rightly."""
    right = []
    for row, scene in enumerate(scenes):
        for i, words, j in relations(scene)[:1]:
            name = "beside" if words in RELATED["beside"] else "depth"
            read = int(logits[f"{name}_{i + 1}{j + 1}"][row].argmax())
            right.append(RELATED[name][read] == words)
    return sum(right) / max(1, len(right))


def _retrieval(logits: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    """Recall at 1 of scenes by captions; scenes alike in all that is asked count as one."""
    score = torch.stack(
        [logits[f].float().log_softmax(dim=-1)[:, truth[f]] for f in FACTORS_FULL]
    ).sum(dim=0)  # captions, scenes
    return float((score.diagonal() >= score.amax(dim=-1) - 1e-6).float().mean())
