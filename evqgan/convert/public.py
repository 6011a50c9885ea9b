"""The table of public models: their files, what is known of them, licences.

Where no public text states a size or a sha256, there is None: nothing here is guessed. `known`
says what stands behind a number. None of these files was at hand when the table was written.
"""

import dataclasses
from collections.abc import Mapping

from evqgan.convert.systems import Given
from evqgan.core import public_names

KOOFR = "https://app.koofr.net"
HEIBOX = "https://heibox.uni-heidelberg.de/d"
KAKAO = "https://twg.kakaocdn.net/brainrepo/models/RQVAE"
MASKGIT = "https://storage.googleapis.com/maskgit-public/checkpoints"
MASKGIT_TORCH = "https://github.com/hmorimitsu/maskgit-torch/releases/download/weights"
DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
NOTHING = Given()


@dataclasses.dataclass(frozen=True)
class PublicFile:
    """A file of a public model, or a file in an archive."""

    url: str
    name: str  # what it is called here
    size: int | None = None  # bytes
    sha256: str | None = None
    md5: str | None = None
    page: str = ""  # the page that links it, where its server wants to hear of it
    member: str = ""  # the end of a path in the archive (.tar.gz) of that name, "" for no archive
    known: str = "no public hash or size is known"


@dataclasses.dataclass(frozen=True)
class Source:
    """Files that make one model; a file may hold both parts."""

    tokenizer: PublicFile
    generator: PublicFile | None = None
    note: str = ""  # what is known of the server, or of who made the files


@dataclasses.dataclass(frozen=True)
class PublicModel:
    """A public model and how it becomes a workdir."""

    title: str
    system: str  # of `systems.SYSTEMS`
    sources: Mapping[str, Source]  # the official one is called "official", and is taken by default
    code: str  # licence
    weights: str  # licence
    given: Given = NOTHING  # what the weights do not tell


def _maskgit(size: int) -> PublicModel:
    """Return MaskGIT of images of a size."""

    def source(base: str, ending: str, note: str) -> Source:
        first, second = (f"{part}_imagenet{size}{ending}" for part in ("tokenizer", "maskgit"))
        tokenizer = PublicFile(f"{base}/{first}", first)
        return Source(tokenizer, PublicFile(f"{base}/{second}", second), note)

    closed = "Google's bucket answers AccessDenied, as one public repository reports (2026)"
    ported = "the same weights in PyTorch's form, made by Henrique Morimitsu, a third party"
    return PublicModel(
        f"MaskGIT, ImageNet {size}x{size}, by class",
        "maskgit",
        {
            "official": source(MASKGIT, "_checkpoint", closed),
            "maskgit-torch": source(MASKGIT_TORCH, ".ckpt", ported),
        },
        "Apache-2.0 (google-research/maskgit)",
        "not stated apart from the code's Apache-2.0",
        Given(size=size),
    )


def _taming(
    title: str, file: PublicFile, both: bool = False, given: Given = NOTHING
) -> PublicModel:
    """Return a model of taming-transformers; both: its one file holds a generator, too."""
    note = "the server may refuse visitors who do not come from its page, which is sent along"
    source = Source(file, file if both else None, note if file.page else "")
    licence = "MIT (CompVis/taming-transformers)"
    weights = "not stated apart from the code's MIT"
    return PublicModel(title, "taming", {"official": source}, licence, weights, given)


def _heibox(folder: str, name: str, size: int, sha256: str | None, known: str) -> PublicFile:
    """Return the checkpoint in a shared folder of the University of Heidelberg."""
    url = f"{HEIBOX}/{folder}/files/?p=%2Fckpts%2Flast.ckpt&dl=1"
    return PublicFile(url, name, size, sha256, known=known)


def _koofr(link: str, run: str, known: str) -> PublicFile:
    """Return the checkpoint of a run of taming-transformers in a shared folder."""
    place = f"{KOOFR}/content/links/{link}/files/get/last.ckpt"
    url = f"{place}?path=%2F{run}%2Fcheckpoints%2Flast.ckpt&force"
    return PublicFile(url, f"{run}.ckpt", page=f"{KOOFR}/links/{link}", known=known)


def _rq(title: str, md5: str, name: str) -> PublicModel:
    """Return an RQ-VAE with its RQ-Transformer; the address names the md5 of the archive."""
    known = (
        "the address names the md5, as kakaobrain's addresses do; one public project found it so"
        if name in ("imagenet_480M", "church")
        else "the address names the md5, as kakaobrain's addresses do"
    )
    archive = PublicFile(f"{KAKAO}/{md5}/{name}.tar.gz", f"{name}.tar.gz", md5=md5, known=known)
    first, second = (dataclasses.replace(archive, member=f"stage{i}/model.pt") for i in (1, 2))
    note = "twg.kakaocdn.net; the older arena.kakaocdn.net is no longer linked"
    return PublicModel(
        title,
        "rqvae",
        {"official": Source(first, second, note)},
        "Apache-2.0 (kakaobrain/rq-vae-transformer)",
        "CC-BY-NC-SA 4.0",
    )


def _vitvqgan(size: str, drive: str) -> PublicModel:
    """Return a ViT-VQGAN of enhancing-transformers."""
    file = PublicFile(f"{DRIVE}{drive}", f"imagenet_vitvq_{size}.ckpt")
    page = f"huggingface.co/thuanz123/vitvqgan-imagenet-{size}"
    note = f"its README's file of 2022; today it links {page}, whose files no public text names"
    licence = "MIT (thuanz123/enhancing-transformers)"
    title = f"ViT-VQGAN {size}, ImageNet 256x256: a tokenizer"
    return PublicModel(title, "vitvqgan", {"official": Source(file, note=note)}, licence, "MIT")


