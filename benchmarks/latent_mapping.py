"""Latent mapping's experiments, with labels in both domains: how many generated images are of the wanted class?

    python benchmarks/latent_mapping.py digits svhn published fashion --seeds 0 1 2
    python benchmarks/latent_mapping.py digits svhn --as-published --steps 1500

`digits`: MNIST's 0..4 become 5..9, class k to class k + 5. `published`: SVHN's 1..4 become MNIST's 6..9, k to k + 5, the
paper's pair. `svhn`: all of SVHN becomes MNIST, each class the same, which is not in the paper. `fashion`: MNIST becomes
Fashion-MNIST, each class that of its number. A judge, trained on the whole set that is drawn (its own accuracy stands beside),
reads what is generated from the source's test images; and, the way back, one of the source's classes reads what is generated from
the target's. A source classifier is trained as the recipe says, with its augmentation; VAEs are trained for --vae-steps, the
mapping for --steps. With --as-published there is the paper's objective alone: VAEs that know no class, and begin afresh; no
augmentation; pairs of three kinds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cells import where

from uda.console import Display
from uda.data.augment import Augment, to_float, to_pixels
from uda.data.batches import Batches
from uda.data.domain import LabelledDomain
from uda.data.load import load_named
from uda.data.names import data_roots
from uda.evaluation.evaluator import on_labelled, predict
from uda.evaluation.outputs import accuracy
from uda.evaluation.translation import ROUNDS_BACK, train_judge
from uda.methods.latent_mapping import LatentMapping, LatentMappingSettings
from uda.methods.source_only import SourceOnly
from uda.models import build_classifier
from uda.models.layers import SOURCE, TARGET
from uda.players import Players
from uda.recipe.load import load_recipe
from uda.report.grids import write_grid
from uda.runtime import Runtime, choose_runtime, scoped_seed, seed_everything

BATCH = 128
ASKED = "width", "code_dim", "encoder", "kl_weight", "code_class_weight", "rebuilt_class_weight", "closeness_weight"
AS_PUBLISHED: dict[str, Any] = {
    "encoder": "convolutional", "code_class_weight": 0.0, "rebuilt_class_weight": 0.0, "negatives": False, "mapping_updates": 1,
}  # fmt: skip
# Whose source classifier and augmentation are used.
RECIPES = {"digits": "mnist2usps", "svhn": "svhn2mnist", "published": "svhn2mnist", "fashion": "mnist2usps"}

Splits = tuple[LabelledDomain, LabelledDomain]
"""for training, for testing"""


def of_classes(splits: Splits, first: int, last: int) -> Splits:
    """The images of classes first..last, renumbered from 0."""
    train, test = splits
    return only_classes(train, first, last), only_classes(test, first, last)


def only_classes(domain: LabelledDomain, first: int, last: int) -> LabelledDomain:
    kept = ((domain.labels >= first) & (domain.labels <= last)).nonzero().squeeze(1)
    assert isinstance(domain.images, torch.Tensor)
    classes = domain.classes[first : last + 1]
    return LabelledDomain(domain.name, domain.images[kept], classes, domain.note, domain.labels[kept] - first)


class Task(NamedTuple):
    """Images of both domains whose classes of one number are paired, and the whole sets that judges learn from."""

    source: LabelledDomain
    source_test: LabelledDomain
    target: LabelledDomain
    target_test: LabelledDomain
    drawn: LabelledDomain
    drawn_test: LabelledDomain
    offset: int
    """what is added to a class's number to have the wanted one of `drawn`"""


def splits_of(name: str, roots: Sequence[Path], channels: int) -> Splits:
    return load_named(name, "train", roots, 32, channels), load_named(name, "test", roots, 32, channels)


def task_of(name: str, roots: Sequence[Path]) -> Task:
    """The images of a task."""
    mnist = splits_of("mnist", roots, 1 if name in ("digits", "fashion") else 3)
    if name == "digits":
        return Task(*of_classes(mnist, 0, 4), *of_classes(mnist, 5, 9), *mnist, 5)
    if name == "fashion":
        clothes = splits_of("fashion-mnist", roots, 1)
        return Task(*mnist, *clothes, *clothes, 0)
    svhn = splits_of("svhn", roots, 3)
    if name == "published":
        return Task(*of_classes(svhn, 1, 4), *of_classes(mnist, 6, 9), *mnist, 6)
    return Task(*svhn, *mnist, *mnist, 0)


class Found(NamedTuple):
    """Shares of generated images that are read as the wanted class, and the judges' own accuracies on real test images."""

    forward: float
    judge: float
    backward: float
    judge_back: float


