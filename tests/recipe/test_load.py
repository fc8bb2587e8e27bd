import tomllib
from pathlib import Path

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from uda import UserError
from uda.methods import METHODS, find_method
from uda.methods.unit import UNITSettings
from uda.recipe import presets
from uda.recipe.load import dump_recipe, load_recipe, parse_override, resolve
from uda.recipe.schema import Recipe

IMAGES = {"data.source": "mnist", "data.target": "usps"}
MINIMAL = '[data]\nsource = "mnist"\ntarget = "usps"\n[method]\nname = "unit"\n[training]\nsteps = 1\n'


NUMBERS = [
    (name, key)
    for name, method in METHODS.items()
    for key, field in method.Settings.model_fields.items()
    if isinstance(field.default, int | float) and not isinstance(field.default, bool)
]


@pytest.mark.parametrize(("method", "setting"), NUMBERS)
def test_no_number_of_a_method_may_be_negative(method: str, setting: str) -> None:
    with pytest.raises(UserError, match=rf"setting 'method.{setting}': input should be greater than .*got -1"):
        load_recipe("synth2digits", {"method.name": method, f"method.{setting}": -1})


@pytest.mark.parametrize("name", presets.names())
def test_every_shipped_recipe_loads_and_describes_itself(name: str) -> None:
    recipe = load_recipe(name, IMAGES)
    assert recipe.name == name
    assert recipe.description


@pytest.mark.parametrize("name", presets.names())
def test_a_resolved_recipe_reads_back_as_itself(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, IMAGES | {"seed": 7, "classifier.mean": [0.9, 0.99], "classifier.std": 0.5})
    assert recipe.classifier.std == (0.5,)  # of a grey network, one number will do
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert load_recipe(str(path)) == recipe


def test_digit_recipes_come_in_both_sizes() -> None:
    wanted = {"svhn2mnist", "mnist2usps", "usps2mnist", "synth2digits"}
    assert wanted | {f"{name}-paper" for name in wanted - {"synth2digits"}} <= set(presets.names())


@pytest.mark.parametrize("name", ["svhn2mnist-paper", "mnist2usps-paper", "usps2mnist-paper"])
def test_paper_recipes_have_published_sizes_and_no_anchor(name: str) -> None:
    method = load_recipe(name).method
    assert (method.width, method.class_weight, method.learning_rate, method.betas) == (96, 10.0, 2e-4, (0.5, 0.999))
    assert method.information_weight == method.pseudo_label_weight == method.translated_class_weight == 0
    assert not method.warm_start


@pytest.mark.parametrize(("name", "decay_from"), [("folders-drit-paper", 0.5), ("translate-paper", 1.0)])
def test_paper_recipes_that_translate_have_the_released_steps_and_keep_the_last_weights(name: str, decay_from: float) -> None:
    recipe = load_recipe(name, IMAGES)
    assert (recipe.training.steps, recipe.method.decay_from, recipe.method.ema_decay) == (500_000, decay_from, 0)


def test_the_paper_recipe_of_drits_adaptation_has_no_augmentation() -> None:
    augment = load_recipe("mnist2mnistm-paper").augment
    assert augment.source == augment.target == type(augment.source)()


def test_overrides_reach_any_key() -> None:
    recipe = load_recipe("svhn2mnist", {"method.feature_norm": "l2", "training.steps": 3, "augment.source.rotate": 1.5})
    assert (recipe.method.feature_norm, recipe.training.steps, recipe.augment.source.rotate) == ("l2", 3, 1.5)


def test_another_method_drops_the_first_ones_settings() -> None:
    assert load_recipe("svhn2mnist", {"method.name": "source_only"}).method.name == "source_only"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("method.feature_nrom", "method.feature_norm"),
        ("traning.steps", "training"),
        ("training.step", "training.steps"),
        ("augment.source.rotat", "augment.source.rotate"),
        ("classifier.training.smooth", "classifier.training.smoothing"),
        ("methods.dann.width", "method"),
    ],
)
def test_an_unknown_key_gets_the_nearest_right_one(key: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{nearest}'"):
        load_recipe("svhn2mnist", {key: 1})


def test_a_table_that_is_like_none_gets_the_list_of_all() -> None:
    with pytest.raises(UserError, match=r"unknown setting 'nonsense'; choose one of: augment, .*training"):
        load_recipe("svhn2mnist", {"nonsense.x": 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.steps", 0), ("training.steps", "many"), ("method.feature_norm", "l3"), ("data.channels", 4),
        ("method.width", "wide"), ("seed.x", 1), ("method", "unit"),
    ],
)  # fmt: skip
def test_wrong_values_are_one_line_that_names_the_key(key: str, value: object) -> None:
    with pytest.raises(UserError) as error:
        load_recipe("svhn2mnist", {key: value})
    assert "\n" not in str(error.value)
    assert key.split(".")[0] in str(error.value)


def test_unknown_recipes_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'svhn2mnist'"):
        load_recipe("svhn2minst")
    with pytest.raises(UserError, match="no recipe file"):
        load_recipe("nowhere.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[data\n")
    with pytest.raises(UserError, match="not valid TOML"):
        load_recipe(str(broken))
    broken.write_text("description = 'no method'\n")
    with pytest.raises(UserError, match="method"):
        load_recipe(str(broken))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=l2", ("a.b", "l2")), ("a=3", ("a", 3)), ("a=1e-3", ("a", 1e-3)), ("a=true", ("a", True)),
        ("a=[0.5, 0.9]", ("a", [0.5, 0.9])), ("a=x=y", ("a", "x=y")), ("a=timm:resnet18", ("a", "timm:resnet18")),
    ],
)  # fmt: skip
def test_overrides_on_the_command_line_are_typed(text: str, expected: tuple[str, object]) -> None:
    assert parse_override(text) == expected


