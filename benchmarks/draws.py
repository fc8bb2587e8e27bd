"""What diversity buys: DRIT's adaptation with 1, 3 and 5 translations of each source image, MNIST -> MNIST-M.

    python benchmarks/draws.py --seeds 0 1 2
    python benchmarks/draws.py --seeds 0 1 2 --without-content

First the recipe itself: translator, then classifier, which learns from so many source images that hardly any comes twice. Then,
with few labels and as in the paper: its translator draws n translations of each of --images source images, and the source
classifier goes on to learn from these, augmented, and from nothing of the target.

Each run of the recipe is a folder under --out, so an interrupted bench goes on where it stopped; tables are printed as Markdown.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from cells import run_cell, where

from uda.console import Display
from uda.data.augment import to_float, to_pixels
from uda.data.batches import Batches
from uda.data.domain import LabelledDomain
from uda.data.load import load_pair
from uda.data.names import data_roots
from uda.evaluation.evaluator import on_labelled
from uda.evaluation.outputs import accuracy
from uda.methods.source_only import SourceOnly
from uda.methods.translating import Translating
from uda.models.backbones import Classifier
from uda.models.layers import SOURCE, TARGET
from uda.players import Players
from uda.runs.run import Run
from uda.runtime import seed_everything

RECIPE = "mnist2mnistm"
STEPS, BATCH = 300, 128


def learn_from_translations(run: Run, all_draws: Sequence[int], count: int, roots: Sequence[Path]) -> list[tuple[int, float]]:
    """Target accuracy of the source classifier after it has learned from n translations of each of `count` source images."""
    method, runtime = run.method(), run.runtime
    assert isinstance(method, Translating)
    pair = load_pair(run.recipe.data, roots, Display(quiet=True)).to(runtime.device)
    assert pair.target_test is not None
    seed_everything(run.recipe.seed)
    images, labels = pair.source.sample(count), pair.source.sample_labels(count)
    made = []
    for _ in range(max(all_draws)):
        parts = [method.translate(to_float(part), SOURCE, TARGET) for part in images.split(250)]
        made.append(torch.cat([to_pixels(part) for part in parts]))
    found = []
    for draws in all_draws:
        shown = torch.cat([images, *made[:draws]])
        lessons = LabelledDomain("translations", shown, pair.source.classes, "", labels.repeat(1 + draws))
        seed_everything(run.recipe.seed)
        classifier = run.load_classifier("source").train()
        assert isinstance(classifier, Classifier)
        learner = SourceOnly(run.recipe.classifier.training, classifier, run.recipe.data.shape, STEPS, runtime)
        learner.setup(pair.target.without_labels(), Players(runtime, STEPS))
        augment = run.recipe.augment
        batches = Batches(lessons, None, BATCH, 0, augment.source, augment.target, runtime)
        with runtime.computing():
            for _ in range(STEPS):
                learner.step(batches.next())
        found.append((draws, accuracy(*on_labelled(classifier, pair.target_test, runtime))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=2000, help="source images that are translated for good")
    parser.add_argument("--without-content", action="store_true", help="without the discriminator of contents")
    parser.add_argument("--out", type=Path, default=Path("runs/draws"))
    given = parser.parse_args()

    changed = {"method.content_weight": 0.0} if given.without_content else {}
    folders = {seed: given.out / f"{seed}{'-without-content' if changed else ''}" for seed in given.seeds}
    results = [run_cell(folder, RECIPE, changed | {"seed": seed}) for seed, folder in folders.items()]
    columns = ("source_only", "last", "selected", "oracle")
    print(f"\n| seed | {' | '.join(columns)} | class consistency | diversity (real images) | seconds |")
    print(f"|{'---|' * (len(columns) + 4)}")
    for seed, result in zip(given.seeds, results, strict=True):
        values = [*(result["accuracy"][name] for name in columns), result["translation"]["class_consistency"]]
        shown = (f"{value:.4f}" for value in values)
        found = result["translation"]  # of a cell made before diversity was measured, without it
        diversity = "{diversity:.2f} ({real_diversity:.2f})".format_map(found) if "diversity" in found else ""
        print(f"| {seed} | {' | '.join(shown)} | {diversity} | {result['seconds']['adaptation']:.0f} |")

    after: dict[int, list[float]] = {}
    for seed in given.seeds:
        for draws, reached in learn_from_translations(Run(folders[seed]), [0, *given.draws], given.images, data_roots(None)):
            after.setdefault(draws, []).append(reached)
    print(f"\n| draws of each of {given.images:,} images | mean | {' | '.join(f'seed {seed}' for seed in given.seeds)} |")
    print(f"|{'---|' * (len(given.seeds) + 2)}")
    for draws, accuracies in after.items():
        print(f"| {draws} | {statistics.mean(accuracies):.4f} | {' | '.join(f'{accuracy:.4f}' for accuracy in accuracies)} |")
    print(f"\n{results[0]['source']['note']} -> {results[0]['target']['note']}; seeds {given.seeds}\n{where()}")


if __name__ == "__main__":
    main()
