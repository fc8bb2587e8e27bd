"""The command line: one small function per command. torch is imported only by the commands that compute."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

import uda
from uda import ranks, signals
from uda.data.names import absolute, data_roots, is_shards
from uda.errors import NotFinite, OwnCodeError, ProcessLost, ReaderKilled, Terminated, UserError
from uda.paths import filling, new_file, new_folder, not_a_run, outside
from uda.plugins import named, own_frames
from uda.recipe import presets
from uda.text import counted, printable

if TYPE_CHECKING:
    from uda.console import Display
    from uda.inference.check import Answers, Drawn
    from uda.report.compare import Group
    from uda.runs.run import Run
    from uda.types import Section

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
Which = Annotated[
    str,
    typer.Option("--which", help="recommended (last or source, as the run says), last, selected (by its score) or source."),
]
Out = Annotated[Path, typer.Option("-o", "--out", help="What to write.")]
OutOrNone = Annotated[Path | None, typer.Option("-o", "--out", help="What to write. Left out: what the description names.")]
SetKeys = Annotated[list[str] | None, typer.Option("--set", help="Any key: --set method.feature_norm=l2. Repeatable.")]
Trust = Annotated[bool, typer.Option("--trust", help="Agree to run the code that the run's recipe names, from now on.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster: auto or HOST:PORT. Left out, this machine is one.")]
Engine = Annotated[str, typer.Option(help="For shards: here, one after another, or ray, side by side (needs it).")]
Source = Annotated[str | None, typer.Option("--source", help="Labelled images: a folder CLASS/IMAGE.png, .csv, .npz, or a name.")]
Model = Annotated[str | None, typer.Option("--model", help="FILE.py:FACTORY, MODULE:FACTORY, timm:NAME, torchvision:NAME.")]
Weights = Annotated[Path | None, typer.Option("--weights", help="Its trained weights: a state dict, .pt or .safetensors.")]
BackboneWeights = Annotated[
    Path | None, typer.Option("--backbone-weights", help="A pretrained body's weights; its head is made anew.")
]
Size = Annotated[int | None, typer.Option("--size", help="Side that images are brought to, pixels; else the source's own.")]
Method = Annotated[str | None, typer.Option("--method", help="Another method: a name from `uda methods`, or FILE.py:CLASS.")]
LAST_SEED = 2**63 - 2  # numbers of 64 bits, and one more for what is seeded beside
Seed = Annotated[int | None, typer.Option("--seed", min=0, max=LAST_SEED, help="Seed of everything random.")]


FLAGS = {
    "source": "data.source",
    "target": "data.target",
    "source_test": "data.source_test",
    "target_test": "data.target_test",
    "size": "data.size",
    "model": "classifier.backbone",
    "weights": "classifier.weights",
    "backbone_weights": "classifier.backbone_weights",
    "split": "classifier.split",
    "method": "method.name",
    "seed": "seed",
}
"""flags of `uda fit` that are keys of the recipe"""


def _overrides(flags: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the command line says of the recipe, by dotted key: the values, and the flags that they came by."""
    from uda.recipe.load import parse_override

    said = [parse_override(text) for text in flags["set_"] or ()]
    given = {flag: flags[flag] for flag in FLAGS if flags.get(flag) is not None}
    by_flags = {FLAGS[flag]: str(value) if isinstance(value, Path) else value for flag, value in given.items()}
    if twice := [key for key, _ in said if key in by_flags or [other for other, _ in said].count(key) > 1]:
        raise UserError(f"{twice[0]} is set twice; leave one of the two out")
    return dict(said) | by_flags, {FLAGS[flag]: f"--{flag.replace('_', '-')}" for flag in given}


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error of ours; anywhere in the line.")] = False,
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
    source: Source = None,
    target: Annotated[str | None, typer.Option(help="Images without labels: a folder, .csv, .npz, or a name.")] = None,
    source_test: Annotated[str | None, typer.Option(help="Labelled source images to test on; else a tenth of --source.")] = None,
    target_test: Annotated[str | None, typer.Option(help="Labelled target images to test on; else a named set's own.")] = None,
    model: Model = None,
    weights: Weights = None,
    backbone_weights: BackboneWeights = None,
    split: Annotated[str | None, typer.Option(help="The last module of its stem; else found, and printed.")] = None,
    size: Size = None,
    method: Method = None,
    seed: Seed = None,
    seeds: Annotated[int | None, typer.Option(help="So many runs, with seeds from --seed on, and their mean and spread.")] = None,
    out: OutOrNone = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    precision: Precision = "auto",
    set_: SetKeys = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute all anew, and keep nothing for other runs.")] = False,
    track: Annotated[list[str] | None, typer.Option("--track", help="tensorboard, mlflow or wandb. Repeatable.")] = None,
    trust: Trust = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every setting with its origin, check, and stop.")] = False,
) -> None:
    """Adapt a classifier: the source classifier first, then the method, then the figures.

    Without --out, the run folder is runs/RECIPE-METHOD-SEED-TIME.

    Your own: uda fit --model nets.py:Net --weights net.pt --source photos/ --target scans/

    svhn2mnist, mnist2usps, usps2mnist and synth2digits take minutes on two CPU cores; the -paper recipes, at the published
    size, want a GPU (days on a CPU).
    """
    if recipe is None and resume is None and (source or target):
        recipe = "photos" if (model or "").startswith(PUBLISHED) and weights is None else "folders"
    if (recipe is None) == (resume is None):
        raise UserError("give --source DIR --target DIR, --recipe NAME or --resume RUN; `uda recipes` lists the names")
    flags = context.params
    if resume is not None:
        asked = any(flags[flag] is not None for flag in (*FLAGS, "seeds", "out", "data_root"))
        if asked or set_ or track or dry_run or no_cache or (device, precision) != ("auto", "auto"):
            raise UserError("--resume goes on as the run began; leave out all other settings, or start anew with --recipe")
        _resume(resume, trust)
        return
    if trust:
        raise UserError("--trust is for a run of someone else's (--resume RUN); what you name yourself is run anyway")
    presets.find(str(recipe))  # a wrong name is answered before torch is loaded
    overrides, origins = _overrides(flags)
    if dry_run:
        _check_flags(out, seeds, track or ())
        _check(str(recipe), overrides, origins, data_root, device, precision or "auto")
    else:
        where = {"data_root": data_root, "device": device, "precision": precision or "auto", "cache": not no_cache}
        _fit(str(recipe), seeds, overrides=overrides, out=out, track=track or (), **where)


