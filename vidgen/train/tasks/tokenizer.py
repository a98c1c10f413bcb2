"""The shipped model's tokenizer: the words of the world, and letters for everything else."""

from __future__ import annotations

import string

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from vidgen.world.captions import words

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build_tokenizer(max_length: int) -> Tokenizer:
    """WordPiece with every word that the caption grammar uses, and every letter and digit, first
    or inside a word (`##x`): an unknown word is spelled out, so a typing error can be learned."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]", max_input_chars_per_word=max_length))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    known = words()
    letters = string.ascii_lowercase + string.digits
    pieces = SPECIAL + list(letters) + ["##" + c for c in letters] + list(",.!?'-")
    pieces += sorted(known - set(pieces))
    tokenizer.model = WordPiece(
        vocab={piece: i for i, piece in enumerate(pieces)},
        unk_token="[UNK]",
        max_input_chars_per_word=max_length,
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", pieces.index("[CLS]")), ("[SEP]", pieces.index("[SEP]"))],
    )
    return tokenizer


def pad_id(tokenizer: Tokenizer) -> int:
    """The number of the token that fills a batch up."""
    number = tokenizer.token_to_id("[PAD]")
    if number is None:
        raise ValueError("the tokenizer has no [PAD] token")
    return number
