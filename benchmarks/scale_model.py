"""A model of what a run costs on many GPUs and with many images.

    python benchmarks/scale_model.py check      # what it says of one and two processes here, beside what they took
    python benchmarks/scale_model.py predict    # what it says of 1, 8 and 64 GPUs, and of 1e6 and 1e9 images

One step of g processes takes as long as the slowest of: the network on batch/g images, decoding them, reading them; and then the
all-reduce of all gradients as one flat buffer, in a ring: 2 (g - 1)/g x bytes / bandwidth + 2 (g - 1) x latency (Patarasuk and
Yuan 2009), and the flags by which processes agree, which go up and down a tree. What was measured is in
``scale_constants.json`` (`scale_measure.py`); the rest is assumed, and said to be in `Machine`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CONSTANTS = Path(__file__).with_name("scale_constants.json")
BATCH = 256
FLAGS = 3
"""small exchanges of a step besides gradients: whether to save (its length, then itself), whether to stop"""


@dataclass(frozen=True)
class Machine:
    """What the model needs to know of one process and its neighbours. The defaults are assumed, of a V100 and its machine.

    Attributes:
        images: what the network takes forward and backward in a second, both domains counted. NVIDIA's own figure for ResNet-50
            on a V100 of 16 GB in mixed precision (DeepLearningExamples, ResNet50 v1.5 for PyTorch, training performance).
        fixed: seconds of a step that do not grow with the batch: kernels that are begun, optimisers.
        gradients: bytes that are averaged in a step: 25.6 million weights of ResNet-50 (He et al. 2016) in float32.
        bandwidth: bytes a second between two neighbours of the ring within a machine; an eighth of it between machines.
        latency: seconds until the first of these bytes arrives.
        flag: seconds of a small exchange between two processes.
        decode: photographs that one core decodes in a second.
        cores: for each process.
        image: bytes of a photograph.
        store: bytes a second that the store of the shards gives to one machine of eight GPUs.
        jitter: by how much of itself a step's time varies; all wait for the slowest.
    """

    decode: float
    image: float
    images: float = 1200.0
    fixed: float = 0.005
    gradients: float = 25.6e6 * 4
    bandwidth: float = 100e9
    latency: float = 10e-6
    flag: float = 50e-6
    cores: int = 16
    store: float = 2e9
    jitter: float = 0.05


def with_gpus(constants: dict[str, Any]) -> Machine:
    """GPUs as assumed, which read photographs as they were found and decoded here."""
    return Machine(constants["photographs"]["a_second"], constants["photographs"]["bytes"])


def measured(constants: dict[str, Any]) -> Machine:
    """The machine that was measured, a core for each process: straight lines through steps by batch, and exchanges by size.

    Its images lie in memory, decoded.
    """
    steps, exchanges = constants["step_of_one_process"], constants["all_reduce_of_two_processes"]
    took = [one["processor"] for one in steps.values()]
    each, fixed = np.polyfit([2 * int(batch) for batch in steps], took, 1)  # as many of each domain
    per_byte, latency = np.polyfit([4 * int(size) for size in exchanges], list(exchanges.values()), 1)
    gradients, flag = constants["gradient_bytes"], min(exchanges.values())
    return Machine(
        math.inf, 0.0, 1 / each, fixed, gradients, 1 / per_byte, max(0.0, latency) / 2, flag, cores=1, jitter=0.0
    )  # fmt: skip


def step(machine: Machine, processes: int, batch: int, generator: random.Random) -> dict[str, float]:
    """Seconds of one step by what they go to, `batch` images of both domains in all. Above eight, the ring leaves a machine."""
    own = batch / processes
    slowest = max(generator.gauss(1.0, machine.jitter) for _ in range(processes))
    bandwidth = machine.bandwidth if processes <= 8 else machine.bandwidth / 8
    return {
        "network": (machine.fixed + own / machine.images) * slowest,
        "decoding": own / (machine.decode * machine.cores),
        "store": own * min(processes, 8) * machine.image / machine.store,
        "all-reduce": 2 * (processes - 1) * (machine.gradients / processes / bandwidth + machine.latency),
        "flags": FLAGS * math.ceil(math.log2(processes)) * machine.flag,
    }


def simulate(machine: Machine, processes: int, batch: int, steps: int = 200) -> dict[str, float]:
    """Mean seconds of a step, whole and by part. Reading goes on beside the network; exchanges come after it."""
    generator = random.Random(0)
    drawn = [step(machine, processes, batch, generator) for _ in range(steps)]
    parts = {name: sum(one[name] for one in drawn) / steps for name in drawn[0]}
    beside = [max(one["network"], one["decoding"], one["store"]) + one["all-reduce"] + one["flags"] for one in drawn]
    return {"step": sum(beside) / steps, **parts}


def check(constants: dict[str, Any]) -> None:
    """Steps of one process, through which the model's lines were laid, and of two, of which it knows the exchanges alone."""
    machine = measured(constants)
    print("| processes | batch of each domain | step, ms | processor, ms | the model, ms | off from processor | from step |")
    print("|---|---|---|---|---|---|---|")
    for processes, name in ((1, "step_of_one_process"), (2, "step_of_two_processes")):
        for batch, took in constants[name].items():
            said = simulate(machine, processes, 2 * int(batch), 1)["step"]
            step, own = took["seconds"], took["processor"]
            figures = f"{1e3 * step:.1f} | {1e3 * own:.1f} | {1e3 * said:.1f} | {said / own - 1:+.0%} | {said / step - 1:+.0%}"
            print(f"| {processes} | {batch} | {figures} |")


def predict(machine: Machine) -> None:
    print("| GPUs | batch of all | step, ms | images/s | of ideal | longest part |\n|---|---|---|---|---|---|")
    for grows in (False, True):
        alone = 2 * BATCH / simulate(machine, 1, 2 * BATCH)["step"]
        for gpus in (1, 8, 64):
            batch = BATCH * gpus if grows else BATCH
            found = simulate(machine, gpus, 2 * batch)  # as many images of each domain
            rate = 2 * batch / found["step"]
            longest = max((name for name in found if name != "step"), key=found.__getitem__)
            print(f"| {gpus} | {batch} | {1e3 * found['step']:.1f} | {rate:,.0f} | {rate / alone / gpus:.0%} | {longest} |")
    print("\n| images | shards of 1,000 | store, TB | index, GB | index pass, h | decoded once, core-h | 64-GPU predict, h |")
    print("|---|---|---|---|---|---|---|")
    for images in (1e6, 1e9):
        size, reading = images * machine.image, images * machine.image / machine.store / 3600
        cores = images / machine.decode / 3600
        predicted = max(images / (3 * machine.images * 64) / 3600, cores / (machine.cores * 64), reading / 8)
        print(
            f"| {images:.0e} | {images / 1000:,.0f} | {size / 1e12:,.2f} | {32 * images / 1e9:,.2f} | {reading:,.2f} | "
            f"{cores:,.1f} | {predicted:,.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "predict"))
    given = parser.parse_args()
    constants = json.loads(CONSTANTS.read_text())
    print(f"measured: {constants['machine']}\n")
    if given.what == "check":
        check(constants)
    else:
        predict(with_gpus(constants))


if __name__ == "__main__":
    main()
