"""Public models by name: fetched from a server, verified, converted, and opened by their names.

The files are small stand-ins with the names, prefixes and layouts of the true ones.
"""

import dataclasses
import errno
import hashlib
import io
import json
import os
import tarfile

import flax.serialization
import flax.traverse_util
import numpy as np
import pytest
from ml_collections import ConfigDict
from test_convert import call, storage, table, tensor
from test_convert_models import MODELS, same, state_of, theirs
from test_download import server as server  # a fixture
from test_torch_files import zipped

import evqgan
from evqgan.convert import maskgit_torch, public, systems, workdirs
from evqgan.convert.systems import Given
from evqgan.core import config_files, exported
from evqgan.core import public_names as names
from evqgan.core.errors import InputError
from evqgan.export import card, gathered
from evqgan.export.sources import Source
from evqgan.training import initial_state, stage2

PAGE = b"<!DOCTYPE html><title>Quota exceeded</title>"
SIZE = 16  # of the images of the stand-ins
HEADS = {"heads": 4}
# Model: the system, and what the file does not tell of a stand-in.
STANDINS = {
    "maskgit-imagenet256": ("maskgit", Given(size=SIZE)),
    "taming-imagenet256": ("taming", Given(size=SIZE, classes=3, **HEADS)),
    "rqtransformer-imagenet-480m": ("rqvae", Given(size=SIZE, **HEADS)),
    "vitvqgan-imagenet-base": ("vitvqgan", Given()),
}
ALWAYS = ("taming-imagenet256",)  # the others, which are handled alike, in the slow run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVQGAN_MODELS", str(tmp_path / "models"))


@pytest.fixture(scope="module")
def arrays():
    """Return {system: (the tokenizer's arrays, the generator's, our trees of both)}."""
    return {name: theirs(name) for name in MODELS}


