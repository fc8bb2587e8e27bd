from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uda import UserError
from uda.methods import METHODS, unit
from uda.recipe import presets
from uda.recipe.load import load_recipe, parse_override
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
    recipe = load_recipe(name, IMAGES | {"seed": 7, "method.betas": [0.9, 0.99]})
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
    ],
)
def test_an_unknown_key_gets_the_nearest_right_one(key: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{nearest}'"):
        load_recipe("svhn2mnist", {key: 1})


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
    import tomllib

    recipe = load_recipe("svhn2mnist", {"method.kl_weight": abs(number), "classifier.mean": [number]})
    recipe = recipe.model_copy(update={"description": text})
    tables = tomllib.loads(recipe.to_toml())
    assert tables["method"]["kl_weight"] == abs(number)
    assert tables["classifier"]["mean"] == [number]
    assert tables["description"] == text


def test_every_setting_of_unit_can_be_set_and_is_documented() -> None:
    import inspect

    source = "".join(inspect.getsource(part) for part in unit.Settings.__mro__[:-2])
    for field in unit.Settings.model_fields:
        assert f"{field}:" in source
        load_recipe("svhn2mnist", {f"method.{field}": getattr(unit.Settings(), field)})


def test_a_recipe_object_is_taken_as_it_is() -> None:
    recipe = load_recipe("synth2digits")
    assert isinstance(recipe, Recipe)
    assert load_recipe(recipe, {"seed": 3}).seed == 3


def test_a_recipe_without_images_says_how_to_give_them() -> None:
    with pytest.raises(UserError, match="leaves open which images to read; give --target DIR"):
        load_recipe("folders", {"data.source": "mnist"})


def test_another_backbone_drops_the_first_ones_width() -> None:
    assert load_recipe("svhn2mnist", {"classifier.backbone": "timm:resnet18"}).classifier.width is None


def test_what_a_recipe_says_of_another_method_counts_when_that_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL + "[methods.dann.method]\nadversarial_weight = 0.25\n[methods.dann.augment.target]\nerase = 0.1\n")
    assert load_recipe(path, {"method.name": "dann"}).method.adversarial_weight == 0.25
    assert load_recipe(path, {"method.name": "dann", "method.adversarial_weight": 2}).method.adversarial_weight == 2
    assert load_recipe(path, {"method.name": "dann"}).augment.target.erase == 0.1
    assert load_recipe(path).augment.target.erase == 0
    assert load_recipe(path, {"method.name": "cdan"}).method.adversarial_weight == 1
    assert load_recipe(path).method.name == "unit"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[methods.dan.method]\nweight = 1", "methods.dan.method.weight"),
        ("[methods.dan.trainin]\nsteps = 1", "did you mean"),
        ("[methods.dnan]\n", "dnan"),
    ],
)
def test_a_wrong_table_of_another_method_is_refused(tmp_path: Path, table: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{MINIMAL}{table}\n")
    with pytest.raises(UserError, match=said):
        load_recipe(path)
