r"""The official recipe: ContextSSL on 3DIEBench, rotation and color (the paper's Tables 1 and 2).

    python -m contextssl_jax.data.prepare --dataset=3diebench --source=3DIEBench --out=FOLDER
    python -m contextssl_jax.main --config=3diebench_rotation_color \
        --config.bench3d.path=FOLDER

Data: https://dl.fbaipublicfiles.com/SIE/3DIEBench.tar.gz (17 GB, CC BY-NC), unpacked, and into its
folder the four lists {train,val}_{images,labels}.npy from the folder data of
github.com/facebookresearch/SIE. The first command decodes the 2.6 million JPEGs once, into at most
129 GB. The path may also be the unpacked folder: its views are then decoded each time that
they are drawn, 1,024 a step, which python -m contextssl_jax.benchmarks.pipeline measures.

ResNet-18 with the ImageNet stem (11 M parameters) and a context transformer of width 2048 (153 M),
512 pairs a step, 82,000 steps: 1,000 epochs of the 41,920 train objects.

Hardware: one GPU or TPU chip with at least 16 GB, or several (`data.contexts` is split over them),
by --mode=plan; 32 GB of memory for the report. It compiles for an H100 and a TPU v5e by their
compilers (results/compiled); it has not yet run on one, so the time is not yet measured.
Expected numbers: the paper's Table 1 reports R2 .744 for rotation and .046 for color after 126
tokens of the rotation context, .986 for color and .344 for rotation after the color context, and
80.4 % linear accuracy; Table 2, MRR .402 and H@1 .292. No full run of this file has been made yet.

As in the official code: encoder, transformer, predictor, losses, masks, environments, optimizer,
rates, and the parameters and actions of rotations and hues in their own units
(tests/test_official_training.py repeats four of its steps). Different: bfloat16 replaces float16, a
batch may cross the end of an epoch, and the report has other views, probe steps and splits.
3diebench_rotation_color_standardized.py standardizes parameters and actions.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import bench3d


def get_config() -> ConfigDict:
    """Return the options."""
    return bench3d.rotation_color()
