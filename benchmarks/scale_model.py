"""A model of what a run costs on many GPUs and with many images, with constants that are measured here, and those that are not.

    python benchmarks/scale_model.py measure    # the constants of this machine, in seconds of its processor
    python benchmarks/scale_model.py predict    # what they say of 1, 8 and 64 GPUs, and of 1e6 and 1e9 images

One step of g processes takes as long as the slowest of: the network on batch/g images, reading them, and then the all-reduce of
all gradients as one flat buffer, in a ring: 2 (g - 1)/g x bytes / bandwidth + 2 (g - 1) x latency (Patarasuk and Yuan 2009).
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SIDE, BATCH, STEPS = 224, 256, 10_000


@dataclass(frozen=True)
class Machine:
    """What a model of one GPU's machine needs.

    Attributes:
        images: what the network takes forward and backward in a second, one GPU; both domains count.
        fixed: seconds of a step that do not grow with the batch: kernels that are begun, optimisers.
        gradients: bytes that are averaged in a step.
        bandwidth, latency: bytes a second between two neighbours of the ring, and seconds until the first arrives.
        decode: images that one core decodes in a second.
        cores: for each GPU.
        image: bytes of an image file.
        disk: bytes a second that the store of the shards gives to one machine of eight GPUs.
        jitter: by how much of itself a step's time varies; all wait for the slowest.
    """

    images: float = 1200.0
    fixed: float = 0.005
    gradients: float = 25.6e6 * 4
    bandwidth: float = 100e9
    latency: float = 10e-6
    decode: float = 150.0
    cores: int = 16
    image: float = 110e3
    disk: float = 2e9
    jitter: float = 0.05


def step(machine: Machine, gpus: int, batch: int, generator: random.Random) -> dict[str, float]:
    """Seconds of one step by what they go to; the slowest of all processes counts. Above eight GPUs the ring leaves a machine."""
    own = batch / gpus
    slowest = max(generator.gauss(1.0, machine.jitter) for _ in range(gpus))
    bandwidth = machine.bandwidth if gpus <= 8 else machine.bandwidth / 8
    return {
        "network": (machine.fixed + own / machine.images) * slowest,
        "decoding": own / (machine.decode * machine.cores),
        "store": own * min(gpus, 8) * machine.image / machine.disk,
        "all-reduce": 2 * (gpus - 1) * (machine.gradients / gpus / bandwidth + machine.latency),
    }


def simulate(machine: Machine, gpus: int, batch: int, steps: int = 200) -> dict[str, float]:
    """Mean seconds of a step, whole and by part. Reading goes on beside the network; the all-reduce comes after it."""
    generator = random.Random(0)
    drawn = [step(machine, gpus, batch, generator) for _ in range(steps)]
    parts = {name: sum(one[name] for one in drawn) / steps for name in drawn[0]}
    whole = sum(max(one["network"], one["decoding"], one["store"]) + one["all-reduce"] for one in drawn) / steps
    return {"step": whole, **parts}


def predict(machine: Machine) -> None:
    print("| GPUs | batch of all | step, ms | images/s | of ideal | longest part |\n|---|---|---|---|---|---|")
    for batch_of in (lambda g: BATCH, lambda g: BATCH * g):
        alone = 2 * BATCH / simulate(machine, 1, 2 * BATCH)["step"]
        for gpus in (1, 8, 64):
            batch = batch_of(gpus)
            found = simulate(machine, gpus, 2 * batch)  # as many images of each domain
            rate = 2 * batch / found["step"]
            longest = max((name for name in found if name != "step"), key=found.__getitem__)
            print(f"| {gpus} | {batch} | {1e3 * found['step']:.1f} | {rate:,.0f} | {rate / alone / gpus:.0%} | {longest} |")
    print("\n| images | shards of 1,000 | store, TB | index, GB | index pass, h | decoded once, core-h | 64-GPU predict, h |")
    print("|---|---|---|---|---|---|---|")
    for images in (1e6, 1e9):
        store, reading = images * machine.image, images * machine.image / machine.disk / 3600
        cores = images / machine.decode / 3600
        predicted = max(images / (3 * machine.images * 64), cores * 3600 / (machine.cores * 64), reading * 3600 / 8) / 3600
        print(
            f"| {images:.0e} | {images / 1000:,.0f} | {store / 1e12:,.2f} | {32 * images / 1e9:,.2f} | {reading:,.1f} | "
            f"{cores:,.0f} | {predicted:,.1f} |"
        )


def seconds_of(call: Callable[[], object], least: float = 2.0) -> float:
    """Processor seconds of a call, its other work on the machine left out."""
    call()
    began, count = time.process_time(), 0
    while time.process_time() - began < least:
        call()
        count += 1
    return (time.process_time() - began) / count


def measure(photos: Path | None) -> None:
    """The constants of this machine: a small classifier's step by batch, gradients, decoding, packing."""
    import numpy as np
    import torch
    from PIL import Image

    from uda.data.frame import Frame, decode
    from uda.models import build_classifier

    torch.set_num_threads(1)
    network = build_classifier("strided", 1, 32, 10)
    for batch in (8, 16, 32, 64):
        images = torch.randn(batch, 1, 32, 32)
        took = seconds_of(lambda images=images: network(images).logsumexp(1).mean().backward())
        print(f"step of the digits' classifier, batch {batch}: {1e3 * took:.2f} ms")
    print(f"its gradients: {4 * sum(weight.numel() for weight in network.parameters()):,} bytes")
    if photos is not None:
        files = [path.read_bytes() for path in sorted(photos.rglob("*.jpg"))[:50]]
    else:
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (375, 500, 3), np.uint8)).save(out, "JPEG")
        files = [out.getvalue()]
    frame = Frame(SIDE, 3, 256)
    took = seconds_of(lambda: [decode(io.BytesIO(content), frame) for content in files]) / len(files)
    print(f"photographs: {sum(map(len, files)) / len(files):,.0f} bytes each, {1 / took:.0f} decoded a second by one core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "predict"))
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs to decode; left out, noise")
    given = parser.parse_args()
    if given.what == "measure":
        measure(given.photos)
    else:
        predict(Machine())


if __name__ == "__main__":
    main()