def _fit(recipe: str, seeds: int | None, **settings: Any) -> None:
    from uda.console import Display
    from uda.training.fit import fit as run_fit
    from uda.training.seeds import fit_seeds

    display = Display(quiet=not ranks.first(), lasting=True)
    with _telling_how_to_go_on(display):
        if seeds is not None:
            _show(fit_seeds(recipe, seeds, display=display, **settings), display)
        else:
            run = run_fit(recipe, display=display, **settings)
            _say_next(run, display)


def _say_next(run: Run, display: Display) -> None:
    from uda.console import next_steps
    from uda.evaluation.diagnostics import to_look_at

    classifies = run.recipe.classifies
    unknown = classifies and run.target_accuracy is None
    display.say(next_steps(run.path, classifies, to_look_at(run.result["target"]["train"]) if unknown else ""))


def _resume(path: Path, trust: bool) -> None:
    from uda.console import Display
    from uda.report.compare import is_group
    from uda.training.fit import resume as run_resume
    from uda.training.seeds import resume_seeds

    display = Display(quiet=not ranks.first(), lasting=True)
    with _telling_how_to_go_on(display):
        if is_group(path):
            _show(resume_seeds(path, display, trust=trust), display)
        else:
            run = run_resume(path, display, trust=trust)
            _say_next(run, display)


def _check_flags(out: Path | None, seeds: int | None, track: Sequence[str]) -> None:
    """What a run is told beside its recipe."""
    from uda.runs.folder import RUN, SEEDS, check_free
    from uda.training.seeds import check_seeds
    from uda.training.trackers import check_trackers

    check_trackers(track)
    if seeds is not None:
        check_seeds(seeds)
    if out is not None:
        check_free(out, RUN if seeds is None else SEEDS)


def _check(recipe: str, overrides: dict[str, Any], flags: dict[str, str], *where: Any) -> None:
    """Prints the resolved recipe and what was checked; all of it is TOML, so that it can be kept as a recipe."""
    from uda.recipe.load import resolve
    from uda.training.check import check

    resolved = resolve(recipe, overrides, flags)
    given = ", ".join(key for key, origin in resolved.origins.items() if origin.startswith("--"))
    print(f"# every setting, with where it comes from (from you: {given or 'none'}); what was checked stands at the end")
    print(resolved.recipe.to_toml(resolved.origins))
    for line in (*resolved.notes, "checked: the recipe"):
        print(f"# {line}")
    for line in check(resolved.recipe, *where):
        print(f"# checked: {line}")
    print("# nothing was trained, and no image was decoded; to begin, leave out --dry-run")


