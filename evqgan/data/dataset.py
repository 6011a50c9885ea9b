"""config.dataset: which images, of which size, and how they are cropped."""

import dataclasses
from typing import Literal, get_args

from evqgan.core import build
from evqgan.core.errors import InputError, size_text
from evqgan.core.kinds import Positive, PositiveShare, Share

Crop = Literal["resize", "random_resized", "native", "centre", "adm"]
CROPS = get_args(Crop)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What config.dataset says; raises InputError on values that make no sense.

    name: a tfds data set ("imagenet2012", "celeb_a_hq/256"), "digits", "photographs", "drawings" or
      "generated"; not beside `folder`.
    folder: a folder of images, a class per sub-folder or none; not beside `name`.
    data_dir: where tfds keeps its data; "" = TFDS_DATA_DIR or tfds' default.
    train: the split that is trained on, with a slice as in tfds if need be ("train[:90%]"); for
      those of a folder see `folder.layout`.
    validation: the split that is held out, named in the same way.
    size: side of the images, or (H, W).
    crop: what is shown of an image in training (`views`):
      "resize": scaled to cover the size, then a random part (for ImageNet VQGAN's, RQ-VAE's and
      an open ViT-VQGAN's);
      "random_resized": a random part of the size's shape, with min_scale to 1 of the largest area
      that fits, scaled (RQ-VAE for FFHQ, with 0.75; MaskGIT's RandomResizeAndCrop);
      "native": a random part, not scaled (VQGAN's crops of faces);
      "centre": as in validation;
      "adm": as in validation, by the filters of ADM (`transforms.adm_crop`; square images alone),
      against whose reference images FID is measured.
      In validation it is the centre of the image, scaled until it covers the size, but with
      "native" not scaled.
    min_scale: the smallest share of the largest area that "random_resized" takes.
    flip: mirror one image in two in training (RQ-VAE, ViT-VQGAN).
    image_key: the feature of a tfds data set that has the image.
    label_key: the feature that has the label; "" reads no labels, and of a folder no classes.
    classes: how many classes "generated" has.
    num_examples: how many training images "generated" has, and an eighth as many held out.
    max_bad: the share of undecodable images above which it stops.
    codes: a folder of stored ids of this data set (`data.stored_ids`), made by --mode=encode, from
      which stage 2 then trains without images. "" = stage 2 encodes the images of every step.
    workers: processes that read the images of training, in each process of a run; 0: threads do.
    """

    name: str = ""
    folder: str = ""
    data_dir: str = ""
    train: str = "train"
    validation: str = "validation"
    size: Positive | tuple[Positive, Positive] = 256
    crop: Crop = "resize"
    min_scale: PositiveShare = 0.75
    flip: bool = True
    image_key: str = "image"
    label_key: str = "label"
    classes: int = 0
    num_examples: Positive = 1024
    max_bad: Share = 0.01
    codes: str = ""
    workers: int = 0

    def __post_init__(self) -> None:
        build.check(Dataset, build.plain(vars(self)), "config.dataset")
        if bool(self.name) == bool(self.folder):
            given = f"both {self.name!r} and {self.folder!r}" if self.name else "neither"
            raise InputError(
                f"config.dataset expects one of name (such as digits) and folder, got {given}"
            )
        if self.crop == "adm" and self.shape[0] != self.shape[1]:
            raise InputError(
                "config.dataset.crop = 'adm' makes square images, config.dataset.size is "
                f"{size_text(self.shape)}: give one side, or another crop"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """The images' (height, width)."""
        if isinstance(self.size, int):
            return self.size, self.size
        height, width = self.size
        return height, width

    def of_images(self) -> "Dataset":
        """Return the same data set, whose images are read even where there are stored ids."""
        return dataclasses.replace(self, codes="")
