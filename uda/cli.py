"""The command line: one small function per command. torch is imported only by the commands that compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

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
    recipe: Annotated[str | None, typer.Option(help="A recipe's name (see `uda recipes`) or a path to a .toml file.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue an interrupted run folder instead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; else runs/RECIPE-METHOD-SEED-TIME.")] = None,
    data_root: DataRoot = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (a probe decides), bf16 or fp32.")] = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override any key: --set method.feature_norm=l2. Repeatable.")
    ] = None,
) -> None:
    """Adapt a classifier: the source classifier first, then the method, then the figures.

    svhn2mnist, mnist2usps, usps2mnist and synth2digits take minutes on two CPU cores; the -paper recipes, at the published
    size, want a GPU (days on a CPU).
    """
    if (recipe is None) == (resume is None):
        raise UserError("give either --recipe NAME or --resume RUN; `uda recipes` lists the names")
    if resume is not None:
        given = {"--seed": seed, "--out": out, "--data-root": data_root, "--set": set_}
        wrong = [name for name, value in given.items() if value]
        if wrong:
            raise UserError(f"--resume goes on as the run began; leave out {', '.join(wrong)}, or start anew with --recipe")
    else:
        from uda import catalogue

        catalogue.find(str(recipe))  # a wrong name is answered before torch is loaded
    from uda.display import Display
    from uda.fitting import Interrupted
    from uda.fitting import fit as run_fit
    from uda.fitting import resume as run_resume
    from uda.recipe import parse_override

    display = Display()
    try:
        if resume is not None:
            run_resume(resume, display)
        else:
            overrides = dict(parse_override(text) for text in set_ or ())
            if seed is not None:
                overrides["seed"] = seed
            run_fit(
                str(recipe),
                out=out,
                data_root=data_root,
                device=device,
                precision=precision,
                display=display,
                overrides=overrides,
            )
    except Interrupted as stop:
        display.say(f"{stop}; go on with: uda fit --resume {stop.path}")
        raise typer.Exit(130) from None


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the shipped recipes."""
    if context.invoked_subcommand is None:
        from rich.console import Console
        from rich.table import Table

        from uda import catalogue

        table = Table("recipe", "what it does", box=None, pad_edge=False)
        for name in catalogue.names():
            table.add_row(name, catalogue.read(catalogue.RECIPES / f"{name}.toml").get("description", ""))
        Console().print(table)


@recipes_app.command("show")
def recipes_show(name: str) -> None:
    """Print a recipe with its comments, ready to be copied and changed."""
    from uda import catalogue

    print(catalogue.find(name).read_text(encoding="utf-8"), end="")


@app.command()
def data(data_root: DataRoot = None) -> None:
    """Which data sets are here, where, and what would be downloaded."""
    from rich.console import Console
    from rich.table import Table

    from uda.data import EMBEDDED, describe

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
