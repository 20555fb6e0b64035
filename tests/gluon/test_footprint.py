"""Bytes of maps, counted by hand on small graphs."""

from mxnet.gluon import nn

from gan_kd.gluon.footprint import count


class Residual(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.conv = nn.Conv2D(8, 3, padding=1, in_channels=4)
            self.norm, self.out = nn.BatchNorm(in_channels=8), nn.Conv2D(8, 1, in_channels=8)

    def hybrid_forward(self, F, x):
        y = F.Activation(self.norm(self.conv(x)), act_type="relu")
        return self.out(y) + y


UNIT = 4 * 2 * 8 * 10 * 10  # bytes of a map of two images


def test_backward_reads_what_convolution_norm_and_activation_need():
    found = count(Residual(), [(2, 4, 10, 10)])
    assert (
        found.kept == 2 * UNIT
    )  # the first convolution's output for BatchNorm, the activation's for itself and the next
    assert found.forward == 3 * UNIT  # the sum, and what is added


def test_bytes_are_in_proportion_to_the_batch():
    one, four = (count(Residual(), [(n, 4, 10, 10)]) for n in (1, 4))
    assert (four.forward, four.kept) == (4 * one.forward, 4 * one.kept)


def test_relu6_counts_the_copies_that_it_works_on():
    block = nn.HybridSequential()
    block.add(
        nn.Conv2D(8, 1, in_channels=4), nn.HybridLambda(lambda F, x: F.clip(x, 0, 6)), nn.Conv2D(8, 1, in_channels=8)
    )
    assert count(block, [(2, 4, 10, 10)]).kept == 4 * UNIT