def _show(group: Group, display: Display) -> None:
    """Several seeds' table and page, which one process makes."""
    if not ranks.first():
        return
    from uda.console import predict_with
    from uda.report.compare import compare as run_compare
    from uda.report.page import write_comparison
    from uda.report.tables import comparison_table
    from uda.training.loop import resumable

    with resumable(group.path):
        figures = run_compare([group])
        display.show(comparison_table(figures))
        page = write_comparison(figures, group.path / "report.html")
        display.say(f"everything is in {group.path}; look at {page}; then use one of them: {predict_with(group.runs[0].path)}")


@contextmanager
def _telling_how_to_go_on(display: Display) -> Iterator[None]:
    """An interrupted run ends in one line, and exit code 130 or 143."""
    from uda.training.loop import Interrupted

    try:
        yield
    except Interrupted as stop:
        display.say(f"{stop}; go on with: uda fit --resume {quote(str(stop.path))}")
        raise typer.Exit(143 if stop.terminated else 130) from None


@app.command()
def sweep(
    spec: Path,
    out: Out = Path("sweep"),
    address: Address = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    precision: Precision = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the trials, and stop.")] = False,
) -> None:
    """Run every combination of a spec's recipes, methods, seeds and settings, side by side on Ray; one page compares them.

    The same command goes on where it was stopped. Needs the extra ray.
    """
    from uda.cluster.spec import combinations, read_spec
    from uda.cluster.sweep import check_all
    from uda.cluster.sweep import sweep as run_sweep
    from uda.console import Display

    display, asked = Display(), read_spec(spec)
    found = combinations(asked)
    where = check_all(found, {"data_root": data_root, "device": device, "precision": precision or "auto"}, address)
    display.say(f"{len(found) * len(asked.seeds)} trials, all of them checked")
    if dry_run:
        for one in found:
            display.say(f"  {one.name}: seeds {', '.join(map(str, asked.seeds))}")
        return
    run_sweep(asked, found, not_a_run(out), display, where, address)


@app.command()
def inspect(
    source: Annotated[str, typer.Option(help="Labelled images, as `uda fit` takes them.")],
    target: Annotated[str, typer.Option(help="Images whose labels are not read.")],
    model: Annotated[str | None, typer.Option(help="A network whose features are read, as `uda fit` takes it.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Its trained weights.")] = None,
    backbone_weights: Annotated[Path | None, typer.Option(help="A pretrained body's weights.")] = None,
    size: Annotated[int | None, typer.Option(help="Side that images are brought to, pixels.")] = None,
    set_: SetKeys = None,
    out: Out = Path("inspect.html"),
    data_root: DataRoot = None,
    device: Device = "auto",
) -> None:
    """Look at two domains before anything is trained: what there is, how far apart they are, and what to do; one page."""
    from uda.console import Display
    from uda.report.page import write_inspection
    from uda.training.inspect import figures
    from uda.training.inspect import inspect as run_inspect

    flags = {"model": model, "weights": weights, "backbone_weights": backbone_weights, "size": size, "set_": set_}
    overrides, _ = _overrides(flags)
    read = *map(Path, (source, target)), *(place for place in (weights, backbone_weights) if place)
    display, out = Display(), new_file(out, ".html", *read)
    seen = run_inspect(source, target, data_roots(data_root), display, overrides, device)
    for line in [*figures(seen), seen["advice"]]:
        display.say(line)
    display.say(f"see {write_inspection(seen, out)}")


