"""Run by a Python that has torch-fidelity 0.4, which this project does not depend on.

python torch_fidelity_yardstick.py WEIGHTS FOLDER FOLDER

Writes random weights of FID's InceptionV3 into the file WEIGHTS, under the names of the public
file, and prints as one line of JSON what torch-fidelity says of the images in the two folders.
"""

import json
import pathlib
import sys
import types

try:
    import torchvision  # noqa: F401
except Exception:  # it is imported for data sets and other networks, which nothing here uses
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms.functional"):
        stand_in = sys.modules[name] = types.ModuleType(name)
        stand_in.CIFAR10 = stand_in.CIFAR100 = stand_in.STL10 = object
    sys.modules["torchvision.transforms"] = types.ModuleType("torchvision.transforms")
    sys.modules["torchvision.transforms"].functional = stand_in

import numpy as np
import torch
import torch_fidelity
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def random_weights(file):
    """Write weights of the scale that keeps activations alive, from one seed."""
    torch.save({}, file)
    load = FeatureExtractorInceptionV3.load_state_dict
    FeatureExtractorInceptionV3.load_state_dict = lambda *_, **__: None
    network = FeatureExtractorInceptionV3("names", ["64"], feature_extractor_weights_path=file)
    FeatureExtractorInceptionV3.load_state_dict = load
    torch.manual_seed(0)
    weights = network.state_dict()
    for name, x in weights.items():
        if name.endswith("conv.weight"):
            x.normal_(0, (2 / x[0].numel()) ** 0.5)
        elif name.endswith(("bn.bias", "bn.running_mean")):
            x.normal_(0, 0.1)
        elif name.endswith(("bn.weight", "bn.running_var")):
            x.uniform_(0.5, 1.5)
        elif name.startswith("fc"):
            x.normal_(0, 0.02)
    torch.save(weights, file)


class Folder(torch.utils.data.Dataset):
    """The images of a folder, as torch-fidelity takes them: uint8 [3,H,W]."""

    def __init__(self, folder):
        self.files = sorted(pathlib.Path(folder).iterdir())

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return torch.from_numpy(np.array(Image.open(self.files[index])).transpose(2, 0, 1))


def main(weights, generated, real):
    """Print the metrics of the project that torch-fidelity has, too."""
    random_weights(weights)
    print(
        json.dumps(
            torch_fidelity.calculate_metrics(
                input1=Folder(generated),
                input2=Folder(real),
                cuda=False,
                fid=True,
                isc=True,
                kid=True,
                prc=True,
                feature_extractor="inception-v3-compat",
                feature_layer_prc="2048",
                kid_subset_size=40,
                batch_size=16,
                feature_extractor_weights_path=weights,
                cache=False,
                verbose=False,
            )
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
