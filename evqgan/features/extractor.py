"""Run a network of this folder with its weights, on all devices."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from evqgan.core import build, mesh, weights
from evqgan.core.errors import InputError
from evqgan.core.leafwise_init import Drawing
from evqgan.core.progress import heartbeat
from evqgan.features import FeaturesModule
from evqgan.features.names import name_of

EACH = 64  # ours: images that a device takes at a time; InceptionV3's maps are some 15 MB each


class Extractor:
    """Features of images by one network, in full precision, the same on any number of devices.

    network: the name of the module. untrained: whether its weights are random.
    widths: {"pooled": F, ...}, how many numbers there are of an image.
    """

    def __init__(
        self, config: Any, where: str, key: str, device_mesh: Mesh | None = None, side: int = 64
    ) -> None:
        """Build the network and read its weights.

        config: the name of a module in evqgan/features, or a dict of `name` and its keys.
        where: the folder of the weights, see `core.weights`; "random": of one seed, for tests.
        key: what the config is called in messages.
        device_mesh: the images are split over it; None: over the devices of this process.
        side: of the dummy image from which `widths` are computed; only features without a network
          depend on it.

        Raises InputError for a network or key that there is not, and without its weights.
        """
        self.network, self._model, pretrained = _network_of(config, key)
        self.untrained = bool(pretrained) and where == "random"
        self._mesh = device_mesh or mesh.make(devices=jax.local_devices())
        frozen, self.widths = self._weights(pretrained, where, side)
        self._frozen = jax.tree.map(self._replicated, frozen)
        self._card = card_of(config, where, key)
        self._run = jax.jit(self._on_all_devices, out_shardings=mesh.replicated(self._mesh))

    def __call__(self, images: Any) -> dict[str, np.ndarray]:
        """Return the features of images, float32 [B,...], whole on every process.

        images: uint8 [B,H,W,3]: NumPy, the same on every process, or a jax.Array over the mesh,
          with a B that its data x fsdp divide.
        """
        if isinstance(getattr(images, "sharding", None), NamedSharding):
            return jax.device_get(self._run(self._frozen, images))
        number, ways = len(images), mesh.ways(self._mesh)
        size = -(-number // ways) * ways
        index = np.minimum(mesh.rows(self._mesh, size), number - 1)  # the last one fills it up
        batch = mesh.put(np.asarray(images)[index], self._mesh, size)
        made = jax.device_get(self._run(self._frozen, batch))
        return {name: x[:number] for name, x in made.items()}

    def pieces(self, images: np.ndarray) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Yield the features of uint8 [N,H,W,3], EACH images at a time, and which of them count.

        The last piece is filled up, so that any N is one program.
        """
        for start in range(0, len(images), EACH):
            index = np.arange(start, start + EACH)
            yield self(images[index.clip(max=len(images) - 1)]), index < len(images)

    def name_of(self, number: str, prefix: str = "") -> str:
        """Return what a number of these features is called, see `names.name_of`."""
        return name_of(number, self.network, self.untrained, prefix)

    def card(self) -> dict[str, Any]:
        """Return what `card_of` says of these features."""
        return {**self._card, "weights": dict(self._card["weights"])}

    def _replicated(self, x: Any) -> jax.Array:
        """Return an array that every process has, as one of all devices of the mesh."""
        everywhere, x = mesh.replicated(self._mesh), np.asarray(x)
        return jax.make_array_from_callback(x.shape, everywhere, lambda index: x[index])

    def _weights(
        self, pretrained: dict[str, str], where: str, side: int
    ) -> tuple[dict[str, Any], dict[str, int]]:
        """Return the variables in the collection `frozen`, and `widths`."""
        image = jnp.zeros((1, side, side, 3), jnp.uint8)

        def init(key: jax.Array) -> Any:
            return self._model.init_with_output(key, image)

        made, variables = jax.eval_shape(init, jax.random.key(0))
        frozen = variables.get("frozen", {})
        if self.untrained:
            with heartbeat(f"drawing untrained weights of {self.network}"):
                frozen = Drawing(lambda: init(jax.random.key(0))[1]["frozen"])()
        else:
            frozen = weights.fill(frozen, pretrained, where)
        return frozen, {name: x.shape[1] for name, x in made.items()}

    def _on_all_devices(self, frozen: dict, images: jax.Array) -> dict[str, jax.Array]:
        """Return the features of images [B,H,W,3]; every device runs the same on its own."""
        split = mesh.batch_sharding(self._mesh).spec
        alone = jax.shard_map(
            self._on_one_device,
            mesh=self._mesh,
            in_specs=(PartitionSpec(), split),
            out_specs=split,
            check_vma=False,
        )
        return alone(frozen, images)

    def _on_one_device(self, frozen: dict, images: jax.Array) -> dict[str, jax.Array]:
        """Return the features of a device's images [b,H,W,3], EACH of them at a time."""

        def features(images: jax.Array) -> Any:
            with jax.default_matmul_precision("highest"):
                return self._model.apply({"frozen": frozen}, images)

        each = max(n for n in range(1, EACH + 1) if len(images) % n == 0)
        if each == len(images):
            return features(images)
        parts = jax.lax.map(features, images.reshape(-1, each, *images.shape[1:]))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)


def card_of(config: Any, where: str, key: str) -> dict[str, Any]:
    """Return what a number of a network's features needs beside it to be compared with another.

    No network is made for it. Arguments and errors as of `Extractor`.

    weights: {network: the first 16 digits of the sha256 of its arrays, or "random"}.
    """
    name, model, pretrained = _network_of(config, key)
    files = {
        file: "random" if where == "random" else weights.digest(where, file)
        for file in pretrained.values()
    }
    return {"name": name, "resize": model.resize, "weights": files}


def networks_of_width(width: int) -> list[str]:
    """Return the networks that have so many pooled features. None is computed or read."""
    image = jnp.zeros((1, 64, 64, 3), jnp.uint8)

    def made(name: str) -> Any:
        model = _network_of(name, "features")[1]
        return jax.eval_shape(lambda key: model.init_with_output(key, image)[0], jax.random.key(0))

    names = build.having("features", ["Features"])
    return [name for name in names if made(name)["pooled"].shape[1] == width]


def _network_of(config: Any, key: str) -> tuple[str, Any, dict[str, str]]:
    """Return the name of a network, its linen module, and its module's PRETRAINED."""
    keys = {"name": config} if isinstance(config, str) else build.plain(config)
    model = build.build("features", "Features", keys, key)
    names = build.contract(FeaturesModule)
    return keys["name"], model, build.module("features", keys["name"], key, *names).PRETRAINED


def several(features: Sequence[Any] | str) -> Sequence[Any]:
    """Return several networks' configs; in a text they are names with commas between them."""
    return features.split(",") if isinstance(features, str) else features


def extractors(
    features: Sequence[Any] | str, where: str, key: str, device_mesh: Mesh | None
) -> list[Extractor]:
    """Return the Extractors of several networks, whose numbers have different names.

    Arguments as of `Extractor`.

    features: several of its `config`, see `several`.

    Raises InputError if one is named twice.
    """
    made = [Extractor(one, where, key, device_mesh) for one in several(features)]
    names = [one.network for one in made]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{key} names {name!r} twice, and their numbers have one name")
    return made