@app.command()
def predict(
    run: Path,
    images: str,
    out: OutOrNone = None,
    which: Which = "recommended",
    reject: Annotated[float, typer.Option(help="Leave this share of the images unnamed: the most doubtful.")] = 0.0,
    unknown: Annotated[bool, typer.Option("--unknown", help="Leave unnamed what looks to be of no known class.")] = False,
    engine: Engine = "here",
    address: Address = None,
    device: Device = "auto",
    precision: Precision = None,
    trust: Trust = False,
) -> None:
    """Class and probability of every image at a path (a folder, .csv, .npz or one file), as predictions.csv.

    Of tar shards, 'shards/{0000..0999}.tar', the folder predictions/ gets a Parquet file for each; those that are there stay.
    """
    from uda.console import Display
    from uda.inference.predict import write_predictions
    from uda.runs.run import Run

    display = Display()
    if is_shards(images):
        from uda.cluster.predict import predict_shards
        from uda.inference.shards import Asked

        if reject or unknown:
            raise UserError("--reject and --unknown look at all images at once; they are not for tar shards")
        asked, out = Asked(run, which, device, precision, trust), not_a_run(out or Path("predictions"))
        count = predict_shards(asked, images, out, display, engine, address)
        display.say(f"{counted(count, 'image')} classified, into {out}")
        return
    if engine != "here" or address is not None:
        raise UserError("--engine and --address are for tar shards; pack a folder with: uda shards FOLDER -o DIR")
    out = new_file(out or Path("predictions.csv"), ".csv", Path(images))
    finished = Run(run, device=device, precision=precision, trust=trust)
    count = write_predictions(finished, Path(images), out, which, display, reject, unknown)
    display.say(f"{counted(count, 'image')} classified; see {out}")


@app.command()
def shards(
    folder: Path,
    out: Out = Path("shards"),
    images: Annotated[int, typer.Option("--images", min=1, help="So many images in a shard.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Of the order that they are packed in.")] = 0,
) -> None:
    """Pack a folder of images into tar shards, in random order: DIR/0000.tar and on. Class folders are kept as they are.

    Shards that are there stay, so the same command goes on where it was stopped.
    """
    from uda.console import Display
    from uda.data.folders import pack

    display, out = Display(), outside(not_a_run(out), folder)
    display.say(f"'{pack(folder, out, images, seed, display)}' are the shards")


@app.command()
def evaluate(
    run: Path,
    data: Annotated[str, typer.Option(help="Labelled images: a folder (CLASS/IMAGE.png), .csv, .npz, or a data set by name.")],
    out: OutOrNone = None,
    which: Which = "recommended",
    unknown: Annotated[bool, typer.Option("--unknown", help="Count images of further classes as unknown.")] = False,
    data_root: DataRoot = None,
    device: Device = "auto",
    precision: Precision = None,
    trust: Trust = False,
) -> None:
    """Accuracy of a run's classifier on labelled images, by class, and what was taken for what; with -o, as .json, too."""
    from uda.atomic import atomic_write
    from uda.console import Display
    from uda.inference.predict import evaluate as run_evaluate
    from uda.inference.predict import evaluation_table
    from uda.runs.run import Run

    display, out = Display(), out and new_file(out, ".json", Path(data))
    finished = Run(run, device=device, precision=precision, trust=trust)
    result = run_evaluate(finished, absolute(data), which, data_root, display, unknown)
    if out is not None:
        with atomic_write(out) as path:
            path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    display.show(evaluation_table(result))


@app.command()
def check(
    run: Path,
    labels: Annotated[int, typer.Option(help="So many target images to look at, or more that were drawn before.")] = 50,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Of the draw of these images.")] = 0,
    csv: Annotated[
        Path | None, typer.Option(help="Write them to a table path,predicted,label, to be filled in elsewhere.")
    ] = None,
    answers: Annotated[Path | None, typer.Option(help="Read such a table, filled in.")] = None,
    trust: Trust = False,
) -> None:
    """Accuracy on the target from a few labels: a page asks for them, on this machine alone; the figures go to RUN/check.json.

    Both the source classifier and the adapted one are judged by them; nothing is trained on them. The page can be closed and the
    command stopped at any time: it goes on where it was. From five answers on there are figures.
    """
    from uda.atomic import sweep
    from uda.console import Display
    from uda.inference.check import TABLE, draw, judge, keep, length, read_table, write_table
    from uda.runs.run import Run

    if csv is not None and answers is not None:
        raise UserError("--csv writes a table and --answers reads one; give one of them")
    display, opened = Display(), Run(run, trust=trust)
    again = f"uda check {quote(str(run))} --seed {seed}"
    if csv is not None:
        drawn = draw(opened, labels, seed)
        if os.path.lexists(csv):  # it may hold answers
            raise UserError(f"{csv} is there already; give the table another name, or read what it holds: --answers {csv}")
        sweep(csv.absolute().parent)
        write_table(drawn, {}, csv)
        command = f"{again} --answers {quote(str(csv))}"
        listed = f"{csv} lists {'all ' if len(drawn.names) < labels else ''}{len(drawn.names)} images"
        display.say(f"{listed}; fill in the column label from the first on, ? where it cannot be told, then: {command}")
        return
    with opened.locked():
        table = answers or run / TABLE
        there = table.exists() or answers is not None
        drawn = draw(opened, max(labels, length(table)) if there else labels, seed)
        given = read_table(drawn, table) if there else {}
        if answers is None and (stopped := _ask(drawn, given, table, display)):
            command = f"{again} --answers {quote(str(table))}"
            try:
                _show_judgement(judge(opened, drawn, given, seed), display)
                display.say(f"check.json is as it was; this keeps these figures in it: {command}")
            except UserError as error:  # too few answers
                display.say(printable(str(error)))
            raise typer.Exit(stopped)
        result = judge(opened, drawn, given, seed)
        kept = keep(opened, result)
    _show_judgement(result, display)
    if kept:
        display.say(f"uda report {quote(str(run))} puts these figures into the report")
    else:
        display.say(f"{run / 'check.json'} stays as it is, a check by more labels; remove it to keep this one instead")


