"""The encoders: those that ship, and any checkpoint of the BERT family.

`base` says what an encoder is; each is a file of this folder, found by its name (`by_name`).
`checkpoint` loads what others trained, `shapes` starts a pretraining, `shipped` has what comes with
the package and `catalogue` what is said of it.
"""

from nlpkit.encoders.base import Attention, Encoder, encode
from nlpkit.encoders.by_name import (
    build,
    is_encoder,
    load,
    load_tokenizer,
    names,
    set_dropout,
    settings_of,
    tokenizer_of,
)
from nlpkit.encoders.shapes import ShapeConfig, for_pretraining, shape_of, shape_settings
from nlpkit.encoders.shipped import (
    NOTICE,
    RECORD,
    TINY,
    TOKENIZER,
    folder_of,
    record_of,
    stages_of,
    tokens_of,
)

__all__ = [
    "NOTICE",
    "RECORD",
    "TINY",
    "TOKENIZER",
    "Attention",
    "Encoder",
    "ShapeConfig",
    "build",
    "encode",
    "folder_of",
    "for_pretraining",
    "is_encoder",
    "load",
    "load_tokenizer",
    "names",
    "record_of",
    "set_dropout",
    "settings_of",
    "shape_of",
    "shape_settings",
    "stages_of",
    "tokenizer_of",
    "tokens_of",
]