def torch_file(place, prefix="", more=None, **groups):
    """Return the bytes of a checkpoint {group: {prefix + name: tensor}, ...}.

    more: other entries, as opcodes, such as those that Lightning adds.
    """
    found, data = {}, []
    for group, weights in groups.items():
        entries = {}
        for name, given in weights.items():
            array, key = np.array(given, np.float32, order="C"), str(len(data))
            strides = [stride // 4 for stride in array.strides]
            at = storage(array.size, key=key)
            entries[prefix + name] = tensor(at, 0, array.shape, strides)
            data.append((f"data/{key}", array.tobytes()))
        found[group] = table(**entries)
    return zipped(place / "made.ckpt", table(**found, **(more or {})), data).read_bytes()


def msgpack(weights):
    """Return the bytes of a flax checkpoint of {"/"-separated path: array}."""
    tree = flax.traverse_util.unflatten_dict(
        {f"params/{k}": x for k, x in weights.items()}, sep="/"
    )
    return flax.serialization.msgpack_serialize(tree)


def archive(**members):
    """Return a .tar.gz with these files in folders."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"imagenet_480M/{name}/model.pt")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def files_of(name, place, first, second):
    """Return {file name: bytes} as the true files of a model hold a tokenizer and a generator."""
    if name.startswith("maskgit"):
        files = {"tokenizer_imagenet256_checkpoint": msgpack(first)}
        return files | {"maskgit_imagenet256_checkpoint": msgpack(second)}
    if name.startswith("taming"):  # Lightning's, of both parts
        both = systems.TAMING[1](first, second)
        lightning = {"epoch": b"K\x07", "global_step": b"K\x09"}
        data = torch_file(place, more=lightning, state_dict=both)
        return {"2021-04-03T19-39-50_cin_transformer.ckpt": data}
    if name.startswith("rq"):
        stages = torch_file(place, state_dict=first), torch_file(place, state_dict=second)
        return {"imagenet_480M.tar.gz": archive(stage1=stages[0], stage2=stages[1])}
    first = {**first, "loss.discriminator.x": np.ones(2)}
    data = torch_file(place, state_dict=first, more={"pytorch-lightning_version": b"K\x01"})
    return {"imagenet_vitvq_base.ckpt": data}


def served(monkeypatch, server, name, files, given=None, source="official", **known):
    """Have the server give the files of a model, whose table then says what is `known` of them."""
    model = public.TABLE[name]
    system, usual = STANDINS[name]
    assert system == model.system
    server.files.update({f"/{file}": data for file, data in files.items()})
    base = server.url.rpartition("/")[0]

    def moved(file):
        unknown = {"size": None, "sha256": None, "md5": None}
        return dataclasses.replace(file, url=f"{base}/{file.name}", **{**unknown, **known})

    parts = model.sources[source]
    second = parts.generator and moved(parts.generator)
    sources = {**model.sources, source: public.Source(moved(parts.tokenizer), second, parts.note)}
    model = dataclasses.replace(model, sources=sources, given=given or usual)
    monkeypatch.setitem(public.TABLE, name, model)


def home(name):
    return names.folder(name)


def left():
    """What lies in the cache of models, as relative paths of its top."""
    return sorted(os.listdir(names.home())) if names.home().is_dir() else []


def test_the_table_names_every_model_and_guesses_nothing():
    assert tuple(public.TABLE) == names.NAMES
    listing = public.listing()
    for name, model in public.TABLE.items():
        assert model.system in systems.SYSTEMS and name in listing
        for source in model.sources.values():
            for file in filter(None, (source.tokenizer, source.generator)):
                assert file.url.startswith("https://") and file.url in listing and file.known
                assert "/" not in file.name and len(file.sha256 or "0" * 64) == 64
                assert len(file.md5 or "0" * 32) == 32 and (file.md5 or "") in file.url
                assert file.size or file.sha256 is None  # whoever knew the hash, knew the size
                assert (file.sha256 or file.size is None) or "no public hash" in file.known


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.slow) for name in STANDINS],
)
def test_a_model_is_fetched_converted_and_opened_by_its_name(
    name, arrays, server, monkeypatch, tmp_path, capsys
):
    first, second, *trees = arrays[STANDINS[name][0]]
    served(monkeypatch, server, name, files_of(name, tmp_path, first, second))
    with pytest.raises(InputError, match=f"`python -m evqgan.convert {name} --download` fetches"):
        evqgan.load(name)
    code, out, _ = call(capsys, name, "--download")
    assert code == 0 and "no public hash is known; its sha256 is" in "\n".join(out)
    assert out[-1] == f"use it by --workdir={name}, or evqgan.load({name!r})"
    assert out[-2].startswith("licence: code ") and left() == [name]
    both = name != "vitvqgan-imagenet-base"
    state = state_of(home(name) / "tokenizer" if both else home(name))
    same({"params": state["ema"], "codebook": state.get("codebook", {})}, trees[0])
    if both:
        state = state_of(home(name) / "generator")
        same({"params": state["ema"]}, trees[1])
        same({"codebook": {}, **state["tokenizer"]}, trees[0])
    kept = json.loads((home(name) / names.SOURCE).read_text())
    assert set(kept["weights"].values()) == {"the file's only ones"}
    for file in kept["files"]:
        data = server.files[f"/{file['file']}"]
        assert file["sha256"] == hashlib.sha256(data).hexdigest() and file["verified"] == "no"
    assert exported.results(name) == exported.results(home(name))
    assert exported.results(name).parts == ("workdirs", name)
    model, asked = evqgan.load(name), len(server.requests)
    assert model.reconstruct(np.zeros((SIZE, SIZE, 3), np.uint8)).shape == (1, SIZE, SIZE, 3)
    code, out, _ = call(capsys, name, "--download")
    assert (code, len(out)) == (0, 1) and f"is there already: {name}" in out[0]
    assert len(server.requests) == asked


def refused(capsys, message, *args):
    """Return the one line that a command ends in, after lines of progress; nothing is made."""
    before = left()
    code, _, err = call(capsys, *args)
    assert code == 2 and err[-1].startswith("error: ") and message in err[-1], err
    assert [x for x in left() if not x.endswith(".download")] == [
        x for x in before if not x.endswith(".download")
    ]
    return err[-1]


VQ = "vitvqgan-imagenet-base"  # of one file


@pytest.fixture
def vitvqgan(arrays, server, monkeypatch, tmp_path):
    """Return a function that has the server give a ViT-VQGAN, changed and known as it says."""
    data = files_of(VQ, tmp_path, *arrays["vitvqgan"][:2])["imagenet_vitvq_base.ckpt"]

    def serve(change=lambda data: data, **known):
        served(monkeypatch, server, VQ, {"imagenet_vitvq_base.ckpt": change(data)}, **known)
        return data

    return serve


def test_a_cut_download_goes_on_if_that_is_safe(vitvqgan, server, capsys):
    data = vitvqgan()
    server.cuts, server.tag = [len(data) // 2], '"one"'
    assert call(capsys, VQ, "--download", "a")[0] == 0
    assert [at is None for _, at, _ in server.requests] == [True, False]
    server.requests, server.cuts, server.tag = [], [len(data) // 2], ""
    assert call(capsys, VQ, "--download", "b")[0] == 0  # no hash, no tag: it could be another file
    assert [at for _, at, _ in server.requests] == [None, None]
    assert state_of("a")["step"] == 0 and not os.path.exists("a.download")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("change", "known", "message"),
    [
        (lambda data: data + b"x", lambda data: {"sha256": sha256(data)}, "the sha256 is"),
        (lambda data: data[:-9] + b"x" * 9, lambda data: {"md5": "0" * 32}, "the md5 is"),
        (lambda data: data[:-1], lambda data: {"size": len(data)}, "bytes, not"),
        (lambda data: PAGE, lambda data: {}, "it is a web page"),
        (lambda data: b"<?xml version='1.0'?><Error>", lambda data: {}, "it is a web page"),
        (lambda data: data[: len(data) // 2], lambda data: {}, "damaged"),
        (lambda data: b"\x80\x02}q", lambda data: {}, "expected a PyTorch checkpoint"),
    ],
)
def test_what_is_not_the_file_is_not_converted(vitvqgan, change, known, message, capsys):
    vitvqgan(change, **known(vitvqgan()))
    line = refused(capsys, message, VQ, "--download")
    assert "imagenet_vitvq_base.ckpt" in line and not os.path.exists(names.folder(VQ))


def test_a_full_disk_leaves_what_was_fetched_and_no_model(vitvqgan, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "there")

    vitvqgan()
    monkeypatch.setattr(workdirs.Checkpoints, "save", full)
    refused(capsys, "No space left on device", VQ, "--download")
    assert os.listdir(names.home() / f"{VQ}.download") == ["imagenet_vitvq_base.ckpt"]


def test_a_known_hash_is_said_and_kept(vitvqgan, server, capsys):
    data = vitvqgan()
    vitvqgan(size=len(data), sha256=sha256(data))
    code, out, _ = call(capsys, VQ, "--download")
    assert code == 0 and "the sha256 is right" in out[0]
    kept = json.loads((home(VQ) / names.SOURCE).read_text())
    assert kept["files"][0]["verified"] == "sha256" and kept["source"] == "official"
    assert kept["licences"]["weights"] == "MIT" and kept["files"][0]["bytes"] == len(data)


def test_a_file_that_was_fetched_elsewhere(vitvqgan, tmp_path, capsys):
    data = vitvqgan()
    vitvqgan(size=len(data), sha256="0" * 64)
    place = tmp_path / "there"
    place.mkdir()
    refused(capsys, "there is no file", VQ, place)
    (place / "imagenet_vitvq_base.ckpt").write_bytes(data)
    code, out, _ = call(capsys, VQ, place, tmp_path / "mine")
    assert code == 0 and "another file than the published one" in out[0]
    assert out[-1].startswith(f"use it by --workdir={tmp_path}/mine,") and left() == []
    assert (place / "imagenet_vitvq_base.ckpt").is_file()
    assert evqgan.load(tmp_path / "mine").generator is None


def test_wrong_arguments_are_one_line(capsys, tmp_path):
    name = "maskgit-imagenet256"
    refused(capsys, "give --download to fetch its files, or their folder", name)
    refused(capsys, "--weights is raw or ema, not 'both'", name, "--download", "--weights=both")
    refused(capsys, "did you mean 'maskgit-torch'?", name, "--download", "--source=maskgit-torc")
    refused(capsys, "did you mean 'maskgit-imagenet256'?", "maskgit-imagnet256", "--download")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    refused(capsys, "is something else: give a DEST", name, "--download", tmp_path / "taken")
    (tmp_path / "one").touch()
    refused(capsys, "expected a folder with tokenizer_imagenet256_checkpoint", name, "one", "new")
    code, out, _ = call(capsys, "--list")
    assert code == 0 and len(out) > len(names.NAMES)
    with pytest.raises(InputError, match="did you mean the model 'maskgit-imagenet256'"):
        evqgan.load("maskgit-imagenet265")


def test_raw_and_averaged_weights_are_never_chosen_silently(
    arrays, server, monkeypatch, tmp_path, capsys
):
    name = "rqtransformer-imagenet-480m"
    first, second, _, tree = arrays["rqvae"]
    raw = {key: x + 1 for key, x in second.items()}
    stage2 = torch_file(tmp_path, "module.", state_dict=raw, state_dict_ema=second)
    data = archive(stage1=torch_file(tmp_path, state_dict=first), stage2=stage2)
    served(monkeypatch, server, name, {"imagenet_480M.tar.gz": data}, md5=None)
    refused(capsys, "say which by --weights=raw or --weights=ema", name, "--download")
    asked = len(server.requests)
    code, out, _ = call(capsys, name, "--download", "--weights=ema")
    assert code == 0 and len(server.requests) == asked  # the archive was kept
    assert any(line.startswith("generator: ") and "its ema weights" in line for line in out)
    same({"params": state_of(home(name) / "generator")["ema"]}, tree)
    kept = json.loads((home(name) / names.SOURCE).read_text())["weights"]
    assert kept == {"tokenizer": "the file's only ones", "generator": "ema"}
    refused(capsys, "with its ema", name, "--download", "--weights=raw")


def test_averaged_weights_among_raw_ones_are_chosen_by_the_flag(vitvqgan, arrays, tmp_path, capsys):
    first, _, tree, _ = arrays["vitvqgan"]
    averaged = {f"model_ema.{key.replace('.', '')}": x for key, x in first.items()}
    more = {"model_ema.decay": np.ones(1), "model_ema.num_updates": np.ones(1)}
    both = {key: x + 1 for key, x in first.items()} | averaged | more
    vitvqgan(lambda _: torch_file(tmp_path, state_dict=both))
    refused(capsys, "say which by --weights=raw or --weights=ema", VQ, "--download")
    assert call(capsys, VQ, "--download", "--weights=ema")[0] == 0
    same(state_of(home(VQ))["ema"], tree["params"])
    assert json.loads((home(VQ) / names.SOURCE).read_text())["weights"] == {"tokenizer": "ema"}


def test_a_model_begins_a_training_by_its_name(vitvqgan, capsys):
    with pytest.raises(InputError, match=f"{VQ} is not converted yet"):
        initial_state.config_of(exported.find(VQ), "stage1")
    generator = ConfigDict({"tokenizer": {"weights": VQ}})
    with pytest.raises(InputError, match=f"{VQ} is not converted yet"):
        stage2.with_model(generator)
    vitvqgan()
    assert call(capsys, VQ, "--download")[0] == 0
    assert initial_state.config_of(exported.find(VQ), "stage1")["stage"] == "stage1"
    assert stage2.with_model(generator).tokenizer.model.encoder.name == "vit"


def test_a_damaged_archive_and_one_of_something_else(server, monkeypatch, capsys):
    name = "rqtransformer-imagenet-480m"
    for data, message in (
        (archive(stage1=bytes(9000))[:60], "is damaged"),
        (archive(other=b"x"), "holds no stage1/model.pt"),
    ):
        served(monkeypatch, server, name, {"imagenet_480M.tar.gz": data}, md5=None)
        refused(capsys, message, name, "--download", f"{len(data)}")


def ported(original):
    """Return MaskGIT's weights as the notebooks of maskgit-torch rename and turn them."""
    found, fused = {}, {}
    last = max(
        (int(k.split("_")[1][0]) for k in original if k.startswith("decoder/Conv_")), default=0
    )
    for name, array in original.items():
        *layers, kind = name.split("/")
        kind = {"kernel": "weight", "scale": "weight"}.get(kind, kind)
        if layers[0].startswith("TransformerLayer_"):
            block, inner = f"blocks.{layers[0].split('_')[1]}", "/".join(layers[1:])
            if "self_attention" in inner:
                part, of = layers[-1], f"{block}.MultiHeadAttention"
                if part == "out":
                    turned = array.reshape(-1, array.shape[-1]).T if array.ndim > 1 else array
                    found[f"{of}.out_proj.{kind}"] = turned
                else:
                    turned = (
                        array.reshape(len(array), -1).T if array.ndim > 2 else array.reshape(-1)
                    )
                    fused.setdefault(f"{of}.in_proj_{kind}", {})[part] = turned
                continue
            new = {
                "Attention_0/attention_output_ln": "AttentionLN",
                "Mlp_0/layer_output_ln": "MlpLN",
                "Mlp_0/intermediate_output": "MLP.0",
                "Mlp_0/layer_output": "MLP.2",
            }[inner]
            found[f"{block}.{new}.{kind}"] = array.T
        elif layers[0] in ("encoder", "decoder") and layers[1].startswith("ResBlock_"):
            number = int(layers[1].split("_")[1])
            inner = {"GroupNorm_0": "norm0", "GroupNorm_1": "norm1", "Conv_2": "conv_res"}
            inner |= {"Conv_0": "conv0", "Conv_1": "conv1"}
            turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
            block = f"{layers[0]}.res_blocks.{number // 2}.{number % 2}"
            found[f"{block}.{inner[layers[2]]}.{kind}"] = turned
        elif layers[0] in ("encoder", "decoder"):
            turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
            number = int(layers[1].split("_")[1])
            outer = {0: "conv_in", last if layers[0] == "decoder" else 1: "conv_out"}
            place = outer.get(number, f"res_blocks.{number}.3")
            place = "norm_out" if "Norm" in layers[1] else place
            found[f"{layers[0]}.{place}.{kind}"] = turned
        else:
            new = {
                "Embed_0/position_embeddings/embedding": "pos_emb",
                "Embed_0/word_embeddings/embedding": "tok_emb.weight",
                "MlmLayer_0/mlm_bias/bias": "bias",
                "quantizer/codebook": "quantizer.codebook.weight",
            }
            above = {"embeddings_ln": "emb_ln", "mlm_dense": "Token_Prediction.0"}
            above |= {"mlm_ln": "Token_Prediction.2"}
            of = new.get(name) or f"{above[layers[-1]]}.{kind}"
            found[of] = array.T if layers[-1] == "mlm_dense" else array
    for name, parts in fused.items():
        found[name] = np.concatenate([parts[part] for part in ("query", "key", "value")])
    return found


def test_maskgit_from_its_port_where_the_official_server_is_closed(
    arrays, server, monkeypatch, tmp_path, capsys
):
    name, source = "maskgit-imagenet256", "maskgit-torch"
    first, second, *trees = arrays["maskgit"]
    monkeypatch.setattr(maskgit_torch, "HEADS", 4)
    files = {
        f"{part}_imagenet256.ckpt": torch_file(tmp_path, state_dict=ported(weights))
        for part, weights in (("tokenizer", first), ("maskgit", second))
    }
    assert "blocks.0.MultiHeadAttention.in_proj_weight" in ported(second)
    served(monkeypatch, server, name, {})
    server.status = 403
    line = refused(capsys, "the server answers 403", name, "--download")
    assert "take --source=maskgit-torch, the same weights in PyTorch's form" in line
    server.status = None
    served(monkeypatch, server, name, files, source=source)
    assert call(capsys, name, "--download", f"--source={source}")[0] == 0
    same({"params": state_of(home(name) / "generator")["ema"]}, trees[1])
    state = state_of(home(name) / "tokenizer")
    same({"params": state["ema"], "codebook": state.get("codebook", {})}, trees[0])
    assert json.loads((home(name) / names.SOURCE).read_text())["source"] == source
    assert config_files.of_tokenizer(name)[1] == home(name) / "tokenizer"
    assert config_files.of_workdir(name)[1] == home(name) / "generator"
    images = evqgan.load(name).generate(1, labels=2)
    assert images.shape == (1, SIZE, SIZE, 3) and not os.path.exists(name)
    found = gathered.gather(name)  # what is passed on says whose weights they are
    assert found.steps == {"tokenizer": 0, "generator": 0}  # converted, not trained here
    words = card.Card("x", found, Source("imagenet2012", licence="CC BY 4.0"), "float32", 1)
    for text in (words.training(), card.licences(words.source, found.origin)):
        assert "not stated apart from the code's Apache-2.0" in text and "0 steps" not in text
        assert "maskgit_imagenet256.ckpt: " in text
    assert words.head()["license"] == "other"
