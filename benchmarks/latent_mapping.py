"""Latent mapping as published, with labels in both domains: how many generated images are of the wanted class?

    python benchmarks/latent_mapping.py digits svhn published fashion --seeds 0 1 2

`digits`: MNIST's 0..4 become 5..9, class k to class k + 5. `published`: SVHN's 1..4 become MNIST's 6..9, k to k + 5, the
paper's pair. `svhn`: all of SVHN becomes MNIST, each class the same, which is not in the paper. `fashion`: MNIST becomes
Fashion-MNIST, each class that of its number. A judge, trained on the whole set that is drawn (its own accuracy stands beside),
reads what is generated from the source's test images. A source classifier is trained as the recipe says, with its augmentation;
VAEs are trained for --vae-steps, the mapping for --steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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
from uda.evaluation.translation import train_judge
from uda.methods.latent_mapping import LatentMapping, LatentMappingSettings
from uda.methods.source_only import SourceOnly
from uda.models import build_classifier
from uda.models.layers import SOURCE, TARGET
from uda.players import Players
from uda.recipe.load import load_recipe
from uda.report.grids import write_grid
from uda.runtime import Runtime, choose_runtime, scoped_seed, seed_everything

BATCH = 128
# Whose source classifier and augmentation are used.
RECIPES = {"digits": "mnist2usps", "svhn": "svhn2mnist", "published": "svhn2mnist", "fashion": "mnist2usps"}


def of_classes(domain: LabelledDomain, first: int, last: int) -> LabelledDomain:
    """The images of classes first..last, renumbered from 0."""
    kept = ((domain.labels >= first) & (domain.labels <= last)).nonzero().squeeze(1)
    assert isinstance(domain.images, torch.Tensor)
    classes = domain.classes[first : last + 1]
    return LabelledDomain(domain.name, domain.images[kept], classes, domain.note, domain.labels[kept] - first)


def domains(task: str, roots: Sequence[Path]) -> tuple[LabelledDomain, LabelledDomain, LabelledDomain, int]:
    """Source to train on, source to test on, target, and what is added to a class's number to have the wanted MNIST class."""
    channels = 1 if task in ("digits", "fashion") else 3
    mnist = load_named("mnist", "train", roots, 32, channels)
    if task == "digits":
        test_images = of_classes(load_named("mnist", "test", roots, 32, channels), 0, 4)
        return of_classes(mnist, 0, 4), test_images, of_classes(mnist, 5, 9), 5
    if task == "fashion":
        return mnist, load_named("mnist", "test", roots, 32, 1), load_named("fashion-mnist", "train", roots, 32, 1), 0
    svhn, svhn_test = (load_named("svhn", split, roots, 32, 3) for split in ("train", "test"))
    if task == "published":
        return of_classes(svhn, 1, 4), of_classes(svhn_test, 1, 4), of_classes(mnist, 6, 9), 6
    return svhn, svhn_test, mnist, 0


def run(task: str, seed: int, given: argparse.Namespace, runtime: Runtime, roots: Sequence[Path]) -> tuple[float, float]:
    """Wanted-class accuracy of images generated from the source's test images, and the judge's own on real test images."""
    source, source_test, target, offset = domains(task, roots)
    shape = (source.images.shape[1], 32, 32)
    drawn = "fashion-mnist" if task == "fashion" else "mnist"
    mnist = [load_named(drawn, split, roots, 32, shape[0]) for split in ("train", "test")]
    with scoped_seed(0):
        reader, _ = train_judge(mnist[0], mnist[1], runtime)
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

    settings = LatentMappingSettings(
        encoder=given.encoder, width=given.width, code_dim=given.code_dim, kl_weight=given.kl_weight,
        code_class_weight=given.code_class_weight, closeness_weight=given.closeness,
    )  # fmt: skip
    method = LatentMapping(settings, classifier, shape, given.steps, runtime)
    runtime.place(method)
    method.setup(target.without_labels(), Players(runtime, given.steps))
    sides = [Batches(source, None, BATCH, 0, augment, none, runtime), Batches(target, None, BATCH, 0, none, none, runtime)]

    def update_vaes() -> dict[str, torch.Tensor]:
        x, y = (side.next() for side in sides)
        return method.update_vaes(x.source, x.source_labels, y.source)

    def update_mapping() -> dict[str, torch.Tensor]:
        x, y = (side.next() for side in sides)
        return method.update_mapping(x.source, x.source_labels, y.source, y.source_labels)

    repeat("VAEs", given.vae_steps, update_vaes)
    repeat("mapping", given.steps, update_mapping)
    images = source_test.sample(10_000)
    generated = torch.cat([to_pixels(method.translate(to_float(part), SOURCE, TARGET)) for part in images.split(500)])
    wanted = source_test.sample_labels(10_000) + offset
    shown = torch.cat([(wanted == number).nonzero()[:2, 0] for number in wanted.unique()])
    real = target.sample(len(shown))
    again = to_pixels(method.translate(to_float(real), TARGET, TARGET))
    rows = [("source", images[shown]), ("generated", generated[shown]), ("target", real), ("its VAE", again)]
    write_grid(rows, given.out / f"{task}-{seed}.png")
    right = float((predict(reader, generated, runtime).argmax(1) == wanted).float().mean())
    return right, accuracy(*on_labelled(reader, mnist[1], runtime))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=RECIPES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--vae-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--code-dim", type=int, default=32)
    parser.add_argument("--encoder", choices=("backbone", "convolutional"), default="backbone")
    parser.add_argument("--code-class-weight", type=float, default=300.0)
    parser.add_argument("--kl-weight", type=float, default=0.3)
    parser.add_argument("--closeness", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=Path("runs/latent_mapping"))
    given = parser.parse_args()
    runtime, roots = choose_runtime("auto", "auto"), data_roots(None)
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for task in given.tasks:
        for seed in given.seeds:
            began = time.perf_counter()
            with runtime.computing():
                right, own = run(task, seed, given, runtime, roots)
            rows.append((task, seed, right, own, time.perf_counter() - began))
    print("\n| task | seed | wanted class | judge | seconds |\n|---|---|---|---|---|")
    for task, seed, right, own, seconds in rows:
        print(f"| {task} | {seed} | {right:.4f} | {own:.4f} | {seconds:.0f} |")
    print(f"\n{vars(given)}\n{where()}")


if __name__ == "__main__":
    main()