def test_an_override_without_equals_says_how_to_write_one() -> None:
    with pytest.raises(UserError, match="KEY=VALUE"):
        parse_override("method.width")


@given(
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
)
def test_any_number_and_text_survive_being_written(number: float, text: str) -> None:
    recipe = load_recipe("svhn2mnist", {"method.kl_weight": abs(number), "classifier.mean": [number]})
    recipe = recipe.model_copy(update={"description": text})
    tables = tomllib.loads(recipe.to_toml())
    assert tables["method"]["kl_weight"] == abs(number)
    assert tables["classifier"]["mean"] == [number]
    assert tables["description"] == text


def test_every_setting_of_unit_can_be_set_and_is_documented() -> None:
    import inspect

    source = "".join(inspect.getsource(part) for part in UNITSettings.__mro__[:-2])
    for field in UNITSettings.model_fields:
        assert f"{field}:" in source
        load_recipe("svhn2mnist", {f"method.{field}": getattr(UNITSettings(), field)})


def test_a_recipe_object_is_taken_as_it_is() -> None:
    recipe = load_recipe("synth2digits")
    assert isinstance(recipe, Recipe)
    assert load_recipe(recipe, {"seed": 3}).seed == 3


def test_a_recipe_without_images_says_how_to_give_them() -> None:
    with pytest.raises(UserError, match="leaves open which images to read; give --target DIR"):
        load_recipe("folders", {"data.source": "mnist"})


def test_a_misspelt_setting_is_named_before_the_images_that_are_left_open() -> None:
    with pytest.raises(UserError, match=r"unknown setting 'training.stepz'; did you mean 'training.steps'\?"):
        load_recipe("folders", {"training.stepz": 3})


def test_a_setting_without_its_table_is_told_which_tables_have_it() -> None:
    with pytest.raises(UserError, match=r"unknown setting 'steps'; did you mean 'classifier.steps' or 'training.steps'\?"):
        load_recipe("svhn2mnist", {"steps": 60})


def test_a_recipe_without_a_table_of_data_says_how_to_give_images(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('description = "mine"\n[method]\nname = "dann"\n[classifier]\nbackbone = "strided"\n')
    with pytest.raises(UserError, match="give --source DIR --target DIR"):
        load_recipe(tmp_path / "own.toml")


def test_a_method_that_learns_from_masked_images_asks_for_masks() -> None:
    with pytest.raises(UserError, match=r"^mic learns from masked images; say so: --set augment.target.mask=0.5$"):
        load_recipe("synth2digits", {"method.name": "mic"})
    assert load_recipe("synth2digits", {"method.name": "mic", "augment.target.mask": 0.5}).augment.target.mask == 0.5


def test_another_backbone_drops_the_first_ones_width() -> None:
    assert load_recipe("svhn2mnist", {"classifier.backbone": "timm:resnet18"}).classifier.width is None


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_recipe_says_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", MINIMAL + "batch = 9\n[augment.source]\nrotate = 5\n")
    recipe = load_recipe(write(tmp_path / "mine.toml", 'extends = "base.toml"\n[training]\nsteps = 2\n'))
    assert (recipe.name, recipe.training.steps, recipe.training.batch, recipe.augment.source.rotate) == ("mine", 2, 9, 5)


def test_a_recipe_extends_a_shipped_one_by_name(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "mine.toml", 'extends = "mnist2usps-dann"\nseed = 4\n'))
    assert recipe.model_copy(update={"name": "", "description": "", "seed": 0}) == load_recipe("mnist2usps-dann").model_copy(
        update={"name": "", "description": ""}
    )


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", 'extends = "b.toml"')
    with pytest.raises(UserError, match="extends itself"):
        load_recipe(write(tmp_path / "b.toml", 'extends = "a.toml"'))


