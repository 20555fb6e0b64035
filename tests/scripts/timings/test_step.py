"""The benchmark of the step: that rival and ours do the same, and what the figures are made of."""

import numpy as np
import pytest

from scripts.timings import step

SMALL = {"student": "mobilenet0.25", "teacher": "mobilenet0.5", "size": 64, "width": 8}


def setting():
    of = step._Setting(**SMALL)
    extractor, head = of.networks.detector.extractor, of.networks.detector.head
    return of, step.random_batch(4, SMALL["size"], len(head.anchors(extractor.sizes)))


def learnt(block):
    return [p.data().asnumpy() for p in block.collect_params().values() if p.grad_req != "null"]


def test_the_literal_step_moves_weights_as_ours_does():
    (ours, batch), (rival, _) = setting(), setting()
    before = learnt(ours.networks.detector)
    ours.step(batch, step.HERE)
    step.literal_step(rival, batch)
    for block in (lambda of: of.gan.dnet, lambda of: of.networks.detector):
        pairs = list(zip(learnt(block(ours)), learnt(block(rival))))
        # Adam's first step is the gradient's sign, which rounding decides where the gradient is next to nothing.
        close = np.concatenate([np.isclose(a, b, rtol=1e-4, atol=1e-5).ravel() for a, b in pairs])
        assert close.mean() > 0.98
    assert not all(np.array_equal(a, b) for a, b in zip(before, learnt(ours.networks.detector)))


def test_ratios_of_every_round_and_seconds_of_every_part():
    over_parts, literal = step.measure(2, **SMALL, batch=2)
    assert [over_parts.key, literal.key] == ["step_over_parts", "literal_over_step"]
    assert (over_parts.at_least, over_parts.aim, literal.aim) == (False, 1.05, 1.4)
    assert len(over_parts.ratios) == len(literal.ratios) == 2 and min(*over_parts.ratios, *literal.ratios) > 0
    assert {f"{part}, s" for part in ("student", "teacher", "critic", "adversary", "step")} < over_parts.details.keys()


def test_costs_are_those_of_one_image():
    of, _ = setting()
    costs = step.costs(of.networks)
    # From DNet's first block alone: 3x3, all channels of the teacher's first map, at each of its cells.
    teacher = of.networks.teacher
    first = 9 * teacher.channels[0] * 512 * teacher.sizes[0] ** 2 / 1e9
    assert costs["D-Net of 512 channels, GMAC"] > first > costs["D-Net of 128 channels, GMAC"] / 4
    assert costs["student's extractor, GMAC"] < costs["student with adapters and head, GMAC"]


@pytest.mark.slow
def test_a_critic_of_512_channels_costs_more_than_mobilenet():
    """What the page says of the paper's shapes (SSD512 MobileNet1.0 <- ResNet50)."""
    costs = step.costs(step._Setting("mobilenet1.0", "resnet50_v1", 512, 8).networks)
    assert costs["D-Net of 512 channels, GMAC"] > 2 * costs["student's extractor, GMAC"]
