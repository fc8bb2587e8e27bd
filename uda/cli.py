"""The command line: one small function per command. torch is imported only by the commands that compute."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import uda
from uda.data.names import data_roots, is_path
from uda.errors import UserError
from uda.recipe import presets

if TYPE_CHECKING:
    from uda.console import Display
    from uda.report.compare import Group

app = typer.Typer(
    help="Unsupervised domain adaptation: a classifier and unlabelled images in, an adapted classifier and an honest number out.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipes_app = typer.Typer(help="List the recipes, or show one.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(recipes_app, name="recipes")
cache_app = typer.Typer(
    help="List what is kept for other runs, or delete it.", invoke_without_command=True, rich_markup_mode=None
)
app.add_typer(cache_app, name="cache")
PUBLISHED = ("timm:", "torchvision:")
"""what the names of networks begin with that come pretrained"""

START = """Try it, in two minutes and without a download:
  uda fit --recipe synth2digits

Adapt your own classifier to images without labels:
  uda fit --model nets.py:Net --weights net.pt --source photos/ --target scans/

Use the result:
  uda predict RUN images/

`uda --help` lists all commands."""

# Flags that several commands have.
DataRoot = Annotated[
    str | None,
    typer.Option("--data-root", help=f"Folders of the data sets, joined by {os.pathsep!r}; else $UDA_DATA, else ~/.cache/uda."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    str | None, typer.Option("--precision", help="bf16, fp32 or auto (a probe decides). Left out: auto to fit, else as the run.")
]
Which = Annotated[str, typer.Option("--which", help="last, selected (by the label-free score) or source (before adaptation).")]
Out = Annotated[Path, typer.Option("-o", "--out", help="What to write.")]
OutOrNone = Annotated[Path | None, typer.Option("-o", "--out", help="What to write. Left out: what the description names.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]


def _anchored(name: str) -> str:
    """A path of images made absolute; a data set's name as it is."""
    return str(Path(name).absolute()) if is_path(name) else name


def _anchored_factory(name: str) -> str:
    """FILE.py:FACTORY with its path made absolute; a module's or timm's as it is."""
    place, colon, factory = name.rpartition(":")
    return str(Path(place).absolute()) + colon + factory if place.endswith(".py") else name


FLAGS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "source": ("data.source", _anchored),
    "target": ("data.target", _anchored),
    "source_test": ("data.source_test", _anchored),
    "target_test": ("data.target_test", _anchored),
    "size": ("data.size", int),
    "model": ("classifier.backbone", _anchored_factory),
    "weights": ("classifier.weights", lambda path: str(Path(path).absolute())),
    "backbone_weights": ("classifier.backbone_weights", lambda path: str(Path(path).absolute())),
    "split": ("classifier.split", str),
    "method": ("method.name", _anchored_factory),
    "seed": ("seed", int),
}
"""flags of `uda fit` that are keys of the recipe, and how values are written down: a path holds wherever one resumes"""


