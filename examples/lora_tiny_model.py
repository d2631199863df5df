"""Make a tiny language model and training texts, to try mlx-lm's fine-tuning on several ranks without a download.

    pip install mlx-lm
    python examples/lora_tiny_model.py tiny
    lora="mlx_lm lora --model tiny --data tiny --train --iters 30 --num-layers 2 --optimizer sgd --learning-rate 0.01"
    python -m $lora --adapter-path tiny/alone                                 one process
    mpirun -np 2 python -m mlxdist -m $lora --adapter-path tiny/together      on two ranks

Both report the same losses. To make that possible all texts have the same length (sums like 0305+0480=0785), since
mlx-lm takes the mean of the ranks' means, and the optimizer is SGD, since Adam turns a gradient near zero, which is
mostly rounding error, into a full step.
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

SYMBOLS = "0123456789+=\n"  # one token each; the last one ends a text
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": len(SYMBOLS),
    "eos_token_id": SYMBOLS.index("\n"),
}


def write_model(folder: Path) -> None:
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(CONFIG))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(CONFIG))


def write_tokenizer(folder: Path) -> None:
    places = {symbol: place for place, symbol in enumerate(SYMBOLS)}
    tokenizer = Tokenizer(models.WordLevel(places, unk_token="\n"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "\n"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_texts(folder: Path) -> None:
    random = np.random.default_rng(0)
    for name, count in {"train": 400, "valid": 40}.items():
        pairs = random.integers(0, 5000, size=(count, 2))
        lines = [json.dumps({"text": f"{a:04}+{b:04}={a + b:04}"}) for a, b in pairs]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))


folder = Path(sys.argv[1] if len(sys.argv) > 1 else "tiny")
folder.mkdir(parents=True, exist_ok=True)
write_model(folder)
write_tokenizer(folder)
write_texts(folder)
