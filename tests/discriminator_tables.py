"""Tables of weight names: the discriminators of the original implementations -> ours."""

from evqgan.convert.mapping import Row

# google-research/maskgit, nets/discriminator.py, flattened with "/" -> losses/maskgit.py
MASKGIT = (
    Row("Conv_0/kernel", "params/conv_in/kernel"),
    Row("Conv_0/bias", "params/conv_in/bias"),
    Row("ResBlock_{i}/Conv_0/kernel", "params/block{i}/conv1/kernel"),
    Row("ResBlock_{i}/Conv_0/bias", "params/block{i}/conv1/bias"),
    Row("ResBlock_{i}/Conv_1/kernel", "params/block{i}/skip/kernel"),
    Row("ResBlock_{i}/Conv_2/kernel", "params/block{i}/conv2/kernel"),
    Row("ResBlock_{i}/Conv_2/bias", "params/block{i}/conv2/bias"),
    Row("Conv_1/kernel", "params/conv_out/kernel"),
    Row("Conv_1/bias", "params/conv_out/bias"),
    Row("Dense_0/kernel", "params/hidden/kernel"),
    Row("Dense_0/bias", "params/hidden/bias"),
    Row("Dense_1/kernel", "params/logits/kernel"),
    Row("Dense_1/bias", "params/logits/bias"),
)

# enhancing-transformers, losses/layers.py, StyleDiscriminator -> losses/stylegan.py
STYLEGAN = (
    Row("blocks.0.0.weight", "params/conv_in/kernel", "conv"),
    Row("blocks.0.1.bias", "params/conv_in/bias"),
    Row("blocks.{i}.conv1.0.weight", "params/block{i}/conv1/kernel", "conv"),
    Row("blocks.{i}.conv1.1.bias", "params/block{i}/conv1/bias"),
    Row("blocks.{i}.conv2.1.weight", "params/block{i}/conv2/kernel", "conv"),
    Row("blocks.{i}.conv2.2.bias", "params/block{i}/conv2/bias"),
    Row("blocks.{i}.skip.1.weight", "params/block{i}/skip/kernel", "conv"),
    Row("final_conv.0.weight", "params/conv_out/kernel", "conv"),
    Row("final_conv.1.bias", "params/conv_out/bias"),
    Row("final_linear.0.weight", "params/hidden/kernel", "dense"),
    Row("final_linear.0.bias", "params/hidden/bias"),
    Row("final_linear.1.weight", "params/logits/kernel", "dense"),
    Row("final_linear.1.bias", "params/logits/bias"),
)
STYLEGAN_IGNORED = (r"\.kernel$",)  # the fixed blur [1,3,3,1]

PATCHGAN_IGNORED = (r"\.num_batches_tracked$", r"\.initialized$")


def patchgan(layers=3, norm="batch"):
    """The table of taming-transformers' (and RQ-VAE's) NLayerDiscriminator.

    It goes to losses/patchgan.py, with PATCHGAN_IGNORED. Its layers are numbered through: 0 conv, 1
    activation, then conv, norm, activation for each of `layers`, then conv.
    """
    rows = [*_conv("main.0", "conv0", bias=True)]
    for i in range(1, layers + 1):
        theirs, ours = f"main.{3 * i}", f"norm{i}"
        rows += _conv(f"main.{3 * i - 1}", f"conv{i}", bias=norm == "act")
        if norm == "act":
            rows += [
                Row(f"{theirs}.{name}", f"params/{ours}/{name}", "conv")
                for name in ("loc", "scale")
            ]
        else:
            rows += [
                Row(f"{theirs}.weight", f"params/{ours}/scale"),
                Row(f"{theirs}.bias", f"params/{ours}/bias"),
                Row(f"{theirs}.running_mean", f"batch_stats/{ours}/mean"),
                Row(f"{theirs}.running_var", f"batch_stats/{ours}/var"),
            ]
    return (*rows, *_conv(f"main.{3 * layers + 2}", "logits", bias=True))


def _conv(theirs, ours, bias):
    kernel = Row(f"{theirs}.weight", f"params/{ours}/kernel", "conv")
    return (kernel, Row(f"{theirs}.bias", f"params/{ours}/bias")) if bias else (kernel,)
