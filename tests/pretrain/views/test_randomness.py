"""Numbers that look random, and depend on what they are for alone."""

import math
import zlib

import torch

from skysense.pretrain.views.randomness import Draws

ROWS = torch.arange(64)


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_uniform_numbers_are_uniform_and_uncorrelated():
    u = Draws(0, 0, 0, ROWS).uniform("test", 1024)

    shares = torch.histc(u, 64, 0, 1) / u.numel()
    assert u.min() > 0
    assert u.max() < 1
    assert (shares * 64 - 1).abs().max() < 0.15
    assert abs(correlation(u[:, 1:], u[:, :-1])) < 0.02
    assert abs(correlation(u[1:], u[:-1])) < 0.02
    assert u.unique().numel() > 0.99 * u.numel()


def test_normal_numbers_are_normal():
    z = Draws(0, 0, 0, ROWS).normal("test", 1024)

    assert abs(float(z.mean())) < 0.02
    assert abs(float(z.std()) - 1) < 0.02
    assert abs(float((z.abs() < 1).float().mean()) - math.erf(math.sqrt(0.5))) < 0.01
    assert torch.isfinite(z).all()


def test_each_part_of_the_name_gives_other_numbers():
    base = Draws(0, 0, 0, ROWS).uniform("test", 64)
    others = [
        Draws(1, 0, 0, ROWS).uniform("test", 64),
        Draws(2**32, 0, 0, ROWS).uniform("test", 64),
        Draws(0, 1, 0, ROWS).uniform("test", 64),
        Draws(0, 0, 1, ROWS).uniform("test", 64),
        Draws(0, 0, 0, ROWS + 64).uniform("test", 64),
        Draws(0, 0, 0, ROWS).uniform("toast", 64),
    ]

    assert all(abs(correlation(base, other)) < 0.05 for other in others)
    assert Draws(0, 1, 2, ROWS).uniform("test", 1).equal(Draws(0, 1, 2, ROWS).uniform("test", 1))


def test_numbers_do_not_depend_on_company():
    whole = Draws(5, 7, 1, ROWS).uniform("test", 3, 4)
    part = Draws(5, 7, 1, ROWS[10:20]).uniform("test", 5, 4)

    assert torch.equal(part[:, :3], whole[10:20])


def test_numbers_are_those_of_the_hash_in_plain_integers():
    def scramble(x):
        x = ((x ^ x >> 16) * 0x7FEB352D) % 2**32
        x = ((x ^ x >> 15) * 0x846CA68B) % 2**32
        return x ^ x >> 16

    value = 0
    for word in (1, 0, 2, 0, 3, 4):  # seed and step in two halves, view, position
        value = scramble(value ^ word)
    value = scramble(value ^ zlib.crc32(b"test"))
    bits = [scramble((value + i * 0x9E3779B9) % 2**32) for i in range(5)]

    found = Draws(1, 2, 3, torch.tensor([4])).uniform("test", 5)[0]

    assert found.tolist() == [(b // 2**9 + 0.5) / 2**23 for b in bits]
