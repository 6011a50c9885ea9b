"""Metrics: what the field counts of features and images, as functions of NumPy arrays.

No network, no file of images and no JAX is here: a caller computes features [N,F], and gets
numbers. Statistics are in float64, and work is cut into chunks of bounded memory (`chunks`).
Generated ones come first, real ones second, where a function has both.

Of features of any network (of Inception's alone they are called FID, sFID, IS and KID):
frechet: `Moments` of a stream, the `Gaussian` of them, and `frechet_distance`: FID, and sFID.
references: Gaussians on disk, in the files of pytorch-fid, clean-fid and ADM.
inception_score: IS, of logits.
kernel: KID, the polynomial MMD^2 over all, and the RBF MMD^2 of CMMD.
manifold: precision and recall, density and coverage.

Of images uint8 [N,H,W,3] and labels int [N], without a network:
classifier: whether samples are of their class, to a classifier of real images.
spread: whether samples of one class vary as real ones do.
nearest: whether samples are copies of training images.
pixels: images averaged down to few numbers, and the Frechet distance of these.

To add one, write a module with a function that takes arrays, checks them by
`chunks.checked_features` or `pixels.check_images`, walks over large ones by `chunks.slices` or
`chunks.tiles`, and returns a float or a named tuple of them. Its docstring gives shapes, dtypes,
ranges, errors, and the paper and its section. Its test has a case whose answer is known in closed
form, and the original's recorded numbers where there are any. What names a number in a run, and
computes the features, is an evaluator (`evqgan.evals`).
"""