def _show_judgement(result: dict[str, Any], display: Display) -> None:
    from uda.inference.check import check_table, verdict

    display.show(check_table(result))
    display.say(verdict(result))
    if result["blank"]:
        display.say(printable(result["blank_because"]))


def _ask(drawn: Drawn, given: Answers, table: Path, display: Display) -> int:
    """Has a page ask for the answers that are missing, which are kept; the exit code where a signal ends it (Ctrl-C), or 0."""
    import webbrowser

    from uda.inference.answering import AnswerServer

    server = AnswerServer(drawn, given, table)
    display.say(f"look at {len(drawn.names)} images in a browser: {server.address}")
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(server.address)  # elsewhere it might take the terminal for a browser without pictures
    try:
        server.serve()
    except KeyboardInterrupt as stop:
        display.say(
            f"{len(given)} of {len(drawn.names)} are answered, in {table}; the same command goes on; --csv FILE asks by a table"
        )
        return 143 if isinstance(stop, Terminated) else 130
    return 0


@app.command()
def translate(
    run: Path,
    images: Path,
    out: Out = Path("translated"),
    to: Annotated[str, typer.Option(help="The domain to translate to: target or source.")] = "target",
    samples: Annotated[
        int, typer.Option(min=0, max=1000, help="So many translations of each image, drawn at random (drit, latent_mapping).")
    ] = 0,
    reference: Annotated[Path | None, typer.Option(help="An image whose style all translations take (drit).")] = None,
    interpolate: Annotated[Path | None, typer.Option(help="A strip from IMAGES (one image) to this one instead.")] = None,
    interpolate_style: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Strips in styles from image A's to image B's instead (drit).")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Images in their own shape, not their central squares (unit_translation, drit).")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Of the styles that are drawn.")] = 0,
    device: Device = "auto",
    precision: Precision = None,
    trust: Trust = False,
) -> None:
    """Images of one domain as images of the other, by a run whose method translates, and a grid of some of them.

    Writes a folder; with --interpolate or --interpolate-style, a .png.
    """
    from uda.console import Display
    from uda.inference.strips import write_strip, write_style_strips
    from uda.inference.translate import grid_path, write_translations
    from uda.runs.run import Run
    from uda.runtime import scoped_seed

    display, opened = Display(), Run(run, device=device, precision=precision, trust=trust)
    ends = [path for path in (interpolate, *(interpolate_style or ())) if path is not None]
    if ends and (samples or reference is not None or whole or len(ends) == 3):
        raise UserError("give --interpolate or --interpolate-style alone; leave out --samples, --reference and --whole")
    with scoped_seed(seed):
        if ends:
            out = new_file(out if out.suffix == ".png" else out / "strip.png", ".png", images, *ends)
            if interpolate_style is not None:
                write_style_strips(opened, images, *interpolate_style, out, display, to)
            else:
                write_strip(opened, images, ends[0], out, to)
            display.say(f"see {out}")
            return
        outside(new_folder(out), images)  # first: the grid of an earlier call is not what is in the way
        new_file(grid_path(out), ".png", images)
        with filling(out):
            count = write_translations(opened, images, out, display, to, samples, reference, whole)
    display.say(f"{counted(count, 'image')} translated, into {out}; {grid_path(out)} shows some")


