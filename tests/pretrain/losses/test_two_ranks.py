"""Two processes give the losses, gradients and banks of one that has all rows."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from skysense.engine.distributed import mean_over_ranks, rank, start, stop, world_size
from skysense.models.geo_context import GeoContext
from skysense.pretrain.losses.contrast import Centering, CodeHead, contrast, sinkhorn_targets
from skysense.pretrain.losses.instance import InstanceHead, instance_loss
from skysense.pretrain.losses.koleo import koleo
from skysense.pretrain.losses.prototypes import update_prototypes
from skysense.pretrain.losses.text_alignment import DenseTextAlignment
from skysense.pretrain.losses.variance import variance_loss

ROWS = 12


def compute():
    """Everything that looks beyond its own rank, for this rank's rows out of twelve."""
    torch.manual_seed(0)
    head, alignment = CodeHead(6, 8, 10, 5), DenseTextAlignment(6, 4)
    student, teacher = torch.randn(ROWS, 6), torch.randn(ROWS, 6)
    weight, labels = torch.ones(ROWS), torch.randint(-1, 3, (ROWS,))
    weight[:4], labels[7:] = 0, -1  # ranks differ in how much counts
    embeddings, places = torch.randn(3, 4), torch.tensor([[10.0, 40], [100, -20]]).repeat(6, 1)
    maps = torch.randn(ROWS, 2, 3, 6)
    own = slice(rank() * ROWS // world_size(), (rank() + 1) * ROWS // world_size())
    centering, bank = Centering(8), GeoContext(4, 3, 6)
    rows = student[own].requires_grad_()

    logits = head(teacher[own]).detach()
    targets = sinkhorn_targets(logits, 0.05, weight[own])
    centering(logits, 0.05, weight[own])
    update_prototypes(bank, maps[own], maps[own, ..., 0] > -1, places[own], 0.9, places=4)
    instance = InstanceHead(6, 10, 5)
    views = torch.randn(2, ROWS, 6)[:, own].flatten(0, 1).requires_grad_()  # two of each row
    present = weight.repeat(2, 1)[:, own].flatten()
    found = instance_loss(instance(views, present), present, len(rows), 0.2)
    losses = {
        "instance": found,
        "contrast": contrast(head(rows), targets, 0.1, weight[own]),
        "koleo": koleo(rows, weight[own]),
        "variance": variance_loss(rows, weight[own], 2.0),
        "text": alignment(rows, labels[own], embeddings),
    }
    torch.stack(list(losses.values())).sum().backward()
    shared = {name: mean_over_ranks(loss.detach()) for name, loss in losses.items()}
    for part in (head, alignment, instance):
        shared |= {name: mean_over_ranks(p.grad) for name, p in part.named_parameters()}
    shared |= {"center": centering.center, "bank": bank.prototypes}
    gradients = {
        "gradient": rows.grad / world_size(),
        "views": views.grad.unflatten(0, (2, -1)).transpose(0, 1) / world_size(),
    }
    return shared, {"targets": targets, **gradients}


@pytest.mark.slow
def test_two_ranks_give_what_one_gives(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, tmp_path],
            env={**os.environ, **common, "RANK": str(i), "LOCAL_RANK": str(i)},
        )
        for i in range(2)
    ]

    shared, rows = compute()

    assert [process.wait(120) for process in processes] == [0, 0]
    found = [torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in range(2)]
    for their_shared, _ in found:
        torch.testing.assert_close(their_shared, shared, atol=1e-5, rtol=1e-4)
    for name, value in rows.items():
        torch.testing.assert_close(
            torch.cat([own[name] for _, own in found]), value, atol=1e-5, rtol=1e-4
        )
    assert torch.equal(found[0][0]["bank"], found[1][0]["bank"])


def main():
    """One of the two processes."""
    start("cpu")
    torch.save(compute(), Path(sys.argv[1]) / f"{rank()}.pt")
    stop()


if __name__ == "__main__":
    main()
