"""An SSD of MXNet's graph in PyTorch, with its loss and its step; as a program, a rival that steps when it is told.

Without MXNet and GluonCV: GluonCV refuses to be imported where PyTorch 2 is installed, and two OpenMP runtimes in one
process would share its threads badly. So this runs in an environment of its own, which has NumPy beside PyTorch.
"""

from __future__ import annotations

import json
import sys
from ast import literal_eval
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Graph(nn.Module):
    """The network of MXNet's JSON graph, in torch's own layers and with the given weights by name.

    Image (N,3,S,S) -> the graph's outputs. KeyError for an operator that SSDs here do not use.
    """

    def __init__(self, graph: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.calls: list[tuple[int, Callable[..., Tensor], list[int]]] = []
        self.outputs = [head[0] for head in graph["heads"]]
        nodes = graph["nodes"]
        constants = {number for number, node in enumerate(nodes) if node["op"] == "null"}
        uses = Counter(source for node in nodes for source, *_ in node["inputs"])
        for number, node in enumerate(nodes):
            if number in constants:
                continue
            sources = [source for source, *_ in node["inputs"]]
            names = [nodes[source]["name"] for source in sources]
            arrays = [torch.tensor(weights[name]) for name in names if name in weights]
            inputs = [source for source, name in zip(sources, names) if name not in weights]
            call = _OPERATORS[node["op"]](_Options(node), arrays, all(uses[source] == 1 for source in inputs))
            if isinstance(call, nn.Module):
                self.layers.append(call)
            self.calls.append((number, call, inputs))
        self.image = next(number for number in constants if nodes[number]["name"] == "data")
        last = {source: number for number, _, inputs in self.calls for source in inputs}
        self.done = {number: [s for s in inputs if last[s] == number] for number, _, inputs in self.calls}

    def forward(self, images: Tensor) -> list[Tensor]:
        values = {self.image: images}
        for number, call, inputs in self.calls:
            values[number] = call(*[values[source] for source in inputs])
            for source in set(self.done[number]) - set(self.outputs):
                del values[source]
        return [values[number] for number in self.outputs]


class _Options:
    """Attributes of a node as Python values."""

    def __init__(self, node: Mapping[str, Any]) -> None:
        self.given = node.get("attrs", {})

    def __call__(self, name: str, default: Any = None) -> Any:
        return literal_eval(self.given[name]) if name in self.given else default

    def text(self, name: str) -> str:
        return str(self.given[name])


def _convolution(options: _Options, arrays: Sequence[Tensor], _: bool) -> nn.Module:
    weight, *bias = arrays
    groups = options("num_group", 1)
    places = [options(name, default) for name, default in (("stride", (1, 1)), ("pad", (0, 0)), ("dilate", (1, 1)))]
    layer = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), *places, groups=groups, bias=bool(bias)
    )
    layer.weight.data = weight
    if layer.bias is not None:
        (layer.bias.data,) = bias
    return layer


def _batch_norm(options: _Options, arrays: Sequence[Tensor], _: bool) -> nn.Module:
    gamma, beta, mean, variance = arrays
    layer = nn.BatchNorm2d(len(gamma), eps=options("eps", 1e-3), momentum=1 - options("momentum", 0.9))
    layer.weight.data, layer.bias.data = gamma, beta
    layer.running_mean, layer.running_var = mean, variance
    if options("fix_gamma", True):
        nn.init.ones_(layer.weight).requires_grad_(False)
    return layer


def _activation(options: _Options, _: Sequence[Tensor], only_use: bool) -> nn.Module:
    return {"relu": nn.ReLU}[options.text("act_type")](inplace=only_use)


def _pooling(options: _Options, _: Sequence[Tensor], __: bool) -> nn.Module:
    pool = {"max": nn.MaxPool2d}[options.text("pool_type")]
    full = options.text("pooling_convention") == "full"
    return pool(options("kernel"), options("stride", (1, 1)), options("pad", (0, 0)), ceil_mode=full)