def _overrides(flags: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the command line says of the recipe, by dotted key: the values, and the flags that they came by."""
    from uda.recipe.load import parse_override

    values = dict(parse_override(text) for text in flags["set_"] or ())
    given = [flag for flag in FLAGS if flags[flag] is not None]
    values |= {FLAGS[flag][0]: FLAGS[flag][1](flags[flag]) for flag in given}
    return values, {FLAGS[flag][0]: f"--{flag.replace('_', '-')}" for flag in given}


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False
) -> None:
    """What comes before every command, and is all that happens where none is given."""
    if version:
        print(f"uda {uda.__version__}")
    elif context.invoked_subcommand is None:
        print(START)


@app.command()
def fit(
    context: typer.Context,
    recipe: Annotated[
        str | None, typer.Option(help="A name from `uda recipes` or a .toml file; with --source: photos or folders.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue an interrupted run folder instead.")] = None,
    source: Annotated[str | None, typer.Option(help="Labelled images: a folder CLASS/IMAGE.png, .csv, .npz, or a name.")] = None,
    target: Annotated[str | None, typer.Option(help="Images without labels: a folder, .csv, .npz, or a name.")] = None,
    source_test: Annotated[str | None, typer.Option(help="Labelled source images to test on; else a tenth of --source.")] = None,
    target_test: Annotated[str | None, typer.Option(help="Labelled target images to test on; else a named set's own.")] = None,
    model: Annotated[str | None, typer.Option(help="FILE.py:FACTORY, MODULE:FACTORY, timm:NAME, torchvision:NAME.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Its trained weights: a state dict, .pt or .safetensors.")] = None,
    backbone_weights: Annotated[Path | None, typer.Option(help="A pretrained body's weights; its head is made anew.")] = None,
    split: Annotated[str | None, typer.Option(help="The last module of its stem; else found, and printed.")] = None,
    size: Annotated[int | None, typer.Option(help="Side that images are brought to, pixels; else the source's own.")] = None,
    method: Annotated[str | None, typer.Option(help="Another method: a name from `uda methods`, or FILE.py:CLASS.")] = None,
    seed: Seed = None,
    seeds: Annotated[int | None, typer.Option(help="So many runs, with seeds from --seed on, and their mean and spread.")] = None,
    out: OutOrNone = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    precision: Precision = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any key: --set method.feature_norm=l2. Repeatable.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute all anew, and keep nothing for other runs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every setting with its origin, check, and stop.")] = False,
) -> None:
    """Adapt a classifier: the source classifier first, then the method, then the figures.

    Without --out, the run folder is runs/RECIPE-METHOD-SEED-TIME.

    Your own: uda fit --model nets.py:Net --weights net.pt --source photos/ --target scans/

    svhn2mnist, mnist2usps, usps2mnist and synth2digits take minutes on two CPU cores; the -paper recipes, at the published
    size, want a GPU (days on a CPU).
    """
    if recipe is None and (source or target):
        recipe = "photos" if (model or "").startswith(PUBLISHED) and weights is None else "folders"
    if (recipe is None) == (resume is None):
        raise UserError("give either --recipe NAME or --resume RUN; `uda recipes` lists the names")
    flags = context.params
    if resume is not None:
        asked = any(flags[flag] is not None for flag in (*FLAGS, "seeds", "out", "data_root"))
        if asked or set_ or dry_run or no_cache or (device, precision) != ("auto", "auto"):
            raise UserError("--resume goes on as the run began; leave out all other settings, or start anew with --recipe")
        _resume(resume)
        return
    presets.find(str(recipe))  # a wrong name is answered before torch is loaded
    overrides, origins = _overrides(flags)
    if dry_run:
        _check(str(recipe), overrides, origins, data_root, device, precision or "auto")
    else:
        where = {"data_root": data_root, "device": device, "precision": precision or "auto", "cache": not no_cache}
        _fit(str(recipe), seeds, overrides=overrides, out=out, **where)


def _fit(recipe: str, seeds: int | None, **settings: Any) -> None:
    from uda.console import Display, next_steps
    from uda.training.fit import fit as run_fit
    from uda.training.seeds import fit_seeds

    display = Display()
    with _telling_how_to_go_on(display):
        if seeds is not None:
            _show(fit_seeds(recipe, seeds, display=display, **settings), display)
        else:
            run = run_fit(recipe, display=display, **settings)
            display.say(next_steps(run.path, run.recipe.classifies))


def _resume(path: Path) -> None:
    from uda.console import Display, next_steps
    from uda.report.compare import is_group
    from uda.training.fit import resume as run_resume
    from uda.training.seeds import resume_seeds

    display = Display()
    with _telling_how_to_go_on(display):
        if is_group(path):
            _show(resume_seeds(path, display), display)
        else:
            run = run_resume(path, display)
            display.say(next_steps(run.path, run.recipe.classifies))


def _check(recipe: str, overrides: dict[str, Any], flags: dict[str, str], *where: Any) -> None:
    """Prints the resolved recipe and what was checked; all of it is TOML, so that it can be kept as a recipe."""
    from uda.recipe.load import resolve
    from uda.training.check import check

    resolved = resolve(recipe, overrides, flags)
    print(resolved.recipe.to_toml(resolved.origins))
    for line in (*resolved.notes, "checked: the recipe"):
        print(f"# {line}")
    for line in check(resolved.recipe, *where):
        print(f"# checked: {line}")


def _show(group: Group, display: Display) -> None:
    """Several seeds' table and page."""
    from uda.report.compare import compare as run_compare
    from uda.report.page import write_comparison
    from uda.report.tables import comparison_table

    figures = run_compare([group])
    display.show(comparison_table(figures))
    display.say(f"everything is in {group.path}; look at {write_comparison(figures, group.path / 'report.html')}")


@contextmanager
def _telling_how_to_go_on(display: Display) -> Iterator[None]:
    """An interrupted run ends in one line and exit code 130."""
    from uda.training.loop import Interrupted

    try:
        yield
    except Interrupted as stop:
        display.say(f"{stop}; go on with: uda fit --resume {stop.path}")
        raise typer.Exit(130) from None


@app.command()
def predict(
    run: Path,
    images: Path,
    out: Out = Path("predictions.csv"),
    which: Which = "last",
    device: Device = "auto",
    precision: Precision = None,
) -> None:
    """Class and probability of every image at a path (a folder, .csv, .npz or one file), as a CSV."""
    from uda.console import Display
    from uda.inference.predict import write_predictions
    from uda.runs.run import Run

    display = Display()
    count = write_predictions(Run(run, device=device, precision=precision), images, out, which, display)
    display.say(f"{count:,} images classified; see {out}")


@app.command()
def evaluate(
    run: Path,
    data: Annotated[str, typer.Option(help="Labelled images: a folder (CLASS/IMAGE.png), .csv, .npz, or a data set by name.")],
    out: OutOrNone = None,
    which: Which = "last",
    data_root: DataRoot = None,
    device: Device = "auto",
    precision: Precision = None,
) -> None:
    """Accuracy of a run's classifier on labelled images, by class, and what was taken for what; with -o, as .json, too."""
    import json

    from uda.atomic import atomic_write
    from uda.console import Display
    from uda.inference.predict import evaluate as run_evaluate
    from uda.inference.predict import evaluation_table
    from uda.runs.run import Run

    display = Display()
    result = run_evaluate(Run(run, device=device, precision=precision), _anchored(data), which, data_root, display)
    if out is not None:
        with atomic_write(out) as path:
            path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    display.show(evaluation_table(result))


@app.command()
def translate(
    run: Path,
    images: Path,
    out: Out = Path("translated"),
    to: Annotated[str, typer.Option(help="The domain to translate to: target or source.")] = "target",
    samples: Annotated[int, typer.Option(help="So many translations of each image, in styles drawn at random (drit).")] = 0,
    reference: Annotated[Path | None, typer.Option(help="An image whose style all translations take (drit).")] = None,
    interpolate: Annotated[Path | None, typer.Option(help="A strip from IMAGES (one image) to this one instead.")] = None,
    seed: Annotated[int, typer.Option(help="Of the styles that are drawn.")] = 0,
    device: Device = "auto",
    precision: Precision = None,
) -> None:
    """Images of one domain as images of the other, by a run whose method translates, and a grid of some of them.

    Writes a folder; with --interpolate, a .png.
    """
    from uda.console import Display
    from uda.inference.translate import grid_path, write_strip, write_translations
    from uda.runs.run import Run
    from uda.runtime import scoped_seed

    display, opened = Display(), Run(run, device=device, precision=precision)
    if interpolate is not None and (samples or reference is not None):
        raise UserError("--interpolate draws a strip between two images; leave out --samples and --reference")
    with scoped_seed(seed):
        if interpolate is not None:
            out = out if out.suffix == ".png" else out / "strip.png"
            write_strip(opened, images, interpolate, out, to)
            display.say(f"see {out}")
            return
        count = write_translations(opened, images, out, display, to, samples, reference)
    display.say(f"{count:,} images translated; they are in {out}, some of them in {grid_path(out)}")


@app.command()
def report(run: Path) -> None:
    """Make report.html anew from what lies in a run folder, or in a folder of seeds."""
    from uda.console import Display
    from uda.report.compare import compare as run_compare
    from uda.report.compare import is_group, open_group
    from uda.report.page import material_of, write_comparison, write_report
    from uda.runs.folder import RUN, SEEDS, RunFolder
    from uda.runs.run import Run

    several, out = is_group(run), run / "report.html"
    with RunFolder.open(run, SEEDS if several else RUN).locked():
        path = write_comparison(run_compare([open_group(run)]), out) if several else write_report(material_of(Run(run)), out)
    Display().say(str(path))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of seeds; the first is the measure of the others.")],
    out: Out = Path("comparison.html"),
) -> None:
    """Put runs in one table: means, spreads, and a paired test of each against the first."""
    from uda.console import Display
    from uda.report.compare import compare as run_compare
    from uda.report.compare import open_group
    from uda.report.page import write_comparison
    from uda.report.tables import comparison_table

    figures = run_compare([open_group(run) for run in runs])
    display = Display()
    display.show(comparison_table(figures))
    display.say(f"see {write_comparison(figures, out)}")