@app.command()
def report(run: Path, trust: Trust = False) -> None:
    """Make report.html anew from what lies in a run folder, or in a folder of seeds."""
    from uda.console import Display
    from uda.report.compare import compare as run_compare
    from uda.report.compare import is_group, open_group
    from uda.report.page import material_of, write_comparison, write_report
    from uda.runs.folder import RUN, SEEDS, RunFolder
    from uda.runs.run import Run

    several, out = is_group(run), run / "report.html"
    with RunFolder.open(run, SEEDS if several else RUN, trust).locked():
        if several:
            path = write_comparison(run_compare([open_group(run, trust)]), out)
        else:
            path = write_report(material_of(Run(run, trust=trust)), out)
    Display().say(str(path))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of seeds; the first is the measure of the others.")],
    out: Out = Path("comparison.html"),
    trust: Trust = False,
) -> None:
    """Put runs in one table: means, spreads, and a paired test of each against the first."""
    from uda.console import Display
    from uda.report.compare import compare as run_compare
    from uda.report.compare import open_group
    from uda.report.page import write_comparison
    from uda.report.tables import comparison_table

    out = new_file(out, ".html")
    figures = run_compare([open_group(run, trust) for run in runs])
    display = Display()
    display.show(comparison_table(figures))
    display.say(f"see {write_comparison(figures, out)}")