class _Scale(nn.Module):
    """A learnt factor for each channel, or a constant one."""

    def __init__(self, factor: Tensor, learnt: bool) -> None:
        super().__init__()
        self.factor = nn.Parameter(factor, requires_grad=learnt)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _unit_length(options: _Options, _: Sequence[Tensor], __: bool) -> Callable[..., Tensor]:
    eps = options("eps", 1e-10)
    return lambda x: x * (x.square().sum(1, keepdim=True) + eps).rsqrt()


def _reshape(options: _Options, _: Sequence[Tensor], __: bool) -> Callable[..., Tensor]:
    _, *rest = options("shape")
    return lambda x: x.reshape(len(x), *rest)


def _transpose(options: _Options, _: Sequence[Tensor], __: bool) -> Callable[..., Tensor]:
    axes = options("axes")
    return lambda x: x.permute(axes)


_OPERATORS: dict[str, Callable[[_Options, Sequence[Tensor], bool], Callable[..., Tensor]]] = {
    "Convolution": _convolution,
    "BatchNorm": _batch_norm,
    "Activation": _activation,
    "Pooling": _pooling,
    "L2Normalization": _unit_length,
    # The scale of an image's channels is VGG16's constant, the others are learnt.
    "broadcast_mul": lambda _, arrays, __: _Scale(arrays[0], learnt=arrays[0].numel() > 3),
    "elemwise_add": lambda *_: torch.add,
    "transpose": _transpose,
    "Flatten": lambda *_: nn.Flatten(),
    "Concat": lambda options, *_: lambda *parts: torch.cat(parts, dim=options("dim", 1)),
    "Reshape": _reshape,
}


def multibox_loss(scores: Tensor, offsets: Tensor, classes: Tensor, boxes: Tensor) -> Tensor:
    """L_conf + L_loc of gan_kd.detectors.ssd.loss, by the same definition: shapes as there, classes int64 (n, A)."""
    positive = classes > 0
    entropy = functional.cross_entropy(scores.transpose(1, 2), classes, reduction="none")
    rank = torch.where(positive, 0, -entropy.detach()).argsort(1).argsort(1)
    used = positive | (rank < 3 * positive.sum(1, keepdim=True))
    loc = functional.smooth_l1_loss(offsets, boxes, reduction="none") * positive[..., None]
    return ((entropy * used).sum() + loc.sum()) / positive.sum()


class Rival:
    """A network with SGD as in GluonCV's script, and one batch that it sees again and again."""

    def __init__(self, network: Graph, images: np.ndarray, classes: np.ndarray, boxes: np.ndarray) -> None:
        self.network = network
        self.images, self.boxes = torch.tensor(images), torch.tensor(boxes)
        self.classes = torch.tensor(classes, dtype=torch.int64)
        learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.SGD(learnt, lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def forward(self) -> list[Tensor]:
        """Scores and offsets without gradients, BatchNorm by its running statistics."""
        self.network.eval()
        with torch.inference_mode():
            return self.network(self.images)

    def train(self) -> float:
        """One step; the loss before it."""
        self.network.train()
        scores, offsets = self.network(self.images)
        loss = multibox_loss(scores, offsets, self.classes, self.boxes)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()


def main(folder: Path, threads: int, layout: str) -> None:
    """Answers each line on standard input, once what it asks for is done: forward, train, save (the predictions)."""
    torch.set_num_threads(threads)
    weights = dict(np.load(folder / "weights.npz"))
    network = Graph(json.loads((folder / "graph.json").read_text()), weights)
    batch = np.load(folder / "batch.npz")
    rival = Rival(network, batch["images"], batch["classes"], batch["boxes"])
    if layout == "channels_last":
        network.to(memory_format=torch.channels_last)
        rival.images = rival.images.contiguous(memory_format=torch.channels_last)

    def save() -> None:
        np.savez(folder / "predictions.npz", *[each.numpy() for each in rival.forward()])

    commands: dict[str, Callable[[], object]] = {"forward": rival.forward, "train": rival.train, "save": save}
    for line in sys.stdin:
        answer = commands[line.strip()]()
        print(answer if isinstance(answer, float) else "done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
