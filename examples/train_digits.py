"""Train a classifier of handwritten digits on any number of ranks, with MLX, or with NumPy if MLX is not installed.

    python examples/train_digits.py                     one process
    mpirun -np 2 python examples/train_digits.py        on two ranks

Every rank holds the whole model and processes its share of every batch, and the ranks average their gradients. So the
result does not depend on the number of ranks: --save stores it, and --compare fails if this run's differs.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

import mlxdist as dist

try:
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim
except ImportError:
    mx = None

HIDDEN = 64
RATE = 0.3
# With more ranks, gradients are summed in another order and rounded differently: here by about 1e-7, since tanh is
# smooth. With relu a rounding error can switch a unit on or off, and the runs diverge by 1e-4.
LOSS_TOLERANCE = 1e-5
ACCURACY_TOLERANCE = 0.003  # one image in 360


class MLXClassifier:
    """A network of two layers; MLX's own code averages the gradients, on mlxdist's world."""

    def __init__(self) -> None:
        dist.install()  # before the first mx.distributed call
        mx.random.seed(0)  # the same weights on every rank
        self.net = nn.Sequential(nn.Linear(64, HIDDEN), nn.tanh, nn.Linear(HIDDEN, 10))
        self.optimizer = optim.SGD(RATE)
        self.loss_and_gradients = nn.value_and_grad(self.net, self.loss)

    def loss(self, images: "mx.array", labels: "mx.array") -> "mx.array":
        """The mean loss over the share."""
        return nn.losses.cross_entropy(self.net(images), labels, reduction="mean")

    def train(self, images: np.ndarray, labels: np.ndarray) -> None:
        """One step; ``images`` and ``labels`` are this rank's share of the batch."""
        _, gradients = self.loss_and_gradients(mx.array(images), mx.array(labels))
        self.optimizer.update(self.net, nn.average_gradients(gradients))
        mx.eval(self.net.parameters(), self.optimizer.state)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Ten numbers for each image; the largest is the prediction."""
        return np.array(self.net(mx.array(images)))


class NumPyClassifier:
    """The same network, written by hand."""

    shapes = ((64, HIDDEN), (HIDDEN,), (HIDDEN, 10), (10,))

    def __init__(self) -> None:
        random = np.random.default_rng(0)  # the same weights on every rank
        self.weights = [random.uniform(-1, 1, shape).astype(np.float32) * shape[0] ** -0.5 for shape in self.shapes]

    def train(self, images: np.ndarray, labels: np.ndarray) -> None:
        """One step; ``images`` and ``labels`` are this rank's share of the batch."""
        w1, b1, w2, b2 = self.weights
        hidden = np.tanh(images @ w1 + b1)
        delta = softmax(hidden @ w2 + b2)
        delta[np.arange(len(labels)), labels] -= 1
        delta /= len(labels)
        delta_hidden = (delta @ w2.T) * (1 - hidden**2)
        gradients = [images.T @ delta_hidden, delta_hidden.sum(0), hidden.T @ delta, delta.sum(0)]
        for weights, gradient in zip(self.weights, dist.average_gradients(gradients), strict=True):
            weights -= RATE * gradient

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Ten numbers for each image; the largest is the prediction."""
        w1, b1, w2, b2 = self.weights
        return np.tanh(images @ w1 + b1) @ w2 + b2


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def evaluate(
    model: "MLXClassifier | NumPyClassifier", images: np.ndarray, labels: np.ndarray, world: dist.Group
) -> tuple[float, float]:
    """Loss and accuracy over all ``images``: every rank evaluates its share, and the ranks sum up their results."""
    mine = slice(world.rank(), None, world.size())
    probabilities = softmax(model.logits(images[mine]))
    right = probabilities[np.arange(len(probabilities)), labels[mine]]
    hits = (probabilities.argmax(axis=1) == labels[mine]).sum()
    loss, hits = dist.all_sum(np.array([-np.log(right).sum(), hits]))
    return float(loss / len(labels)), float(hits / len(labels))


def ranks(size: int) -> str:
    return f"{size} rank{'s' * (size > 1)}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a classifier of handwritten digits on any number of ranks.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=120, help="images in a batch, over all ranks")
    parser.add_argument("--numpy", action="store_true", help="use NumPy even if MLX is installed")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the result to FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="fail if the result differs from the one in FILE")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    world = dist.init()
    rank, size = world.rank(), world.size()
    if options.batch % size:
        sys.exit(f"--batch {options.batch} is not divisible by {size} ranks" if rank == 0 else 1)
    # MLX compiles its CPU kernels in a directory below TMPDIR; two ranks must not write the same file at the same time.
    private = tempfile.TemporaryDirectory(prefix="train-digits-")
    os.environ["TMPDIR"] = private.name

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train_images, train_labels, test_images, test_labels = images[:-360], labels[:-360], images[-360:], labels[-360:]
    model = NumPyClassifier() if mx is None or options.numpy else MLXClassifier()

    loss, accuracy = evaluate(model, test_images, test_labels, world)
    with tqdm(range(options.epochs), desc=ranks(size), disable=rank > 0) as epochs:
        for epoch in epochs:
            order = np.random.default_rng(epoch).permutation(len(train_images))  # the same on every rank
            for start in range(0, len(order) - options.batch + 1, options.batch):
                mine = order[start + rank : start + options.batch : size]
                model.train(train_images[mine], train_labels[mine])
            loss, accuracy = evaluate(model, test_images, test_labels, world)
            epochs.set_postfix(loss=f"{loss:.4f}", accuracy=f"{accuracy:.1%}")

    result = {"ranks": size, "loss": loss, "accuracy": accuracy}
    if rank == 0:
        print(f"{type(model).__name__}, {ranks(size)}: loss {loss:.7f}, accuracy {accuracy:.2%}")
    if rank == 0 and options.save:
        options.save.write_text(json.dumps(result))
    if options.compare:
        other = json.loads(options.compare.read_text())
        if size == other["ranks"]:
            sys.exit(f"{options.compare} is from {ranks(size)} too: compare different numbers" if rank == 0 else 1)
        difference = abs(loss - other["loss"])
        same = difference < LOSS_TOLERANCE and abs(accuracy - other["accuracy"]) < ACCURACY_TOLERANCE
        if rank == 0:
            print(
                f"{ranks(other['ranks'])} and {ranks(size)} {'agree' if same else 'DISAGREE'}: "
                f"accuracy {other['accuracy']:.2%} and {accuracy:.2%} (may differ by one image), "
                f"loss differs by {difference:.0e} (may by {LOSS_TOLERANCE:.0e})"
            )
        if not same:
            sys.exit(1)


if __name__ == "__main__":
    main()
