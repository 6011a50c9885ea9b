"""The paper's tables as they are printed, and what it says of its figures.

Cao et al., Efficient-VQGAN, ICCV 2023, arXiv 2310.05400. A number that a table takes from elsewhere
stands here as the table has it.
"""

from typing import Any, NamedTuple

OOM = "OOM"


class Table(NamedTuple):
    """A table of the paper.

    name: "Table 1", its title: what it is about.
    columns: of its rows, the first of which is "system".
    rows: one tuple of values each, None where the paper has no number.
    card: what the paper says its numbers were measured on.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    card: dict[str, str]


TABLE1 = Table(
    "Table 1",
    "reconstruction of validation images",
    ("system", "data", "codes", "latent", "rfid"),
    (
        ("VQGAN", "FFHQ", 1024, "16x16", 4.39),
        ("ViT-VQGAN", "FFHQ", 8192, "32x32", 3.13),
        ("ours", "FFHQ", 1024, "16x16", 3.38),
        ("ours", "FFHQ", 1024, "32x32", 2.72),
        ("VQGAN", "ImageNet", 16384, "16x16", 4.98),
        ("VQGAN, Gumbel-Softmax", "ImageNet", 8192, "32x32", 1.49),
        ("VQGAN, multi-scale", "ImageNet", 512, "64x64 & 32x32", 1.45),
        ("ViT-VQGAN", "ImageNet", 8192, "32x32", 1.55),
        ("ours", "ImageNet", 1024, "16x16", 2.34),
        ("ours", "ImageNet", 1024, "32x32", 0.95),
    ),
    {"section": "4.1", "images": "256x256, validation split", "device": "not said"},
)
TABLE2 = Table(
    "Table 2",
    "speed of reconstruction",
    ("system", "factor", "latent", "images_per_second", "rfid"),
    (
        ("VQGAN", 16, "16x16", 112, 4.98),
        ("ours", 16, "16x16", 142, 2.34),
        ("VQGAN", 8, "32x32", 103, 1.49),
        ("ViT-VQGAN", 8, "32x32", 95, 1.55),
        ("ours", 8, "32x32", 108, 0.95),
    ),
    {
        "section": "4.1",
        "images": "256x256, ImageNet",
        "device": "one A100-80GB; batch and precision not said",
    },
)
TABLE3 = Table(
    "Table 3",
    "generation of faces",
    ("system", "data", "fid"),
    (
        ("NVAE", "CelebA-HQ", 40.3),
        ("VAEBM", "CelebA-HQ", 20.4),
        ("Style ALAE", "CelebA-HQ", 19.2),
        ("DC-VAE", "CelebA-HQ", 15.8),
        ("StyleSwin", "CelebA-HQ", 3.25),
        ("VQGAN", "CelebA-HQ", 10.2),
        ("VIM-Large", "CelebA-HQ", 7.0),
        ("ours", "CelebA-HQ", 7.81),
        ("BigGAN", "FFHQ", 12.4),
        ("ImageBART", "FFHQ", 9.57),
        ("GANformer", "FFHQ", 7.42),
        ("VQ-Diffusion", "FFHQ", 6.33),
        ("StyleGAN-XL", "FFHQ", 2.19),
        ("VQGAN", "FFHQ", 9.6),
        ("VIM-Large", "FFHQ", 5.3),
        ("ours", "FFHQ", 5.28),
    ),
    {"section": "4.2", "images": "256x256; samples and reference not said", "device": "not said"},
)
TABLE4 = Table(
    "Table 4",
    "generation of faces at high resolution",
    ("system", "data", "size", "fid"),
    (
        ("StyleGAN-XL", "FFHQ", 1024, 2.02),
        ("StyleGAN2", "FFHQ", 1024, 2.84),
        ("HiT-B", "FFHQ", 1024, 6.37),
        ("ours", "FFHQ", 1024, 11.81),
        ("StyleALAE", "FFHQ", 1024, 13.09),
    ),
    {"section": "4.2", "images": "1024x1024; samples and reference not said", "device": "not said"},
)
TABLE5 = Table(
    "Table 5",
    "generation of images of a class",
    ("system", "data", "acceptance", "fid", "inception_score"),
    (
        ("IDDPM", "ImageNet", 1.0, 12.3, None),
        ("StyleGAN-XL", "ImageNet", 1.0, 2.3, 265.12),
        ("VQ-Diffusion", "ImageNet", 1.0, 11.89, None),
        ("ADM-G", "ImageNet", 1.0, 10.94, 101),
        ("VIM-Base", "ImageNet", 1.0, 11.2, 97.2),
        ("MaskGIT", "ImageNet", 1.0, 6.18, 182.1),
        ("VQGAN", "ImageNet", 1.0, 17.04, 70.6),
        ("VQGAN", "ImageNet", 0.5, 10.26, 125.5),
        ("ours", "ImageNet", 1.0, 9.92, 82.2),
        ("ours", "ImageNet", 0.5, 6.81, 135.84),
    ),
    {
        "section": "4.2",
        "images": "256x256; acceptance by ResNet-101; samples and reference not said",
        "device": "not said",
    },
)
TABLE6 = Table(
    "Table 6",
    "memory of a training step of stage 2",
    ("system", "parameters", "latent", "mib"),
    tuple(
        (system, parameters, latent, mib)
        for system, parameters, row in (
            ("VQGAN", "1.4B", (21848, OOM, OOM)),
            ("VIM-Base", "650M", (11638, OOM, OOM)),
            ("MaskGIT", "227M", (6780, 49056, OOM)),
            ("ours", "185M", (5560, 14154, 58096)),
        )
        for latent, mib in zip((32, 64, 128), row, strict=True)
    ),
    {"section": "4.2", "device": "not said", "batch, precision and optimizer": "not said"},
)
TABLE7 = Table(
    "Table 7",
    "two generators on VQGAN's tokenizer",
    ("system", "data", "fid"),
    (
        ("ours on VQGAN's tokenizer", "FFHQ", 7.5),
        ("VQGAN", "FFHQ", 9.6),
        ("ours on VQGAN's tokenizer", "ImageNet", 13.67),
        ("VQGAN", "ImageNet", 17.04),
    ),
    {"section": "4.2", "images": "256x256; samples and reference not said", "device": "not said"},
)

# Figures have no numbers in the text: what the paper says of them.
FIGURES = {
    "fig1": (
        "paper, Fig. 1: where a block of ViT-VQGAN's tokens is replaced by one token, the "
        "surroundings alone change"
    ),
    "fig8": (
        "paper, Fig. 8 (256x256, 16x16 tokens): of W_s = 2, 4, 8, 16 the best FID has 8; 16 is one "
        "block, as MaskGIT decodes, and bad; of T = 4, 8, 12, 16, 24, 32 the best FID has 8"
    ),
    "fig9": (
        "paper, Fig. 9: with W_s = 1 ours is an autoregressive model, as VQGAN's; the larger W_s, "
        "the faster"
    ),
}
