"""The command line: one small function per command. torch is imported only by the commands that compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from uda.errors import UserError

app = typer.Typer(
    help="Unsupervised domain adaptation: a classifier and unlabelled images in, an adapted classifier and an honest number out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipes_app = typer.Typer(help="List the recipes, or show one.", invoke_without_command=True, rich_markup_mode=None)
app.add_typer(recipes_app, name="recipes")

DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder of the data sets; else $UDA_DATA, else ~/.cache/uda.")]


@app.command()
def fit(
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's name (see `uda recipes`) or a path to a .toml file; with --source: folders.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue an interrupted run folder instead.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Labelled images: a folder (CLASS/IMAGE.png), .csv, .npz, or a name.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Images without labels: a folder (any nesting), .csv, .npz, or a name.")
    ] = None,
    source_test: Annotated[str | None, typer.Option(help="Labelled source images to test on; else a tenth of --source.")] = None,
    target_test: Annotated[
        str | None, typer.Option(help="Labelled target images to test on; else nothing is known there.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Your network: FILE.py:FACTORY, PACKAGE.MODULE:FACTORY or timm:NAME.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Its trained weights: a state dict, .pt or .safetensors.")] = None,
    split: Annotated[str | None, typer.Option(help="The last module of its stem; else found, and printed.")] = None,
    size: Annotated[int | None, typer.Option(help="Side that images are brought to, pixels; else the source's own.")] = None,
    method: Annotated[str | None, typer.Option(help="Another method: a name from `uda methods`, or FILE.py:CLASS.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    seeds: Annotated[int | None, typer.Option(help="So many runs, with seeds from --seed on, and their mean and spread.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; else runs/RECIPE-METHOD-SEED-TIME.")] = None,
    data_root: DataRoot = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (a probe decides), bf16 or fp32.")] = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override any key: --set method.feature_norm=l2. Repeatable.")
    ] = None,
) -> None:
    """Adapt a classifier: the source classifier first, then the method, then the figures.

    Your own: uda fit --model nets.py:Net --weights net.pt --source photos/ --target scans/

    svhn2mnist, mnist2usps, usps2mnist and synth2digits take minutes on two CPU cores; the -paper recipes, at the published
    size, want a GPU (days on a CPU).
    """
    if recipe is None and (source or target):
        recipe = "folders"
    if (recipe is None) == (resume is None):
        raise UserError("give either --recipe NAME or --resume RUN; `uda recipes` lists the names")
    # Each flag is a key of the recipe by a shorter name; paths are written down so that they hold wherever one resumes.
    keys: dict[str, object] = {
        "data.source": source and _anchored(source),
        "data.target": target and _anchored(target),
        "data.source_test": source_test and _anchored(source_test),
        "data.target_test": target_test and _anchored(target_test),
        "data.size": size,
        "classifier.backbone": model and _anchored_factory(model),
        "classifier.weights": weights and str(weights.absolute()),
        "classifier.split": split,
        "method.name": method and _anchored_factory(method),
        "seed": seed,
    }
    keys = {key: value for key, value in keys.items() if value is not None}
    if resume is not None:
        if keys or out or data_root or set_ or seeds is not None:
            raise UserError("--resume goes on as the run began; leave out all other settings, or start anew with --recipe")
    else:
        from uda.recipe import presets

        presets.find(str(recipe))  # a wrong name is answered before torch is loaded
    from uda.console import Display
    from uda.recipe.load import parse_override
    from uda.report.compare import ASKED
    from uda.report.compare import compare as run_compare
    from uda.report.page import write_comparison
    from uda.report.tables import comparison_table
    from uda.training.fit import fit as run_fit
    from uda.training.fit import resume as run_resume
    from uda.training.loop import Interrupted
    from uda.training.seeds import fit_seeds, resume_seeds

    display, group = Display(), None
    overrides = {**dict(parse_override(text) for text in set_ or ()), **keys}
    where: Any = {"out": out, "data_root": data_root, "device": device, "precision": precision, "display": display}
    try:
        if resume is not None and (resume / ASKED).exists():
            group = resume_seeds(resume, display)
        elif resume is not None:
            run_resume(resume, display)
        elif seeds is not None:
            group = fit_seeds(str(recipe), seeds, overrides=overrides, **where)
        else:
            run_fit(str(recipe), overrides=overrides, **where)
        if group is not None:
            figures = run_compare([group])
            display.show(comparison_table(figures))
            display.say(f"everything is in {group.path}; look at {write_comparison(figures, group.path / 'report.html')}")
    except Interrupted as stop:
        display.say(f"{stop}; go on with: uda fit --resume {stop.path}")
        raise typer.Exit(130) from None


def _anchored(name: str) -> str:
    """A path of images made absolute; a data set's name as it is."""
    from uda.data.names import is_path

    return str(Path(name).absolute()) if is_path(name) else name