@app.command()
def export(
    run: Path,
    format: Annotated[str, typer.Option(help="torch (torch.export, .pt2) or onnx (needs the extra onnx).")] = "onnx",
    out: OutOrNone = None,
    which: Which = "last",
) -> None:
    """Write the adapted classifier for other programs, checked on target images: RUN/classifier.onnx or .pt2."""
    from uda.console import Display
    from uda.inference.export import export as run_export
    from uda.runs.run import Run

    path, comparison = run_export(Run(run, device="cpu"), format, out, which)
    Display().say(f"{path}: float images in 0..1 to logits; {comparison}")


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the shipped recipes."""
    if context.invoked_subcommand is None:
        from rich.console import Console
        from rich.table import Table

        groups = {name: presets.variants(name) for name in presets.names()}
        variants = [variant for group in groups.values() for variant in group]
        table = Table("recipe", "what it does", box=None, pad_edge=False)
        for name, group in groups.items():
            for shown in (name, *group) if name not in variants else ():
                indent = "  " if shown in group else ""
                table.add_row(indent + shown, presets.read(presets.RECIPES / f"{shown}.toml").get("description", ""))
        console = Console()
        console.print(table)
        console.print("\n`--recipe R --method M` is R-M where that is listed, else R with M as it comes", highlight=False)


@recipes_app.command("show")
def recipes_show(name: str) -> None:
    """Print a recipe with its comments, ready to be copied and changed."""
    print(presets.find(name).read_text(encoding="utf-8"), end="")


@app.command()
def methods() -> None:
    """List the methods: what each needs, and the paper it is from."""
    from rich.console import Console
    from rich.table import Table

    from uda.methods import METHODS
    from uda.methods.translating import PairDrawing

    table = Table("method", "source images", "makes images", "what it is", box=None, pad_edge=False)
    for name, method in METHODS.items():
        needs = "target labels instead" if method.reads_target_labels else "yes" if method.reads_source else "no"
        makes = "yes" if method.translates or issubclass(method, PairDrawing) else "no"
        header = sys.modules[method.__module__].__doc__ or ""
        table.add_row(name, needs, makes, header.partition("\n\n")[0].replace("\n", " "))
    Console().print(table)


@app.command()
def data(data_root: DataRoot = None) -> None:
    """Which data sets are here, where, and what would be downloaded."""
    from rich.console import Console
    from rich.table import Table

    from uda.data.datasets.photographs import describe as describe_photographs
    from uda.data.load import EMBEDDED, describe

    table = Table("data set", "split", "state", "what it is", box=None, pad_edge=False)
    roots = data_roots(data_root)
    for row in (*describe(roots), *describe_photographs(roots)):
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(
        f"{', '.join(EMBEDDED)} are made on the spot; the others lie under --data-root, else $UDA_DATA, else ~/.cache/uda",
        markup=False,
    )


@cache_app.callback()
def cache(context: typer.Context) -> None:
    """List what is kept for other runs: features of frozen bodies, and source classifiers."""
    if context.invoked_subcommand is None:
        from datetime import datetime

        from rich.console import Console
        from rich.table import Table

        from uda.runs.cache import cache_root, limit, user_cache

        table = Table("last read", "MiB", "what it is", box=None, pad_edge=False)
        entries = user_cache().entries()
        for entry in entries:
            when = datetime.fromtimestamp(entry.used)
            table.add_row(f"{when:%Y-%m-%d %H:%M}", f"{entry.bytes / 2**20:,.1f}", str(entry.about.get("what")))
        console, total = Console(), sum(entry.bytes for entry in entries)
        if entries:
            console.print(table, markup=False)
        console.print(
            f"{total / 2**30:.2f} GiB of {limit() / 2**30:g} ($UDA_CACHE_GIB) in {cache_root()}; uda cache clear deletes it",
            markup=False,
            soft_wrap=True,
        )


@cache_app.command("clear")
def cache_clear() -> None:
    """Delete all that is kept for other runs; finished runs need none of it."""
    from uda.runs.cache import Cache, cache_root

    print(f"{Cache(cache_root()).clear() / 2**20:,.1f} MiB deleted")


def main() -> None:
    """Runs a command; wrong input ends in one line and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"uda: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
