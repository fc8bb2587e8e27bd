"""The map experiment of UNIT's figure 2: what each part buys on views from above -> street maps, by pixel accuracy on test pairs.

    python benchmarks/maps.py --seeds 0 1 2
    python benchmarks/maps.py --data-root DIR        # DIR/maps/train, DIR/maps/val: the real photographs

No pair is ever trained on. Each variant is a run folder under --out, so an interrupted bench goes on where it stopped; the table
is printed as Markdown. The paper's figures, on real photographs: full model 0.600, without weight sharing (which leaves out the
VAEs and the reconstructions, too) 0.569, without the cycle 0.568. Here an image's own code has half of the weight that eq. 3 and
eq. 5 together give it, as in the recipe `translate`.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from cells import run_cell, where
from torch import Tensor

from uda.data.augment import to_float, to_pixels
from uda.data.datasets.city import View, load_city
from uda.data.names import data_roots
from uda.evaluation.results import Result
from uda.inference.translate import open_translator
from uda.models.layers import SOURCE, TARGET
from uda.report.grids import write_grid
from uda.runs.run import Run

SHOWN = 8  # test images in a picture
VARIANTS: dict[str, dict[str, Any]] = {
    "full (depth 5, 1 tied, reconstruction 100)": {},
    "no tied layers": {"method.tied_layers": 0},
    "no cycle": {"method.mean_cycle_weight": 0.0, "method.mean_cycle_kl_weight": 0.0},
    "tied layers 2": {"method.tied_layers": 2},
    "tied layers 4": {"method.tied_layers": 4},
    "discriminator depth 3": {"method.discriminator_depth": 3},
    "discriminator depth 4": {"method.discriminator_depth": 4},
    "reconstruction weight 10": {"method.mean_reconstruction_weight": 10.0},
    "reconstruction weight 1": {"method.mean_reconstruction_weight": 1.0},
    "no weight sharing, as in the paper (CycleGAN)": {
        "method.tied_layers": 0,
        "method.variational": False,
        "method.start_alike": False,
        "method.mean_reconstruction_weight": 0.0,
        "method.mean_kl_weight": 0.0,
        "method.mean_cycle_kl_weight": 0.0,
    },
}


def shown_of(view: View, size: int, root: Path | None) -> Tensor:
    """The first test images of a domain, uint8 (n, 3, S, S)."""
    images = load_city(view, "test", data_roots(root), size, 3).images
    assert isinstance(images, Tensor)
    return images[:SHOWN]


def draw(folders: dict[str, Path], size: int, root: Path | None, out: Path) -> None:
    """A grid: test views from above, the maps that each variant's run makes of them, and the maps that they have."""
    views, maps = shown_of("aerial", size, root), shown_of("map", size, root)
    rows = [("view from above", views)]
    for name, folder in folders.items():
        method = open_translator(Run(folder))
        rows.append((name.partition(" (")[0], to_pixels(method.translate(to_float(views), SOURCE, TARGET))))
    write_grid([*rows, ("map", maps)], out)


def options(doc: str | None, out: str) -> argparse.ArgumentParser:
    """What this bench and that of the grid can be asked for."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path(out))
    return parser


def folder_of(out: Path, name: str, seed: int) -> Path:
    return out / f"{'-'.join(''.join(c if c.isalnum() else ' ' for c in name).split())}-{seed}"


def run_variant(name: str, variant: dict[str, Any], seed: int, given: argparse.Namespace) -> Result:
    """The result of one variant's run."""
    always = {
        "data.source": "aerial", "data.target": "map", "data.size": given.size, "data.paired_test": True,
        "training.steps": given.steps, "training.batch": given.batch, "method.learning_rate": given.learning_rate,
        "method.decay_from": 0.3, "augment.source.flip": 0.0, "augment.target.flip": 0.0,
    }  # fmt: skip
    folder = folder_of(given.out, name, seed)
    return run_cell(folder, "translate", always | variant | {"seed": seed}, data_root=given.data_root)


def main() -> None:
    parser = options(__doc__, "runs/maps")
    parser.add_argument("--variants", type=int, nargs="+", default=list(range(len(VARIANTS))), help="numbers, in their order")
    parser.add_argument("--picture", type=Path, help="a PNG to write: test views, and each variant's maps of them")
    given = parser.parse_args()

    names = [list(VARIANTS)[number] for number in given.variants]
    rows: dict[str, list[Result]] = {}
    for seed in given.seeds:
        for name in names:
            rows.setdefault(name, []).append(run_variant(name, VARIANTS[name], seed, given))
    if given.picture is not None:
        draw({name: folder_of(given.out, name, given.seeds[0]) for name in names}, given.size, given.data_root, given.picture)
    print("\n| variant | pixel accuracy | feature distance | seconds |\n|---|---|---|---|")
    for name, results in rows.items():
        accuracies, distances = (
            [result["translation"][key] for result in results] for key in ("pixel_accuracy", "feature_distance")
        )
        spread = f" ({min(accuracies):.4f} .. {max(accuracies):.4f})" if len(results) > 1 else ""
        seconds = statistics.mean(result["seconds"]["total"] for result in results)
        print(f"| {name} | {statistics.mean(accuracies):.4f}{spread} | {statistics.mean(distances):.1f} | {seconds:.0f} |")
    result = next(iter(rows.values()))[0]
    print(
        f"\n{result['source']['note']}; {given.size} pixels, {given.steps} steps of {given.batch}, seeds {given.seeds}\n{where()}"
    )


if __name__ == "__main__":
    main()