RQ = "RQ-VAE and RQ-Transformer"
TABLE: dict[str, PublicModel] = {
    "maskgit-imagenet256": _maskgit(256),
    "maskgit-imagenet512": _maskgit(512),
    "vqgan-imagenet-f16-1024": _taming(
        "VQGAN, ImageNet, 16x16 tokens of 1,024 codes: a tokenizer",
        _heibox(
            "8088892a516d4e3baf92",
            "vqgan_imagenet_f16_1024.ckpt",
            size=957_954_257,
            sha256=None,
            known="size: a log of wget in CompVis/taming-transformers#38; no public hash is known",
        ),
    ),
    "vqgan-imagenet-f16-16384": _taming(
        "VQGAN, ImageNet, 16x16 tokens of 16,384 codes: a tokenizer",
        _heibox(
            "a7530b09fed84f80a887",
            "vqgan_imagenet_f16_16384.ckpt",
            size=980_092_370,
            sha256="845a68805098cb666420d5db93df53f3a3b6dd443e6dd85c05759c5b998cd663",
            known="sha256: alike in six public files of four projects or more; size: in two",
        ),
    ),
    "vqgan-gumbel-f8-8192": _taming(
        "VQGAN with Gumbel's quantizer, OpenImages, 32x32 tokens of 8,192 codes: a tokenizer",
        _heibox(
            "2e5662443a6b4307b470",
            "vqgan_gumbel_f8.ckpt",
            size=376_581_823,
            sha256="5cd6c74810ab97e00e942c25403f73afc081e8b19987b31ec0d9ff5b68e7ab14",
            known="sha256: alike in five public files of three projects; size: in two of them",
        ),
    ),
    "vqgan-ffhq-f16-1024": _taming(
        "VQGAN, FFHQ 256x256, 16x16 tokens of 1,024 codes, with its transformer",
        _koofr(
            "0fc005bf-3dca-4079-9d40-cdf38d42cd7a",
            "2021-04-23T18-19-01_ffhq_transformer",
            "about 3.5 GB, as one public repository says; no public hash is known",
        ),
        both=True,
    ),
    "taming-imagenet256": _taming(
        "taming's transformer by class (1.4 G) on VQGAN f16-16384, ImageNet 256x256",
        _koofr(
            "90cbd5aa-ef70-4f5e-99bc-f12e5a89380e",
            "2021-04-03T19-39-50_cin_transformer",
            "no public hash or size is known",
        ),
        both=True,
        given=Given(classes=1000),
    ),
    "rqtransformer-imagenet-480m": _rq(
        f"{RQ} (480 M), ImageNet 256x256, by class",
        "7518a004fe39120fcffbba76005dc6c3",
        "imagenet_480M",
    ),
    "rqtransformer-imagenet-821m": _rq(
        f"{RQ} (821 M), ImageNet 256x256, by class",
        "dcd39292319104da5577dec3956bfdcc",
        "imagenet_821M",
    ),
    "rqtransformer-imagenet-1400m": _rq(
        f"{RQ} (1.4 G), ImageNet 256x256, by class",
        "f5cf4e5f3f0b5088d52cbb5e85c1077f",
        "imagenet_1.4B",
    ),
    "rqtransformer-imagenet-1400m-50e": _rq(
        f"{RQ} (1.4 G, on the RQ-VAE of 50 epochs), ImageNet 256x256, by class",
        "6714b47bb9382076923590eff08b1ee5",
        "imagenet_1.4B_rqvae_50e",
    ),
    "rqtransformer-imagenet-3800m-50e": _rq(
        f"{RQ} (3.8 G, on the RQ-VAE of 50 epochs), ImageNet 256x256, by class",
        "e1ee2fef2928f7fd31f53a8348f08b88",
        "imagenet_3.8B_rqvae_50e",
    ),
    "rqtransformer-ffhq": _rq(
        f"{RQ} (355 M), FFHQ 256x256", "d47570aeff6ba300735606a806f54663", "ffhq"
    ),
    "rqtransformer-church": _rq(
        f"{RQ} (370 M), LSUN churches 256x256", "deeb3e0ac6e09923754e3e594ede7b01", "church"
    ),
    "rqtransformer-cat": _rq(
        f"{RQ} (612 M), LSUN cats 256x256", "92b4e6a9ace09c9ab8ff9d3b3e688367", "cat"
    ),
    "rqtransformer-bedroom": _rq(
        f"{RQ} (612 M), LSUN bedrooms 256x256", "06b72c164cd2fe64fc8ebd6b42b0040f", "bedroom"
    ),
    "vitvqgan-imagenet-small": _vitvqgan("small", "1jbjD4q0iJpXrRMVSYJRIvM_94AxA1EqJ"),
    "vitvqgan-imagenet-base": _vitvqgan("base", "1syv0t3nAJ-bETFgFpztw9cPXghanUaM6"),
}


def listing() -> str:
    """Return the table as text: a line a model, and a line for each of its files."""
    lines = ["Public models, NAME --download:"]
    for name in public_names.NAMES:
        model = TABLE[name]
        lines += [f"  {name}  {model.title}"]
        lines += [f"      licence: code {model.code}; weights {model.weights}"]
        for source, files in model.sources.items():
            given = "" if source == "official" else f" (--source={source})"
            if files.note:
                lines += [f"      {source}{given}: {files.note}"]
            lines += [f"      {line}" for line in dict.fromkeys(map(_line, _files(files)))]
    return "\n".join(lines)


def _files(source: Source) -> list[PublicFile]:
    """Return the files of a source, one or two."""
    return [source.tokenizer, *([source.generator] if source.generator else [])]


def _line(file: PublicFile) -> str:
    """Return a line on a file."""
    size = f"{file.size:,} B, " if file.size else ""
    return f"{file.url}  {size}{file.known}"