def test_a_recipe_that_extends_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'mnist2usps'"):
        load_recipe(write(tmp_path / "a.toml", 'extends = "mnist2ups"'))


def test_another_method_than_the_bases_leaves_its_settings_and_training_behind(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "a.toml", 'extends = "mnist2usps"\n[method]\nname = "shot"\n[training]\nbatch = 7\n'))
    assert recipe.training == find_method("shot").default_training.model_copy(update={"batch": 7})
    assert recipe.data == load_recipe("mnist2usps").data


def test_a_recipe_without_training_takes_its_methods_own(tmp_path: Path) -> None:
    text = MINIMAL.replace("unit", "shot").replace("[training]\nsteps = 1\n", "")
    assert load_recipe(write(tmp_path / "a.toml", text)).training == find_method("shot").default_training


@pytest.mark.parametrize("name", [name for name in presets.names() if name not in ("folders", "translate")])
def test_a_shipped_recipe_with_a_method_is_the_variant_that_is_shipped(name: str) -> None:
    for variant in presets.variants(name):
        method = variant.removeprefix(f"{name}-")
        recipe = load_recipe(variant, IMAGES)
        assert load_recipe(name, IMAGES | {"method.name": method}) == recipe
        assert recipe.method.name == method


def test_what_extends_a_recipe_has_its_variants(tmp_path: Path) -> None:
    variant, mine = load_recipe("photos-unit", IMAGES), write(tmp_path / "mine.toml", 'extends = "photos"\n')
    for name, held_out in (("office31", False), (mine, True)):
        recipe = load_recipe(name, IMAGES | {"method.name": "unit"})
        assert (recipe.method, recipe.training) == (variant.method, variant.training)
        assert (recipe.data.drawn_read_size, recipe.data.held_out) == (128, held_out)


def test_a_shipped_recipe_with_another_method_keeps_its_name_and_data() -> None:
    recipe, before = load_recipe("svhn2mnist", {"method.name": "dann"}), load_recipe("svhn2mnist")
    assert recipe.training == find_method("dann").default_training
    assert recipe.method == find_method("dann").Settings()
    assert (recipe.name, recipe.data, recipe.augment, recipe.classifier) == (
        before.name, before.data, before.augment, before.classifier,
    )  # fmt: skip


