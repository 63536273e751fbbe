"""One vector of a view: the mean over what is valid."""

import torch

from skysense.pretrain.losses.image import image_vectors


def test_mean_is_parity_with_a_loop():
    torch.manual_seed(0)
    values, valid = torch.randn(3, 4, 2, 5), torch.rand(3, 2, 5) > 0.4
    valid[1] = False
    values.requires_grad_()

    vectors, present = image_vectors(values, valid)
    vectors.sum().backward()

    assert present.tolist() == [True, False, True]
    assert (vectors[1] == 0).all()
    for b in (0, 2):
        places = [values[b, :, i, j] for i in range(2) for j in range(5) if valid[b, i, j]]
        torch.testing.assert_close(vectors[b], sum(places) / len(places))
    assert torch.equal((values.grad != 0).all(1), valid)


def test_masked_places_change_nothing():
    values, valid = torch.randn(2, 3, 4, 4), torch.rand(2, 4, 4) > 0.5
    spoiled = values.masked_fill(~valid[:, None], torch.nan)

    torch.testing.assert_close(image_vectors(values, valid), image_vectors(spoiled, valid))