def run(task: str, seed: int, given: argparse.Namespace, runtime: Runtime, roots: Sequence[Path]) -> Found:
    """Wanted-class accuracy of images generated from test images, both ways."""
    source, source_test, target, target_test, drawn, drawn_test, offset = task_of(task, roots)
    shape = (source.images.shape[1], 32, 32)
    with scoped_seed(0):
        reader, _ = train_judge(drawn, drawn_test, runtime)
        reader_back, _ = train_judge(source, source_test, runtime, ROUNDS_BACK)
    seed_everything(seed)
    recipe = load_recipe(RECIPES[task])
    trained, augment, none = recipe.classifier, recipe.augment.source, Augment()
    classifier = build_classifier(trained.backbone, *shape[:2], len(source.classes), trained.width)
    runtime.place(classifier)
    display = Display()

    def repeat(name: str, steps: int, step: Callable[[], dict[str, torch.Tensor]]) -> None:
        with display.stage(f"{task}, seed {seed}: {name}", 0, steps) as progress:
            for number in range(1, steps + 1):
                values = step()
                note = "  ".join(f"{key} {float(value):.3g}" for key, value in values.items()) if number % 50 == 0 else ""
                progress.update(number, note)

    lessons = Batches(source, None, trained.batch, 0, augment, none, runtime)
    supervised = SourceOnly(trained.training, classifier, shape, trained.steps, runtime)
    supervised.setup(target.without_labels(), Players(runtime, trained.steps))
    repeat("classifier", trained.steps, lambda: supervised.step(lessons.next()))

    asked = {name: getattr(given, name) for name in ASKED}
    # Its figures were made before rebuilt pixels were to vary as real ones do.
    settings = LatentMappingSettings(**asked | {"statistics_weight": 0.0} | (AS_PUBLISHED if given.as_published else {}))
    method = LatentMapping(settings, classifier, shape, given.steps, runtime)
    runtime.place(method)
    method.setup(target.without_labels(), Players(runtime, given.steps))
    views = none if given.as_published else augment
    sides = [Batches(source, None, BATCH, 0, views, none, runtime), Batches(target, None, BATCH, 0, none, none, runtime)]

    def update_vaes() -> dict[str, torch.Tensor]:
        x, y = (side.next() for side in sides)
        return method.update_vaes(x.source, x.source_labels, y.source, views)

    def update_mapping() -> dict[str, torch.Tensor]:
        x, y = (side.next() for side in sides)
        return method.update_mapping(x.source, x.source_labels, y.source, y.source_labels)

    repeat("VAEs", given.vae_steps, update_vaes)
    repeat("mapping", given.steps, update_mapping)

    def generate(images: torch.Tensor, origin: int) -> torch.Tensor:
        return torch.cat([to_pixels(method.translate(to_float(part), origin, 1 - origin)) for part in images.split(500)])

    images, images_back = source_test.sample(10_000), target_test.sample(10_000)
    generated, generated_back = generate(images, SOURCE), generate(images_back, TARGET)
    wanted = source_test.sample_labels(10_000) + offset
    shown = torch.cat([(wanted == number).nonzero()[:2, 0] for number in wanted.unique()])
    real = target.sample(len(shown))
    again = to_pixels(method.translate(to_float(real), TARGET, TARGET))
    rows = [("source", images[shown]), ("generated", generated[shown]), ("target", real), ("its VAE", again)]
    rows += [("target", images_back[: len(shown)]), ("generated", generated_back[: len(shown)])]
    write_grid(rows, given.out / f"{task}{'-as-published' if given.as_published else ''}-{seed}.png")

    def right(judge: torch.nn.Module, pictures: torch.Tensor, labels: torch.Tensor) -> float:
        return float((predict(judge, pictures, runtime).argmax(1) == labels).float().mean())

    return Found(
        right(reader, generated, wanted),
        accuracy(*on_labelled(reader, drawn_test, runtime)),
        right(reader_back, generated_back, target_test.sample_labels(10_000)),
        accuracy(*on_labelled(reader_back, source_test, runtime)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=RECIPES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--vae-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=1000)
    for name in ASKED:
        default = LatentMappingSettings.model_fields[name].default
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--as-published", action="store_true", help=f"whatever else is asked for: {AS_PUBLISHED}")
    parser.add_argument("--out", type=Path, default=Path("runs/latent_mapping"))
    given = parser.parse_args()
    runtime, roots = choose_runtime("auto", "auto"), data_roots(None)
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for task in given.tasks:
        for seed in given.seeds:
            began = time.perf_counter()
            with runtime.computing():
                found = run(task, seed, given, runtime, roots)
            rows.append((task, seed, found, time.perf_counter() - began))
    print("\n| task | seed | wanted class | judge | the way back | its judge | seconds |\n|---|---|---|---|---|---|---|")
    for task, seed, found, seconds in rows:
        print(f"| {task} | {seed} | {' | '.join(f'{figure:.4f}' for figure in found)} | {seconds:.0f} |")
    print(f"\n{vars(given)}\n{where()}")


if __name__ == "__main__":
    main()
