"""The detector as ONNX, with and without suppression: MXNet's own converter up to the head, our nodes behind it.

Opset 13, which every runtime of the last years takes. The batch axis is dynamic.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import onnxruntime
from mxnet.onnx.mx2onnx._export_onnx import MXNetGraph
from mxnet.onnx.mx2onnx._op_translations._op_translations_opset12 import create_tensor, get_inputs
from onnx import TensorProto, helper, numpy_helper

from gan_kd.compat import threads
from gan_kd.data.pixels import MEAN, STD
from gan_kd.detectors.base import Detector
from gan_kd.export.mxnet import INPUT, Predictions, trace
from gan_kd.system.paths import library_name

OPSET, IR_VERSION = 13, 8  # IR 8 belongs to the releases that brought opset 13 into use


def save(detector: Detector, plain: Path, suppressing: Path) -> None:
    """Writes a detector on the CPU as two .onnx files. Both take images (N,3,S,S) float32, N any.

    plain gives scores (N,A,C) of each anchor and class, the background left out, and boxes (N,A,4), corners in input
    px. suppressing gives ids (N,K,1), scores (N,K,1), boxes (N,K,4), all float32, as Suppression does.
    """
    nodes = Nodes(_predictions(detector))
    scores, boxes = detector.decoder.candidates.to_onnx(nodes)
    anchors, classes = detector.decoder.suppression.count, len(detector.classes)
    nodes.name_outputs({scores: ("scores", anchors, classes), boxes: ("boxes", anchors, 4)})
    _write(nodes.graph, detector, plain)
    del nodes.graph.node[-2:]  # the two names
    kept = detector.decoder.suppression.post_nms
    ids, scores, boxes = _suppress(nodes, detector, scores, boxes)
    nodes.name_outputs({ids: ("ids", kept, 1), scores: ("scores", kept, 1), boxes: ("boxes", kept, 4)})
    _write(nodes.graph, detector, suppressing)


def _write(graph: onnx.GraphProto, detector: Detector, path: Path) -> None:
    model = helper.make_model(
        graph, producer_name="gan_kd", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    about = {"classes": detector.classes, "mean": (255 * MEAN).tolist(), "std": (255 * STD).tolist()}
    helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def session(path: Path) -> onnxruntime.InferenceSession:
    """The file in onnxruntime on the CPU, with as many threads as MXNet has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    with library_name(path) as name:
        return onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])


def run(net: onnxruntime.InferenceSession, images: np.ndarray) -> list[np.ndarray]:
    """The outputs for images (N,3,S,S) float32."""
    return net.run(None, {INPUT: images})


def _predictions(detector: Detector) -> onnx.GraphProto:
    """Image -> the head's predictions, as MXNet converts it."""
    symbol, weights, states = trace(Predictions(detector, detector.head.to_onnx()))
    symbol = _with_distinct_names(symbol)
    size = detector.sizes.typical
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "predictions.onnx"))
        shapes = {"in_shapes": [(1, 3, *size)], "dynamic_input_shapes": [("N", 3, *size)]}
        mx.onnx.export_model(
            symbol, [weights, states], in_types=np.float32, onnx_file_path=file, dynamic=True, **shapes
        )
        graph = onnx.load(file).graph
    # Weights that are listed as inputs, too, may be replaced by a caller: runtimes then fold nothing into them.
    image = next(value for value in graph.input if value.name == INPUT)
    del graph.input[:]
    graph.input.append(image)
    return graph


@MXNetGraph.register("repeat", opset_version=OPSET)
def _enlarged(node: Any, **kwargs: Any) -> list[onnx.NodeProto]:
    """Maps (N,C,h,w) with every row or column so many times; MXNet's converter has no such operator."""
    name, (maps,), attributes = get_inputs(node, kwargs)
    scales = [1.0] * 4
    scales[int(attributes["axis"])] = float(attributes["repeats"])
    create_tensor(scales, f"{name}_scales", kwargs["initializer"], dtype="float32")
    nearest = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return [helper.make_node("Resize", [maps, "", f"{name}_scales"], [name], name, **nearest)]


