"""The full grids of UNIT's map experiment: discriminator depth by tied layers, and divergences' by reconstructions' weight.

    python benchmarks/map_grid.py --seeds 0 1 2
    python benchmarks/map_grid.py --data-root DIR --size 128    # on the real photographs, at a side with room for six layers

Figure 2 of the paper sweeps both. Views from above become street maps as in maps.py, whose options these are. Each cell is a run
folder under --out, in the form that maps.py has, so an interrupted bench goes on where it stopped. The weights are of both
divergences, and of both distances (reconstruction and cycle), as the paper changes them together; an image's own code has the
weight of both divergences, since eq. 3 and eq. 5 both hold that term. Two tables of pixel accuracy, means over the seeds, are
printed as Markdown.
"""

from __future__ import annotations

import statistics
from itertools import product

from cells import where
from maps import options, run_variant

DEPTHS, TIED = (3, 4, 5, 6), (1, 2, 3, 4)
DIVERGENCES, DISTANCES = (0.01, 0.1, 1.0), (1.0, 10.0, 100.0, 1000.0)


def main() -> None:
    parser = options(__doc__, "runs/map_grid")
    parser.add_argument("--only", choices=("layers", "weights"), help="one of the two grids")
    given = parser.parse_args()
    depths = [depth for depth in DEPTHS if given.size >> depth]
    grids = {
        "layers": ("discriminator depth", depths, "tied layers", TIED),
        "weights": ("weight of divergences", DIVERGENCES, "weight of distances", DISTANCES),
    }
    for grid in [given.only] if given.only else grids:
        down, rows, along, columns = grids[grid]
        found = {}
        for row, column in product(rows, columns):
            if grid == "layers":
                settings = {"method.discriminator_depth": row, "method.tied_layers": column}
            else:
                divergences = {"method.mean_kl_weight": 2 * row, "method.mean_cycle_kl_weight": row}
                settings = divergences | {"method.mean_reconstruction_weight": column, "method.mean_cycle_weight": column}
            name = f"{grid} {row} by {column}"
            results = [run_variant(name, settings, seed, given) for seed in given.seeds]
            found[row, column] = statistics.mean(result["translation"]["pixel_accuracy"] for result in results)
        print(f"\n| {down} \\ {along} | {' | '.join(map(str, columns))} |\n|{'---|' * (len(columns) + 1)}")
        for row in rows:
            print(f"| {row} | {' | '.join(f'{found[row, column]:.4f}' for column in columns)} |")
    print(f"\n{given.size} pixels, {given.steps} steps of {given.batch}, seeds {given.seeds}\n{where()}")


if __name__ == "__main__":
    main()