def test_the_training_of_a_users_own_file_is_kept_for_another_method_and_a_line_says_so(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.toml", MINIMAL.replace('"unit"', '"unit"\nwidth = 8'))
    resolved = resolve(mine, {"method.name": "dann"})
    assert resolved.recipe.training == find_method("dann").default_training.model_copy(update={"steps": 1})
    kept, dropped = resolved.notes
    assert kept == f"training.steps of {mine}, made for unit, is kept for dann"
    assert dropped == f"method.width of {mine}, made for unit, is left out, since the method is dann"
    assert resolve(mine).notes == resolve(mine, {"method.name": "unit"}).notes == ()


def test_what_a_users_own_file_extends_is_left_behind_with_the_method(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.toml", 'extends = "svhn2mnist"\n[training]\nsteps = 3\n')
    assert load_recipe(mine, {"method.name": "dann"}).training == find_method("dann").default_training.model_copy(
        update={"steps": 3}
    )


def test_every_setting_says_where_it_came_from(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.toml", 'extends = "svhn2mnist"\n[training]\nsteps = 3\n')
    overrides = {"method.name": "dann", "seed": 1, "selection.keep": True}
    origins = resolve(mine, overrides, {"seed": "--seed", "method.name": "--method"}).origins
    expected = {
        "seed": "--seed",
        "method.name": "--method",
        "selection.keep": "--set",
        "training.steps": f"recipe {mine}",
        "training.batch": "default training of dann",
        "method.hidden": "default",
        "data.size": "recipe svhn2mnist (extended)",
        "data.memory": "default",
    }
    assert {key: origins[key] for key in expected} == expected


def test_a_dropped_width_is_told_where_settings_tell_where_they_came_from() -> None:
    resolved = resolve("svhn2mnist", {"classifier.backbone": "lenet"})
    assert resolved.origins["classifier.width"] == "default, since 32 of recipe svhn2mnist is another network's"
    assert "# width is left open: default, since 32" in resolved.recipe.to_toml(resolved.origins)


def test_a_recipe_with_its_origins_as_comments_is_the_same_recipe(tmp_path: Path) -> None:
    resolved = resolve("mnist2usps", {"method.name": "latent_mapping"})
    path = write(tmp_path / "a.toml", resolved.recipe.to_toml(resolved.origins))
    assert load_recipe(path) == resolved.recipe


def test_old_names_of_a_setting_are_understood_in_files_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from pydantic import AliasChoices, Field\nfrom uda.methods.base import OneNetwork, OptimizerSettings\n"
        "class Settings(OptimizerSettings):\n"
        "    ema_decay: float = Field(0.9, validation_alias=AliasChoices('ema_decay', 'averaging'))\n"
        "class Own(OneNetwork):\n    Settings = Settings\n"
    )
    text = MINIMAL.replace('"unit"', f'"{tmp_path}/own.py:Own"\naveraging = 0.5')
    mine = write(tmp_path / "mine.toml", text)
    assert load_recipe(mine).method.ema_decay == 0.5
    resolved = resolve(mine, {"method.averaging": 0.25})
    assert (resolved.recipe.method.ema_decay, resolved.origins["method.ema_decay"]) == (0.25, "--set")
    assert load_recipe(mine, {"method.ema_decay": 0.75}).method.ema_decay == 0.75
    with pytest.raises(UserError, match=r"did you mean 'method\.averaging'"):
        load_recipe(mine, {"method.avraging": 1})


def test_a_recipe_that_would_not_read_back_is_not_written(tmp_path: Path) -> None:
    recipe = load_recipe("svhn2mnist")
    classifier = recipe.classifier.model_copy(update={"mean": (float("nan"),)})
    with pytest.raises(UserError, match=r"classifier\.mean"):
        dump_recipe(recipe.model_copy(update={"classifier": classifier}))


# Values that each kind of setting may have, so that nearly any override of any key can be drawn.
KINDS = {
    bool: st.booleans(),
    int: st.integers(1, 10**6),
    float: st.floats(0, 1, allow_subnormal=False),
    str: st.text(st.characters(codec="utf-8")),
}


def keys_with_values(recipe: Recipe) -> dict[str, object]:
    def walk(tables: dict, prefix: str = "") -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in tables.items():
            found |= walk(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return found

    return {key: value for key, value in walk(recipe.model_dump()).items() if type(value) in KINDS}


@given(st.data())
def test_any_override_survives_being_written_and_read(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(("svhn2mnist", "mnist2usps-dann", "mnist2mnistm")))
    settings = keys_with_values(load_recipe(name))
    keys = data.draw(st.lists(st.sampled_from(sorted(settings)), min_size=1, max_size=4, unique=True))
    overrides = {key: data.draw(KINDS[type(settings[key])], label=key) for key in keys}
    try:
        recipe = load_recipe(name, overrides)
    except UserError:
        reject()  # a choice of names, or a narrower range
    assert Recipe.model_validate(tomllib.loads(dump_recipe(recipe))) == recipe


def test_a_table_among_the_overrides_takes_the_place_of_the_whole_one() -> None:
    recipe = load_recipe("folders", {"data.source": "mnist", "data.target": "usps", "augment": {}, "training": {"steps": 5}})
    assert (recipe.augment.source.rotate, recipe.augment.target.erase) == (0.0, 0.0)
    assert (recipe.training.steps, recipe.training.target_batch) == (5, None)


def test_training_that_a_users_own_base_asks_for_is_kept_by_what_extends_it_and_a_line_says_so(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", MINIMAL.replace("steps = 1", "steps = 123"))
    mine = write(tmp_path / "b.toml", 'extends = "a.toml"\n[method]\nname = "dann"\n')
    resolved = resolve(mine)
    assert resolved.recipe.training.steps == 123
    assert any("training.steps" in note and "is kept for dann" in note for note in resolved.notes)


@pytest.mark.parametrize("method", ["unit", "drit", "latent_mapping", "unit_translation"])
def test_a_translator_is_refused_fewer_target_images_than_source_images(method: str) -> None:
    given = {"method.name": method, "training.batch": 8, "training.target_batch": 4, "training.steps": 1}
    with pytest.raises(UserError, match="target_batch is 4, less than"):
        load_recipe("synth2digits", given)
    assert load_recipe("synth2digits", given | {"method.name": "dann"}).training.target_batch == 4


def test_paths_hold_in_any_other_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a file says them or an override; names stay as they are."""
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text('[data]\nsource = "./a"\ntarget = "digits"\n[method]\nname = "mcc"\n')
    found = load_recipe(
        "own.toml", {"data.target_test": "b/c.csv", "classifier.backbone": "nets.py:Net", "classifier.weights": "w"}
    )
    here = Path.cwd()
    assert (found.data.source, found.data.target, found.data.target_test) == (str(here / "a"), "digits", str(here / "b/c.csv"))
    assert (found.classifier.backbone, found.classifier.weights) == (f"{here}/nets.py:Net", str(here / "w"))