def _with_distinct_names(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """The same graph, every operator by a name of its own.

    A block that is called for several maps repeats its operators' names, and of nodes of one name MXNet's converter
    keeps the last.
    """
    graph = json.loads(symbol.tojson())
    taken: Counter[str] = Counter()
    for node in graph["nodes"]:
        if node["op"] != "null":
            taken[node["name"]] += 1
            if taken[node["name"]] > 1:
                node["name"] += f"_again{taken[node['name']]}"
    return mx.sym.load_json(json.dumps(graph))


class Nodes:
    """A graph to which nodes are added; names are made up where none is given."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.found = [output.name for output in graph.output]

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output; its name."""
        return self.add_more(1, operator, *inputs, **attributes)[0]

    def add_more(self, count: int, operator: str, *inputs: str, **attributes: Any) -> list[str]:
        """A node with several outputs; their names."""
        names = [f"decoder_{len(self.graph.node)}_{k}" for k in range(count)]
        # With a name: ONNX Runtime calls what it makes of several nodes by theirs, and wants no two of one name.
        self.graph.node.append(helper.make_node(operator, inputs, names, names[0], **attributes))
        return names

    def constant(self, value: Any, kind: type = np.int64) -> str:
        """An array in the file; its name."""
        name = f"decoder_constant{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def slice(self, array: str, begin: int, end: int) -> str:
        """begin..end of the third axis."""
        return self.add("Slice", array, *(self.constant([value]) for value in (begin, end, 2)))

    def name_outputs(self, named: dict[str, tuple[str, int, int]]) -> None:
        """What the graph gives: for each array its final name and its sides behind the batch axis."""
        del self.graph.output[:]
        for array, (name, *sides) in named.items():
            self.graph.node.append(helper.make_node("Identity", [array], [name]))
            self.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sides]))


def _suppress(nodes: Nodes, detector: Detector, scores: str, boxes: str) -> Sequence[str]:
    """ids, scores (N,K,1), boxes (N,K,4) as MXNet's box_nms gives them, but for the order of equal scores.

    ONNX suppresses within each class of each image and gives a list of what is left; MXNet lets the nms_topk highest
    of an image take part and gives rows in order of score. So scores of all others are set to 0 before and after.
    """
    decoder = detector.decoder.suppression
    shape = nodes.constant([0, len(detector.classes), decoder.count])
    flat = nodes.constant([0, -1])
    table = nodes.add("Reshape", nodes.add("Transpose", scores, perm=(0, 2, 1)), flat)  # candidate c * A + a
    topk = decoder.nms["topk"]
    if 0 < topk < decoder.candidates:
        best, where = nodes.add_more(2, "TopK", table, nodes.constant([topk]), axis=1)
        table = nodes.add("ScatterElements", nodes.add("Sub", table, table), where, best, axis=1)
    table = nodes.add("Reshape", table, shape)
    chosen = nodes.add(
        "NonMaxSuppression",
        boxes,
        table,
        nodes.constant([decoder.count]),
        nodes.constant([decoder.nms["overlap_thresh"]], np.float32),
        nodes.constant([decoder.nms["valid_thresh"]], np.float32),
    )
    left = nodes.add("ScatterND", nodes.add("Sub", table, table), chosen, nodes.add("GatherND", table, chosen))
    kept = nodes.constant([decoder.post_nms])
    best, where = nodes.add_more(2, "TopK", nodes.add("Reshape", left, flat), kept, axis=1)
    count, last = nodes.constant(decoder.count), nodes.constant([2])
    best, where = (nodes.add("Unsqueeze", array, last) for array in (best, where))
    rows = (
        nodes.add("Cast", nodes.add("Div", where, count), to=TensorProto.FLOAT),
        best,
        nodes.add("GatherND", boxes, nodes.add("Mod", where, count), batch_dims=1),
    )
    used = nodes.add("Greater", best, nodes.constant(0, np.float32))
    unused = nodes.constant(-1, np.float32)
    return [nodes.add("Where", used, row, unused) for row in rows]