@app.command()
def export(
    run: Path,
    format: Annotated[str, typer.Option(help="torch (torch.export, .pt2) or onnx (needs the extra onnx).")] = "onnx",
    out: OutOrNone = None,
    which: Which = "recommended",
    trust: Trust = False,
) -> None:
    """Write the adapted classifier for other programs, checked on target images: RUN/classifier.onnx or .pt2."""
    from uda.console import Display
    from uda.inference.export import FORMATS
    from uda.inference.export import export as run_export
    from uda.runs.run import Run

    path, comparison = run_export(
        Run(run, device="cpu", trust=trust), format, out and new_file(out, FORMATS.get(format, "")), which
    )
    Display().say(f"{path}: float images in 0..1 to logits; {comparison}")


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the shipped recipes."""
    if context.invoked_subcommand is None:
        from rich.table import Table

        from uda.console import new_console

        groups = {name: presets.variants(name) for name in presets.names()}
        variants = [variant for group in groups.values() for variant in group]
        table = Table("recipe", "what it does", box=None, pad_edge=False)
        for name, group in groups.items():
            for shown in (name, *group) if name not in variants else ():
                indent = "  " if shown in group else ""
                table.add_row(indent + shown, presets.read(presets.RECIPES / f"{shown}.toml").get("description", ""))
        console = new_console()
        console.print(table)
        console.print("\n`--recipe R --method M` takes R-M (of R, or of what R extends), else R with M as it comes")


@recipes_app.command("show")
def recipes_show(name: str) -> None:
    """Print a recipe with its comments, ready to be copied and changed."""
    path = presets.find(name)
    presets.read(path)  # which says what is wrong with a file that is no recipe
    print(printable(path.read_text(encoding="utf-8"), keep="\n\t"), end="")


@recipes_app.command("settings")
def recipes_settings() -> None:
    """List every setting of a recipe, its default, and what it means; of a method: uda methods NAME."""
    from uda.recipe.schema import Recipe
    from uda.types import Section

    for name, field in Recipe.model_fields.items():
        if name != "method" and isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            _print_settings(name, field.annotation)
    print("\n[method] has the settings of its method: uda methods NAME")


def _print_settings(table: str, settings: type[Section]) -> None:
    """A table of a recipe: each setting, its default, and what it means."""
    from rich.table import Column, Table

    from uda.console import new_console
    from uda.types import Section, meanings

    told = meanings(settings)
    shown = Table(Column(f"[{table}]", no_wrap=True), "default", "what it is", box=None, pad_edge=False)
    inner = {}
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            inner[name] = field.annotation
        else:
            default = "" if field.is_required() else "left out" if field.default is None else json.dumps(field.default)
            shown.add_row(name, default, told.get(name, ""))
    console = new_console()
    if shown.rows:
        console.print(shown)
        print()
    for name, of in inner.items():
        _print_settings(f"{table}.{name}", of)


@app.command()
def methods(name: Annotated[str | None, typer.Argument(help="One of them: its objective, and its settings.")] = None) -> None:
    """List the methods: what each needs, and the paper it is from; of one, its objective and its settings."""
    from rich.table import Table

    from uda.console import new_console
    from uda.methods import METHODS, find_method
    from uda.methods.translating import PairDrawing

    if name is not None:
        method = find_method(name)
        print(printable(sys.modules[method.__module__].__doc__ or "", keep="\n"))
        _print_settings("method", method.Settings)
        return
    table = Table("method", "what it is", box=None, pad_edge=False)
    for name, method in METHODS.items():
        said = [(sys.modules[method.__module__].__doc__ or "").partition("\n\n")[0].replace("\n", " ")]
        said += ["Reads target labels in place of source images."] * method.reads_target_labels
        said += ["Reads no source images."] * (not method.reads_source and not method.reads_target_labels)
        said += ["Makes images."] * (method.translates or issubclass(method, PairDrawing))
        table.add_row(name, " ".join(said))
    new_console().print(table)


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="One of them, or of a set's domains all; left out, all.")] = None,
    data_root: DataRoot = None,
) -> None:
    """Which data sets are here, where, and what would be downloaded."""
    from rich.table import Column, Table

    from uda.console import new_console
    from uda.data.datasets.photographs import describe as describe_photographs
    from uda.data.load import EMBEDDED, describe

    table = Table("data set", "split", Column("what it is, and where", overflow="fold"), box=None, pad_edge=False)
    roots = data_roots(data_root)
    rows = [*describe(roots), *describe_photographs(roots)]
    names = {row[0]: (row[0].rstrip("/"), row[0].partition("/")[0]) for row in rows}  # office31/dslr, and office31
    if name is not None and name not in (known := {part for parts in names.values() for part in parts}):
        raise UserError.unknown("data set", name, known)
    for known_as, split, state, note in rows:
        if name is None or name in names[known_as]:
            table.add_row(known_as, split, f"{note}\n{state}")
    console = new_console()
    console.print(table)
    if name is None:
        made = ", ".join(EMBEDDED)
        console.print(f"{made} are made on the spot; the others lie under --data-root, else $UDA_DATA, else ~/.cache/uda")


@cache_app.callback()
def cache(context: typer.Context) -> None:
    """List what is kept for other runs: features of frozen bodies, and source classifiers."""
    if context.invoked_subcommand is None:
        from datetime import datetime

        from rich.table import Table

        from uda.console import new_console
        from uda.runs.cache import cache_root, limit, user_cache

        table = Table("last read", "MiB", "what it is", box=None, pad_edge=False)
        entries = user_cache().entries()
        for entry in entries:
            when = datetime.fromtimestamp(entry.used)
            table.add_row(f"{when:%Y-%m-%d %H:%M}", f"{entry.bytes / 2**20:,.1f}", str(entry.about.get("what")))
        console, total = new_console(), sum(entry.bytes for entry in entries)
        if entries:
            console.print(table)
        console.print(
            f"{total / 2**30:.2f} GiB of {limit() / 2**30:g} ($UDA_CACHE_GIB) in {cache_root()}; uda cache clear deletes it",
            soft_wrap=True,
        )


@cache_app.command("build")
def cache_build(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="SHARDS", help="The target, in tar shards: 'shards/{0000..0999}.tar'.")],
    recipe: Annotated[str, typer.Option(help="As for `uda fit`.")] = "photos",
    source: Source = None,
    model: Model = None,
    weights: Weights = None,
    backbone_weights: BackboneWeights = None,
    size: Size = None,
    method: Method = None,
    set_: SetKeys = None,
    engine: Engine = "here",
    address: Address = None,
    cpus: Annotated[int, typer.Option(min=1, help="Cores of a task: all but one draw views.")] = 1,
    data_root: DataRoot = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Compute what a frozen body makes of a target in tar shards; `uda fit` with the same settings then reads that alone.

    One part for each shard, in the user's cache; those that are there stay, so the same command goes on where it was stopped.
    """
    from uda.cluster.keep import Where, build
    from uda.console import Display
    from uda.recipe.load import load_recipe

    overrides, _ = _overrides(context.params)
    display, where = Display(), Where(device, precision or "auto", engine, address, cpus)
    count = build(load_recipe(recipe, overrides), data_roots(data_root), where, display)
    display.say(f"{count:,} images read; uda fit with the same settings reads what was kept of them")