def _anchored_factory(name: str) -> str:
    """FILE.py:FACTORY with its path made absolute; a module's or timm's as it is."""
    place, colon, factory = name.rpartition(":")
    return str(Path(place).absolute()) + colon + factory if place.endswith(".py") else name


Which = Annotated[str, typer.Option(help="last, selected (by the label-free score) or source (before adaptation).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[str | None, typer.Option(help="bf16 or fp32; else as the run was computed.")]


@app.command()
def predict(
    run: Path,
    images: Path,
    out: Annotated[Path, typer.Option("-o", "--out", help="The CSV to write.")] = Path("predictions.csv"),
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
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A .json to write the figures to.")] = None,
    which: Which = "last",
    data_root: DataRoot = None,
    device: Device = "auto",
    precision: Precision = None,
) -> None:
    """Accuracy of a run's classifier on labelled images, by class, and what was taken for what."""
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
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder (with --interpolate: the PNG) to write.")] = Path(
        "translated"
    ),
    to: Annotated[str, typer.Option(help="The domain to translate to: target or source.")] = "target",
    samples: Annotated[int, typer.Option(help="So many translations of each image, in styles drawn at random (drit).")] = 0,
    reference: Annotated[Path | None, typer.Option(help="An image whose style all translations take (drit).")] = None,
    interpolate: Annotated[Path | None, typer.Option(help="A strip from IMAGES (one image) to this one instead.")] = None,
    seed: Annotated[int, typer.Option(help="Of the styles that are drawn.")] = 0,
    device: Device = "auto",
    precision: Precision = None,
) -> None:
    """Images of one domain as images of the other, by a run whose method translates, and a grid of some of them."""
    from uda.console import Display
    from uda.inference.translate import grid_path, write_strip, write_translations
    from uda.runs.run import Run
    from uda.runtime import seed_everything

    display, opened = Display(), Run(run, device=device, precision=precision)
    seed_everything(seed)
    if interpolate is not None:
        if samples or reference is not None:
            raise UserError("--interpolate draws a strip between two images; leave out --samples and --reference")
        out = out if out.suffix == ".png" else out / "strip.png"
        write_strip(opened, images, interpolate, out, to)
        display.say(f"see {out}")
    else:
        count = write_translations(opened, images, out, display, to, samples, reference)
        display.say(f"{count:,} images translated; they are in {out}, some of them in {grid_path(out)}")


@app.command()
def report(run: Path) -> None:
    """Make report.html anew from what lies in a run folder, or in a folder of seeds."""
    from uda.console import Display
    from uda.report.compare import ASKED, open_group
    from uda.report.compare import compare as run_compare
    from uda.report.page import write_comparison, write_report

    several = (run / ASKED).exists()
    path = write_comparison(run_compare([open_group(run)]), run / "report.html") if several else write_report(run)
    Display().say(str(path))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of seeds; the first is the measure of the others.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path("comparison.html"),
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
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The file; else RUN/classifier.pt2 or .onnx.")] = None,
    which: Which = "last",
) -> None:
    """Write the adapted classifier for other programs, checked on target images."""
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

        from uda.recipe import presets

        table = Table("recipe", "what it does", box=None, pad_edge=False)
        for name in presets.names():
            table.add_row(name, presets.read(presets.RECIPES / f"{name}.toml").get("description", ""))
        Console().print(table)


@recipes_app.command("show")
def recipes_show(name: str) -> None:
    """Print a recipe with its comments, ready to be copied and changed."""
    from uda.recipe import presets

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

    from uda.data.load import EMBEDDED, describe

    table = Table("data set", "split", "state", "what it is", box=None, pad_edge=False)
    for row in describe(data_root):
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(
        f"{', '.join(EMBEDDED)} are made on the spot; the others lie under --data-root, else $UDA_DATA, else ~/.cache/uda",
        markup=False,
    )


def main() -> None:
    """Runs a command; wrong input ends in one line and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"uda: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
