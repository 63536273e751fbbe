"""Two processes against one, on the same rows; and processes killed while they save."""

import pytest
import torch

from skysense.engine.checkpoint import latest, restore, save
from skysense.engine.distributed import Ranks, gather_rows, global_mean, start, sum_over_ranks
from skysense.engine.parallel import clip_gradients, complete_gradients, ema_update, parallelize


def differences(a, b):
    """Largest difference of any tensor."""
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max()) for key in a)


@pytest.fixture(scope="module")
def alone(program):
    return program.train_none(Ranks(), None)


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_processes_train_like_one(alone, together, mode):
    _, _, ranks = together

    for results in ranks:
        numbers = results[f"train_{mode}"]
        torch.testing.assert_close(numbers["losses"], alone["losses"], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(numbers["norms"], alone["norms"], atol=2e-6, rtol=2e-6)
        assert differences(numbers["tensors"], alone["tensors"]) < 1e-6


def test_training_changed_what_it_should(alone, program):
    start_of = program.Run(Ranks(), "none").numbers()["tensors"]

    assert alone["losses"][-1] < alone["losses"][0]
    for name in ("student.first.weight", "student.branch.weight", "teacher.block.0.weight"):
        assert not torch.equal(alone["tensors"][name], start_of[name]), name


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_resumed_equals_uninterrupted_to_the_bit_on_two_processes(together, mode):
    for results in together[2]:
        (tensors, numbers), (again, numbers_again) = results[f"resume_{mode}"]
        assert differences(tensors, again) == 0
        assert torch.equal(numbers, numbers_again)


def test_resumed_equals_uninterrupted_to_the_bit_on_one_process(program, tmp_path):
    (tensors, numbers), (again, numbers_again) = program.resume_none(Ranks(), tmp_path)

    assert differences(tensors, again) == 0
    assert torch.equal(numbers, numbers_again)


def test_ranks_keep_random_generators_of_their_own(together):
    first, second = (results["resume_ddp"][0][1] for results in together[2])

    assert not torch.equal(first, second)


def test_one_process_restores_what_two_saved(together, program):
    folder, _, _ = together
    expected = program.Run(Ranks(), "none").train(0, 5).numbers()

    numbers = program.restore_into_none(Ranks(), folder)

    assert differences(numbers["tensors"], expected["tensors"]) < 1e-6


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_processes_restore_what_one_saved(together, program, mode):
    expected = program.Run(Ranks(), "none").train(0, 5).numbers()

    for results in together[2]:
        numbers = results[f"restore_into_{mode}"]
        assert differences(numbers["tensors"], expected["tensors"]) < 1e-6


def test_accumulated_gradients_agree(together):
    first, second = (results["accumulated"] for results in together[2])

    for gradient in (first["fsdp"], second["ddp"], second["fsdp"]):
        torch.testing.assert_close(gradient, first["ddp"], atol=1e-6, rtol=1e-5)


def test_blocks_in_half_precision_have_float32_gradients_close_by(together):
    exact, half = together[2][0]["half_precision"]

    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert (half - exact).norm() < 0.05 * exact.norm()


def test_nan_on_one_rank_stops_all(together):
    said = [results["nan_on_last"] for results in together[2]]

    assert all("loss is nan" in text and "norm" not in text for text in said), said


def test_full_disk_on_one_rank_is_said_on_all_and_loses_nothing(together):
    folder, _, ranks = together

    for results in ranks:
        assert "could not be written on rank 1" in results["full_disk"]
        assert "File too large" in results["full_disk"]
    assert [path.name for path in (folder / "full").iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("point", ["before", "tensors", "facts", "rename"])
def test_killed_save_leaves_the_previous_one(together, program, point):
    folder = together[0] / f"killed_{point}"
    one = program.distributed.Ranks()
    expected = program.Run(one, "none").train(0, 4).numbers()["tensors"]
    assert len(list(folder.iterdir())) == 2  # a leftover beside it

    run = program.Run(one, "none", seed=4)
    described = restore(latest(folder), run.state(), {"toy": 1})
    run.train(2, 4)
    save(folder, 2, run.state(), {"toy": 1})

    assert described["step"] == 1
    tensors = run.numbers()["tensors"]
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)
    assert {path.name for path in folder.iterdir()} == {"step-00000001", "step-00000002"}


def test_several_processes_need_a_mode(together):
    for results in together[2]:
        assert "choose `ddp` or `fsdp`" in results["mode_none_is_refused"]


@pytest.mark.slow
def test_four_processes_train_like_one_and_resume_to_the_bit(alone, on_ranks, tmp_path):
    names = [f"{what}_{mode}" for what in ("train", "resume") for mode in ("ddp", "fsdp")]
    for results in on_ranks(tmp_path, names, world=4):
        for mode in ("ddp", "fsdp"):
            assert differences(results[f"train_{mode}"]["tensors"], alone["tensors"]) < 2e-6
            (tensors, _), (again, _) = results[f"resume_{mode}"]
            assert differences(tensors, again) == 0


def test_one_process_exchanges_nothing():
    x = torch.randn(3, 2, requires_grad=True)

    assert gather_rows(x) is x
    assert torch.equal(sum_over_ranks(x), x)
    assert parallelize(torch.nn.Linear(1, 1), "fsdp", Ranks()).weight.shape == (1, 1)


def test_global_mean_is_the_weighted_mean():
    values = torch.tensor([1.0, 2.0, 6.0, float("nan")], requires_grad=True)
    weight = torch.tensor([1.0, 1.0, 2.0, 0.0])

    mean = global_mean(values, weight)
    mean.backward()

    assert mean.item() == pytest.approx(15 / 4)
    assert torch.equal(values.grad[:3], weight[:3] / 4)


@pytest.mark.parametrize("rows", [0, 2])
def test_global_mean_without_weight_is_zero_with_a_graph(rows):
    values = torch.ones(rows, requires_grad=True)

    mean = global_mean(values, torch.zeros(rows))
    mean.backward()

    assert mean.item() == 0
    assert torch.equal(values.grad, torch.zeros(rows))


def test_start_of_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    assert start("cpu") == Ranks()
    with pytest.raises(ValueError, match="unknown device `tpu`; known"):
        start("tpu")
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="WORLD_SIZE is `two`"):
        start("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_gpu_is_refused():
    with pytest.raises(ValueError, match="no GPU is usable"):
        start("cuda")


def test_ema_moves_parameters_in_place_and_copies_buffers():
    teacher, student = (torch.nn.BatchNorm1d(3) for _ in range(2))
    torch.nn.init.constant_(student.weight, 3.0)
    student.running_mean.fill_(5)
    before, weight = teacher.weight._version, teacher.weight

    ema_update(teacher, student, 0.75)

    assert teacher.weight is weight
    assert teacher.weight._version > before
    assert torch.allclose(teacher.weight, torch.tensor(1.5))
    assert torch.equal(teacher.running_mean, student.running_mean)


def test_clipping_scales_to_the_limit():
    layer = torch.nn.Linear(2, 2)
    layer.weight.grad = torch.full((2, 2), 3.0)
    complete_gradients(layer.parameters())

    assert torch.equal(layer.bias.grad, torch.zeros(2))
    assert clip_gradients(layer.parameters(), None) == 6
    assert clip_gradients(layer.parameters(), 1.5) == 6
    assert clip_gradients(layer.parameters(), 10.0).item() == pytest.approx(1.5, rel=1e-5)
    assert clip_gradients([], 1.0) == 0
