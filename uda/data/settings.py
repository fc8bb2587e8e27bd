"""What a recipe says of images: which, how they are framed, and how training images are changed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    PositiveInt,
    field_validator,
)

from uda.data.augment import Augment
from uda.data.frame import Frame, Interpolation, ViewSettings
from uda.types import Section


class DataSettings(Section):
    """Which images, and how they are framed."""

    source: str
    """data set with labels: mnist, usps, svhn, svhn-extra, mnist-m, synth or digits; photographs as SET/DOMAIN, such as
    office31/amazon; or a folder, .csv or .npz of your own"""
    target: str
    """data set whose training images are used without their labels, or a path"""
    source_test: str | None = None
    """labelled source images to test on; left out: the data set's own, or as `held_out` says"""
    target_test: str | None = None
    """labelled target images to test on; left out: the data set's own, all of SET/DOMAIN, or none"""
    unknown: Literal["error", "class"] = "error"
    """what labelled target images are of classes that the source does not have: an error, or of one class more, unknown, which
    no image is trained as"""
    target_held_out: float = Field(default=0.1, ge=0, le=0.5)
    """the share of target images that no method trains on: label-free scores, estimates and warnings read them. At least 200 and
    at most 2,000 images; none of fewer than 2,000. 0: all are trained on, and what is said of them without labels is less sure"""
    held_out: bool = True
    """whether every tenth labelled image of your own source is kept for testing; false: all train and are tested on, too"""
    classes: tuple[str, ...] | None = None
    """the class names in the order of the classifier's outputs; left out: folders in alphabetical order"""
    size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """side of the square that all images are brought to, pixels; left out: 32, or that of your source images"""
    resize: PositiveInt | None = None
    """what an image's short side is brought to before the central square of side `size` is cut out; left out: `size`"""
    interpolation: Interpolation | None = None
    """how images are brought to another size: bilinear, bicubic or nearest; left out: bilinear"""
    channels: Literal[1, 3] | None = None
    """3: grey images are copied to three channels; 1: colour images are turned to grey; left out: 1 if all are grey"""
    memory: float = Field(default=1.0, ge=0)
    """GiB: images of your own that take more than this, decoded, are decoded when needed instead"""
    looked_at: PositiveInt = 200_000
    """so many images of your own are all decoded once before training; of more, so many are, evenly spaced, and those that turn
    out to be damaged in training are replaced by others"""

    paired_test: bool = False
    """whether the n-th test images of both domains show the same: then translations are compared with the truth"""
    target_inverted_copies: bool = False
    """whether the target's training images are doubled by their negatives"""

    views: ViewSettings = ViewSettings()
    """the views of each image that a frozen body computes once (classifier.trainable)"""
    drawn_size: PositiveInt = 64
    """side of what a method draws where a body is frozen; real images are brought to it before anything compares the two"""
    drawn_read_size: PositiveInt | None = None
    """side that a frozen body reads both at, such as 128, which takes a third of the time of 224; left out: `size`"""

    @field_validator("classes")
    @classmethod
    def _told_apart(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = [name for name in dict.fromkeys(names or ()) if (names or ()).count(name) > 1]
        if twice:
            raise ValueError(f"the class {twice[0]!r} is named twice; name each once")
        return names

    @property
    def frame(self) -> Frame:
        """How every image is brought to `shape`."""
        channels, size, _ = self.shape
        return Frame(size, channels, self.resize, self.interpolation or "bilinear")

    @property
    def drawn_frame(self) -> Frame:
        """How an image is brought to the side of those that are drawn: the same part of it as `frame` takes."""
        resize = self.resize and round(self.drawn_size * self.resize / self.frame.size)
        return self.frame._replace(size=self.drawn_size, resize=resize)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, S, S) of every image; known once `size` and `channels` are."""
        assert self.size is not None
        assert self.channels is not None
        return self.channels, self.size, self.size


class AugmentationSettings(Section):
    """Random changes of training images, by domain."""

    source: Augment = Augment()
    target: Augment = Augment()
