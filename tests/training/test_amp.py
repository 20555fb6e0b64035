"""Mixed precision, in processes of their own: MXNet cannot take it back.

There is no float16 convolution on the CPU. What is tested is the rest: where casts are put and that types fit, the
loss scale of each Trainer, and, with bfloat16 in its place, the losses of a step.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gan_kd.errors import UsageError
from gan_kd.recipe import load

ROOT = Path(__file__).resolve().parents[2]


def run(code, *arguments):
    """What the code prints as JSON."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_is_refused_on_cpus_when_the_recipe_is_loaded():
    with pytest.raises(UsageError, match="train.amp needs GPUs"):
        load("demo", ["train.amp=true"])
    on_gpus = ["train.amp=true", "train.contexts=[gpu:0]"]
    assert load("demo", on_gpus).train.amp
    with pytest.raises(UsageError, match="leave --amp or --syncbn out"):
        load("demo", [*on_gpus, "train.sync_bn=true"])


TYPES = """
    import json
    from scripts import parity
    from gan_kd.gluon.contexts import start_amp
    import mxnet as mx

    start_amp()
    step = parity.new_step(parity.BOTH, parity.ONE)
    detector, gan = step.networks.detector, step.distillers[0]
    found = {}
    for name, block, inputs in (
        ("extractor", detector.extractor, 1), ("adapters", detector.adapters, 6), ("head", detector.head, 6),
        ("critics", gan.critics, 12),
    ):
        names = [f"x{i}" for i in range(inputs)]
        graph = mx.sym.Group(block(*map(mx.sym.var, names)))
        given = {name: "float32" for name in (*names, *(n for n in graph.list_inputs() if n not in names))}
        kinds = [node["op"] for node in json.loads(graph.tojson(remove_amp_cast=False))["nodes"]]
        arguments, outputs, _ = graph.infer_type(**given)
        found[name] = [kinds.count("Convolution"), kinds.count("amp_cast"), {str(t.__name__) for t in outputs}]
    print(json.dumps(found, default=sorted))
"""


def test_convolutions_are_in_float16_and_types_fit():
    for name, (convolutions, casts, outputs) in run(TYPES).items():
        assert convolutions > 1 and casts > convolutions, name
        assert "float16" in outputs and set(outputs) <= {"float16", "float32"}, name


SCALES = """
    import json
    from gan_kd import compat
    import mxnet as mx, numpy as np
    from mxnet import autograd, nd
    from gan_kd.gluon.contexts import start_amp
    from gan_kd.gluon.optim import Optimisation, Position
    from gan_kd.recipe import Optimizer, Schedule

    def new(amp_contexts):
        weight = mx.gluon.Parameter("weight", shape=(3,), init=mx.init.One())
        weight.initialize(ctx=amp_contexts)
        return weight, Optimisation({"weight": weight}, Optimizer("adam", 0.1), Schedule(), amp_contexts)

    def train(weight, optimisation, factors):
        for factor in factors:
            with autograd.record():
                losses = [nd.sum(nd.square(w - 3)) * factor for w in weight.list_data()]
            optimisation.backward(losses)
            optimisation.step(Position(0, 10, 1))
        return weight.list_data()[0].asnumpy().tolist()

    two = [mx.cpu(0), mx.cpu(1)]
    plain = train(*new(two), [1, 2, 3])
    start_amp()
    student, critic = new(two), new(two)
    same = train(*student, [1, 2, 3])
    before = train(*critic, [1])
    skipped = train(*critic, [1e36])
    state = {name: array.copy() for name, array in critic[1].state().items()}
    after = train(*critic, [1, 1])
    again = new(two)
    again[0].set_data(nd.array(skipped))
    again[1].load_state(state)
    scales = [o.trainer._amp_loss_scaler.loss_scale for _, o in (student, critic)]
    print(json.dumps(dict(plain=plain, same=same, before=before, skipped=skipped, after=after, scales=scales,
                          again=train(*again, [1, 1]), resumed=again[1].trainer._amp_loss_scaler.loss_scale)))
"""


def test_each_trainer_scales_its_losses_leaves_out_an_overflow_and_resumes():
    found = run(SCALES)
    assert found["same"] == pytest.approx(found["plain"], rel=1e-6)
    assert found["skipped"] == found["before"] != found["after"]
    assert found["scales"] == [2.0**16, 2.0**15]  # the student's own has met no overflow
    assert found["again"] == found["after"] and found["resumed"] == 2.0**15


LOSSES = """
    import json, sys
    from scripts import parity
    from mxnet.contrib.amp import amp

    if sys.argv[1] == "low":
        amp.init("bfloat16")
    step = parity.new_step(parity.BOTH, parity.ONE)
    named = step(parity.new_batch(step, 0), parity.Position(0, 1, 1))
    weights = {str(p.list_data()[0].dtype.__name__) for p in step.networks.parameters().values()}
    print(json.dumps([{k: sum(float(p.asscalar()) for p in parts) for k, parts in named.items()}, sorted(weights)]))
"""


def test_losses_of_a_step_are_near_those_in_float32():
    (low, kept), (full, _) = run(LOSSES, "low"), run(LOSSES, "full")
    assert kept == ["float32"]
    assert low.keys() == full.keys()
    assert low["conf"] == pytest.approx(full["conf"], rel=0.05) and low["conf"] != full["conf"]
    assert low["loc"] == pytest.approx(full["loc"], rel=0.05)
    assert low["cosine_attention"] == pytest.approx(full["cosine_attention"], rel=0.3)
    assert low["critic"] == pytest.approx(full["critic"], abs=0.05)
