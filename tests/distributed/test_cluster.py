"""Several workers: what each takes of a batch, sums over them, and two against one process."""

import json
import sys

import numpy as np
import pytest

from gan_kd.data.loader import Loader
from gan_kd.distributed.cluster import here
from gan_kd.distributed.launch import Host, Job
from gan_kd.errors import RunError
from scripts import parity_workers
from tests.data.test_loader import TRAIN, Photos

HERE = [Host(None, "127.0.0.1")]
#: By contexts of the one process: of losses, and of parameters. A sum of two does not depend on the order.
BOUNDS = {1: (1e-3, 1e-4), 2: (0, 0), 4: (1e-4, 1e-5)}


def batches(folder, share, workers=0, start=0):
    """Images of every batch of an epoch, as one worker with its share sees them."""
    with Loader(Photos(folder), TRAIN, 5, workers, 7, True, share) as loader:
        return [batch.images.copy() for batch in loader.epoch(3, start)]


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_the_shares_of_a_batch_are_the_batch(tmp_path, parts):
    shares = [batches(tmp_path, (k, parts)) for k in range(parts)]
    for whole, *pieces in zip(batches(tmp_path, (0, 1)), *shares):
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_a_share_does_not_depend_on_loader_workers_or_where_the_epoch_is_entered(tmp_path):
    late, early = batches(tmp_path, (1, 2), start=1), batches(tmp_path, (1, 2), workers=2)[1:]
    assert len(late) == len(early) == 1
    for one, other in zip(late, early):
        np.testing.assert_array_equal(one, other)


def test_a_process_alone_is_its_own_sum():
    assert (here().rank, here().size, here().first) == (0, 1, True)
    assert here().total([1.5, 2]) == [1.5, 2] and here().any(True) and not here().any(False)
    assert here().trainer_store(["weight"]) is None


#: A worker's program: prints what it found in one line.
PROGRAM = """
import json, sys
from gan_kd.distributed.cluster import here
import mxnet as mx
from mxnet import autograd, gluon
me = here()
found = {}
with me.joined():
    found["total"] = me.total([2**40 + me.rank, 0.1, float("inf") if me.rank == 1 else 0])
    found["any"] = [me.any(me.rank == 2), me.any(False)]
    found["gather"] = [[a.asnumpy().tolist() for a in row] for row in
                       me.gather("mine", [mx.nd.full((2,), me.rank), mx.nd.full((1, 1), 0.1 * me.rank)])]
    with me.in_turn():
        with open(sys.argv[1], "a") as stream:
            stream.write(f"{me.rank} ")
    parameters = [gluon.ParameterDict() for _ in range(2)]
    for number, (held, shape) in enumerate(zip(parameters, [(2,), (3, 1)])):  # both Trainers number theirs from 0
        held.get(f"weight{number}", shape=shape, init="zeros").initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    me.require_equal("it", {"weight": parameters[0]["weight0"].list_data()[0]}, (1,))
    for rate in (1, 0.5):
        for number, held in enumerate(parameters):
            names = list(held.keys())
            store = me.trainer_store(names)
            trainer = gluon.Trainer(held, "sgd", {"learning_rate": rate}, store, update_on_kvstore=False)
            with autograd.record():
                shares = [(p * (10 ** number * (me.rank + 1))).sum() for p in held[names[0]].list_data()]
            autograd.backward(shares)
            trainer.set_learning_rate(rate * 0.25)
            trainer.step(1)
    found["weights"] = [[d.asnumpy().ravel().tolist() for d in p.list_data()] for h in parameters for p in h.values()]
    if me.first:
        print(json.dumps(found), file=open(sys.argv[2], "w"))
    me.require_equal("the end", {}, me.rank == 1)
"""


@pytest.mark.slow
def test_three_workers_agree_and_add_up(tmp_path, capfd):
    order, out = tmp_path / "order", tmp_path / "found.json"
    command = [sys.executable, "-c", PROGRAM, str(order), str(out)]
    with pytest.raises(RunError, match=r"worker \d on this machine ended with exit code 1.*go on as before"):
        Job(HERE, 3, 2, command, "go on as before").run()
    assert "the workers begin the end with different parameters" in capfd.readouterr().err
    found = json.loads(out.read_text())
    assert found["total"] == [3 * 2**40 + 3, 0.1 + 0.1 + 0.1, float("inf")]
    assert found["any"] == [True, False]
    assert found["gather"] == [[[k, k], [[pytest.approx(0.1 * k)]]] for k in range(3)]
    assert order.read_text().startswith("0 ") and sorted(order.read_text().split()) == ["0", "1", "2"]
    # 1 + 2 + 3 of the workers, two devices each, at rates of 1/4 and 1/8.
    small, large = -12 * 0.375, -120 * 0.375
    assert found["weights"] == [[[small] * 2] * 2, [[large] * 3] * 2]


@pytest.mark.slow
def test_two_workers_equal_one_process(capsys):
    """Two contexts to the last bit, with rates that fall; otherwise to float32's rounding."""
    rows = parity_workers.rows()
    with capsys.disabled():
        print()
        for what, loss, parameter in rows:
            print(f"{what}: losses {loss:.2g}, parameters {parameter:.2g}")
    for (what, loss, parameter), setup in zip(rows, parity_workers.SETUPS):
        bounds = BOUNDS[setup.contexts]
        assert loss <= bounds[0] and parameter <= bounds[1], what