@cache_app.command("clear")
def cache_clear() -> None:
    """Delete all that is kept for other runs; finished runs need none of it."""
    from uda.runs.cache import Cache, cache_root

    print(f"{Cache(cache_root()).clear() / 2**20:,.1f} MiB deleted")


def main() -> None:
    """Runs a command. Exit codes: 0 done, 1 an error of ours, 2 wrong input, 130 Ctrl-C, 143 SIGTERM; any but 0 in one line."""
    words = [word for word in sys.argv[1:] if word != "--debug"]
    debug = "--debug" in sys.argv[1:]
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before the start
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends
    if os.environ.get("COLUMNS") == "0":  # some terminals do not know their width; nothing would fit into none
        del os.environ["COLUMNS"]
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files, whatever else is set
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal need not have every letter of a name
    with signals.listening():
        try:
            code = _run(words)
        except Exception as error:
            code = 1
            _say(f"an error of ours ({named(error)}); {_write_traceback()} (--debug shows it); please report it")
            if debug:
                traceback.print_exc()
    sys.exit(code)


def _run(words: list[str]) -> int:
    """The exit code of a command; what was wrong with its input is said."""
    try:
        if _is_nowhere():  # where torch's libraries would end the process, too
            raise UserError("the folder that this command runs in is gone; go to another one")
        if "" in words:  # as "$UNSET" leaves it; an empty path would be the present folder
            raise UserError("an argument is empty, perhaps of a variable that is not set; give it a value, or leave it out")
        if ranks.several():
            if words[:1] != ["fit"] or "--dry-run" in words:
                raise UserError("torchrun starts one run in several processes: uda fit; give this command without torchrun")
            ranks.join()
        command = typer.main.get_command(app)
        with command.make_context("uda", words) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as end:
        return int(end.exit_code)
    except ProcessLost as lost:
        _say(str(lost))
        return 1
    except KeyboardInterrupt as stop:
        _say("stopped")
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Exception, SystemExit) as error:
        line, frames = _explained(error)
        if line is None:
            raise
        _say(line)
        print(frames, end="", file=sys.stderr)
        return 2
    return 0


def _explained(error: BaseException) -> tuple[str | None, str]:
    """What was wrong with the input, and where in the user's own code, if there; None where it was not the input."""
    error = ReaderKilled.of(error) or error
    if isinstance(error, NotFinite) and ";" not in str(error):  # not from training, which has advice of its own
        return f"{error}; try --precision fp32", ""
    if isinstance(error, UserError):
        return str(error), error.frames if isinstance(error, OwnCodeError) else ""
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's
    if out_of_memory or re.search("allocate memory|failed to map segment", str(error)):
        return "there is not enough memory; give fewer or smaller images (--size), or lower data.memory or training.batch", ""
    if frames := own_frames(error):
        return f"your own code failed ({named(error)})", frames
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        return "too many files are open; let more be (ulimit -n 1024)", ""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}; mend that, or give another path", ""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG):
        return f"the output cannot be written ({error.strerror}); give it another place", ""
    if isinstance(error, Exception) and hasattr(error, "format_message"):  # typer's own, whose class is not public
        path = getattr(getattr(error, "ctx", None), "command_path", "uda")
        return f"{error.format_message().rstrip('.?')}; see {path} --help", ""
    return None, ""


def _is_nowhere() -> bool:
    """Whether the folder that this process runs in has been deleted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _say(line: str) -> None:
    """One line, whatever is in it: a name of a file may hold what moves a terminal's cursor. Of several processes one says it."""
    with suppress(UserError):  # of an environment that makes no sense, which is what is said then
        if not ranks.speaks():
            return
    with suppress(OSError):  # nobody can be told
        print(f"uda: {printable(' '.join(line.split()))}", file=sys.stderr, flush=True)


def _write_traceback() -> str:
    """Keeps the traceback of the error that is being handled; says where."""
    trace = traceback.format_exc()
    try:
        handle, path = tempfile.mkstemp(".txt", "uda-error-")
        with open(handle, "w", errors="backslashreplace") as file:
            file.write(trace)
    except OSError as error:
        return f"its traceback could not be kept ({error.strerror})"
    return f"its traceback is in {path}"


if __name__ == "__main__":
    main()
