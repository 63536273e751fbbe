"""The mean of weights: parity, what has none, and the command."""

import pytest
import torch

from skysense.hub import load
from skysense.models.readout import ReadoutConfig
from skysense.pretrain.averaging import main, mean_of
from skysense.pretrain.run import pretrain

OFF = [f"losses.{name}=0" for name in ("image", "pixel", "object", "alignment", "qsacl")]


def test_it_is_the_mean_without_a_read_out(fresh):
    models = [fresh("v2_tiny"), fresh("v2_tiny", readout=ReadoutConfig(kept=2), centered=True)]
    for i, model in enumerate(models):
        model.trained = True
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape) * (i + 1))

    mean = mean_of(models)

    assert mean.trained
    assert (mean.config.readout, mean.config.centered) == (None, False)
    for (name, own), first, second in zip(
        mean.named_parameters(), models[0].parameters(), models[1].parameters(), strict=True
    ):
        torch.testing.assert_close(own, (first + second) / 2, msg=name)
    models[1].trained = False
    assert not mean_of(models).trained


def test_models_of_several_configurations_have_none(fresh):
    with pytest.raises(ValueError, match=r"of one configuration.*v2_tiny differ in fusion_depth"):
        mean_of([fresh("v2_tiny"), fresh("v2_tiny", fusion_depth=1)])
    with pytest.raises(ValueError, match="no model has no mean"):
        mean_of([])


def test_the_command_fits_a_read_out(recipe, root, tmp_path):
    runs = [
        pretrain(recipe(tmp_path / str(seed), *OFF, "losses.instance=1", f"seed={seed}"))
        for seed in (0, 1)
    ]
    own = recipe(tmp_path / "x", "readout={kept: 3, modalities: [hr], samples: 8}")
    path = tmp_path / "recipe.yaml"
    path.write_text(own.model_dump_json(), encoding="utf-8")

    main(
        [*(str(run.model) for run in runs), "--recipe", str(path), "--output", str(tmp_path / "m")]
    )

    mean, first, second = (load(folder) for folder in (tmp_path / "m", *(r.model for r in runs)))
    assert mean.config.readout.kept == 3
    assert mean.readout.hr_map.abs().sum() > 0
    name, weight = next(iter(mean.named_parameters()))
    both = [dict(model.named_parameters())[name] for model in (first, second)]
    torch.testing.assert_close(weight, sum(both) / 2)


def test_the_command_says_what_is_wrong_in_one_line(root, tmp_path, capsys):
    recipe = str(root / "recipes/pretrain/v2_nano.yaml")
    with pytest.raises(SystemExit) as left:
        main([str(tmp_path / "none"), "--recipe", recipe, "--output", str(tmp_path / "m")])
    assert left.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error: unknown model" in last
    assert not (tmp_path / "m").exists()
