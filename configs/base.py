"""Every option with its default, range and unit; other configs change some of these.

`resume=FREE` marks options that may change when a run is resumed; see docs/training.md.
"""

from contextssl_jax.options import (
    EXTENDS,
    FREE,
    SAME_GRADIENT,
    Options,
    choice,
    integer,
    integers,
    names,
    number,
    numbers,
    probability,
    switch,
    text,
)


def get_config() -> Options:
    """Return the defaults: those of the paper and the official code where known."""
    config = Options()
    # Decides everything random: order, views, environments, masks, weights.
    config.seed = integer(0, 0, 2**32 - 1)
    config.method = text("contextssl")  # a name in methods.METHODS

    # Transformation groups. Image groups, names in transforms.GROUPS, act on the images of any data
    # set, each with a section of its own name below. 3D data sets have the groups of
    # transforms.SCENE_GROUPS as well, with the section `scene`; there, "color" is the hues of floor
    # and light. (Color jitter on 3D data sets: register it under another name, as own_group.py.)
    config.groups = names(("crop", "blur"), least=1)  # conditioned groups: predicted and evaluated
    # Groups that vary between views, but are no condition, target or measure, such as "flip".
    config.unconditioned_transforms = names(())
    # Groups whose actions a context observes: names joined by "+", or "none".
    config.environments = names(("crop", "blur"), least=1)

    config.data = data = Options()
    data.name = text("cifar10")  # a name in data.DATASETS
    data.dir = text(None, resume=FREE)  # folder of prepared data sets; else TFDS_DATA_DIR
    data.contexts = integer(8, 1, 16_384)  # B, contexts in a global batch, sharded over all devices
    data.pairs = integer(64, 2, 16_384)  # K, pairs of views in a context: 2 K tokens
    # One environment sampled per "context" or per "batch" (official code); or "all": views are
    # encoded once, and the context transformer runs in every environment.
    data.environment_per = choice("all", "context", "batch")
    data.threads = integer(4, 1, 1024, resume=FREE)  # threads that make batches
    data.prefetch = integer(4, 1, 1024, resume=FREE)  # prefetched batches
    # Keep the train split's images on every device, and send indices instead of images: the same
    # steps with less traffic. For images in memory: cifar10, folder, tfds, synthetic.
    data.on_device = switch(False, resume=FREE)

    config.synthetic = synthetic = Options()  # the data set of that name
    synthetic.side = integer(16, 1, 1024)  # side of the images, pixels
    synthetic.train = integer(256, 1, 100_000)  # records of the train split
    synthetic.test = integer(128, 1, 100_000)  # records of the test split

    config.folder = folder = Options()  # the data set of that name: the user's images
    folder.path = text(None, resume=FREE)  # folder, searched recursively; required
    # Side that the central square of each image is resized to, pixels.
    folder.side = integer(64, 1, 4096)
    # Fraction of the images in the test split, chosen by a hash of their paths.
    folder.test = number(0.1, above=0, below=1)
    folder.labels = switch(False)  # whether the folders directly in `path` are the classes

    config.tfds = tfds = Options()  # the data set of that name: any of TFDS with images
    tfds.name = text("cifar100")  # name in TFDS
    tfds.train = text("train")  # TFDS split of the train split, or a slice such as "train[:90%]"
    tfds.test = text("test")  # TFDS split of the test split
    # Side that the central square of each image is resized to, pixels; unset, images are unchanged.
    tfds.side = integer(None, 1, 4096)

    config.crop = crop = Options()
    # Range of the box's area, as a fraction of the frame's.
    crop.scale = numbers((0.2, 1.0), above=0, high=1, ascending=True)
    # Range of the box's width / height.
    crop.ratio = numbers((3 / 4, 4 / 3), above=0, ascending=True)
    crop.padding = integer(0, 0, 4096)  # pixels of padding around the image, which boxes may cover
    crop.fill = numbers((0.4914, 0.4822, 0.4465), 0, 1)  # color of the padding, in [0, 1]

    config.blur = blur = Options()
    blur.sigma = numbers((0.1, 2.0), 0, ascending=True)  # range of the Gaussian's width, pixels
    blur.taps = integer(9, 1, 8191, odd=True)  # width of the kernel, pixels, odd
    blur.probability = probability(1.0)  # probability that a view is blurred

    config.color = color = Options()
    color.brightness = number(0.4, 0)  # half-width of the factor's range around 1
    color.contrast = number(0.4, 0)  # likewise
    color.saturation = number(0.4, 0)  # likewise
    color.hue = number(0.1, 0, 0.5)  # maximum shift, turns
    color.probability = probability(1.0)  # probability that a view is jittered

    config.flip = flip = Options()
    flip.probability = probability(0.5)  # probability that a view is mirrored

    config.objects3d = objects3d = Options()  # the data set of that name
    objects3d.classes = integer(24, 1, 10_000)  # classes of objects
    objects3d.train = integer(10_000, 1)  # objects of the train split
    objects3d.test = integer(1_000, 1)  # objects of the test split
    objects3d.side = integer(64, 1, 4096)  # side of the images, pixels
    # Rays per pixel along each axis; edges are smooth even at 1.
    objects3d.samples = integer(1, 1, 64)
    # Views of each train object that are rendered once and reused; 0 renders every view on demand.
    objects3d.pool = integer(0, 2, 4096, zero=True)

    config.bench3d = bench3d = Options()  # the data set "3diebench"
    bench3d.path = text(None, resume=FREE)  # prepared data, or unpacked archive; required
    # Folder of the official lists of an unpacked archive; unset, `path` or its folder data.
    bench3d.lists = text(None, resume=FREE)
    bench3d.side = integer(128, 1, 4096)  # side of the (resized) views, pixels

    config.scene = scene = Options()  # the scene groups of 3D data sets
    # Maximum rotation about each of three axes, degrees.
    scene.angle = number(90.0, above=0, high=90)
    # Of the two quaternions of a relative rotation, the one with w >= 0.
    scene.canonical = switch(True)
    # Hues as cosine and sine on the "circle", which is learned faster; or "linear" (official).
    scene.hue = choice("circle", "linear")

    config.model = model = Options()
    model.encoder = text("resnet18")  # a name in models.ENCODERS
    # Of the arithmetic: "float32" or "bfloat16"; parameters are float32.
    model.dtype = choice("float32", "bfloat16")
    # Of the train step's matrix products and convolutions: "highest" (float32 is float32), "high",
    # or "default" (float32 is TF32 on NVIDIA GPUs, bfloat16 on TPUs). Unset: "highest" for float32,
    # "default" for bfloat16. CPUs always compute float32.
    model.precision = choice(None, "highest", "high", "default")
    # Standardize actions, and scale them for the transformer; False uses them as they are, as the
    # official code does.
    model.standardize_actions = switch(True, before=True)
    # Root-mean-square norm of each group's action at the transformer's read-in. The features have
    # hundreds of entries: at 1, actions drown in them and adaptation takes far longer to emerge.
    model.action_scale = number(14.0, above=0)
    # Keep only what enters a block of the encoder or the transformer for the backward pass, which
    # computes the rest again: less memory (on CPUs since jax 0.11), more time, the same results to
    # rounding.
    model.remat = switch(False, resume=FREE)
    model.resnet = Options()
    # "cifar", 3x3; or "imagenet", 7x7 and max-pool, stride 4.
    model.resnet.stem = choice("cifar", "imagenet")
    model.resnet.width = integer(64, 1, 8192)  # channels of the first stage
    # Compute the stem and the first stage of the train step with pairs of columns packed into
    # channels, which fill the lanes of a TPU: the same parameters, and results to rounding. For the
    # stem "cifar" and basic blocks. "auto": on TPU v5e and v5p, in bfloat16 with 64 channels.
    model.resnet.pack = choice("auto", "always", "never", resume=FREE)
    model.patch = Options()
    model.patch.size = integer(4, 1, 1024)  # side of a patch, pixels
    # Channels of the stem and of the strided convolution.
    model.patch.widths = integers((48, 96), 1, 65_536, length=2)
    model.patch.blocks = integer(1, 1, 1024)  # residual blocks
    model.patch.features = integer(384, 1, 65_536)  # F
    model.transformer = Options()
    model.transformer.width = integer(2048, 1, 65_536)  # of the residual stream
    model.transformer.blocks = integer(3, 1, 1024)
    model.transformer.heads = integer(4, 1, 1024)
    model.transformer.outputs = integer(512, 1, 65_536)  # P, entries of an embedding
    # Deviation of initial weights: about 1 / sqrt(width).
    model.transformer.initial = number(0.02, above=0)
    model.predictor = Options()
    model.predictor.hidden = integers((1024, 1024), 1, 65_536)  # widths of its hidden layers
    model.projector = Options()  # of the methods without a context transformer
    # Of its layers; the last is P.
    model.projector.widths = integers((2048, 2048, 2048), 1, 65_536, least=1)
    # Where an action takes a projection: "linear" (SEN, EquiMod) or "hypernetwork" (SIE).
    model.projector.predictor = choice("linear", "hypernetwork")

    config.loss = loss = Options()
    # All tokens of the batch (official code), or "context" (Eq. 2).
    loss.negatives = choice("batch", "context")
    loss.temperature = number(0.1, above=0)  # of InfoNCE
    loss.clamp = switch(True)  # raise cosines to 1e-7 before InfoNCE, as the official code does
    loss.predictor_weight = number(5.0, 0)  # lambda, of the latent predictor's error
    # Of InfoNCE between projections of the encoder's features, which see no context; its projector
    # has `model.projector.widths`. Not in the paper.
    loss.encoder_weight = number(0.0, 0, before=0.0)
    # Standardize the parameters that it predicts, so that entries count equally; False predicts
    # them in their own units, as the official code does.
    loss.standardize_targets = switch(True, before=True)
    # Of EquiMod's contrast and of SIE's error of predicted targets.
    loss.equivariance_weight = number(1.0, 0)
    loss.invariance_weight = number(10.0, 0)  # of VICReg's and SIE's squared distance of the views
    loss.variance_weight = number(10.0, 0)  # of theirs against collapse
    loss.covariance_weight = number(1.0, 0)  # of theirs against redundancy

    config.mask = mask = Options()
    mask.probability = probability(0.9)  # that a token does not see an earlier pair
    # Where set, each row draws its own probability from [probability_low, probability].
    mask.probability_low = probability(None)
    mask.per_layer = switch(True)  # draw masks anew in every block (official code), or once
    # Draw masks for every context, or once per batch (official code).
    mask.per_context = switch(False)
    # "causal": tokens attend to all earlier pairs (the paper); "set": the first pairs, of a number
    # drawn for every context, attend to themselves alone, and all later pairs to these. The order
    # of the set has no effect.
    mask.context = choice("causal", "set", before="causal")
    mask.hide_own_x = switch(True)  # y tokens do not see their own x; False is an ablation

    config.supervised = supervised = Options()  # the method of that name
    supervised.group = text("rotation")  # whose contexts shift the labels
    supervised.shift = integer(10, 1, 10_000)  # that is added to them

    config.train = train = Options()
    train.steps = integer(100_000, 1, resume=EXTENDS)  # of the whole run
    # Weights that a new run starts from: a workdir, or a file that contextssl_jax.convert writes or
    # reads. A resumed run has its own.
    train.init_from = text(None, resume=FREE)
    train.init_part = choice("all", "encoder", resume=FREE)  # of these weights
    train.optimizer = choice("adam", "adamw")  # "adam" with coupled L2 (official code), or "adamw"
    train.learning_rate = number(1e-4, above=0)  # peak
    # Of linear warm-up from 0; then cosine to 0 at the last step. A tenth of `steps` if not below.
    train.warmup_steps = integer(1000, 0)
    # L2 of the gradient for "adam", decay for "adamw"; all parameters.
    train.weight_decay = number(1e-3, 0)
    train.beta1 = number(0.9, 0, below=1)  # decay of the first moment
    train.beta2 = number(0.999, 0, below=1)  # decay of the second moment
    train.clip = number(0.0, 0)  # largest norm of the gradient; 0 is no limit
    # Parts that each device takes its contexts in, one after the other: the memory of a part. The
    # gradient is that of the whole batch only with loss.negatives="context" and without batch
    # statistics, of an encoder or a projector, or of what VICReg and SIE ask of embeddings; else
    # negatives and statistics are those of a part (on all devices).
    train.accumulate_steps = integer(1, 1, 16_384, resume=SAME_GRADIENT)
    # "jit", "pmap", "shard_map"; auto: jit on one device, else shard_map.
    train.parallel = choice("auto", "jit", "pmap", "shard_map", resume=FREE)
    # Under shard_map, split parameters, moments and their update over the devices (ZeRO-1): less
    # memory and time, the same results to rounding. jit and pmap do not split them.
    train.shard_optimizer = switch(True, resume=FREE)
    # In which devices exchange gradients: "float32", or half the bytes in "bfloat16".
    train.gradient_dtype = choice("float32", "bfloat16", before="float32")

    config.checkpoint = checkpoint = Options()
    # Steps between saves; the last step is saved too.
    checkpoint.every = integer(1000, 1, resume=FREE)
    checkpoint.keep = integer(2, 1, resume=FREE)  # newest checkpoints that stay

    config.log = log = Options()
    # Steps between lines; each line is the mean over the steps since the last.
    log.every = integer(50, 1, resume=FREE)
    log.tensorboard = switch(True, resume=FREE)  # write event files to workdir/tensorboard
    # Write to Weights & Biases, the extra `wandb`; offline without a login or a network.
    log.wandb = switch(False, resume=FREE)

    # Every so often, on held-out data: does the model adapt to its context? The loss does not say.
    config.monitor = monitor = Options()
    # Steps between runs of the monitor; 0 disables it.
    monitor.every = integer(5000, 1, zero=True, resume=FREE)
    # Of the train split, that probes are fitted on.
    monitor.fit_views = integer(4000, 1, resume=FREE)
    monitor.test_views = integer(2000, 1, resume=FREE)  # of the test split, that they are scored on
    # Of other records of the test split, that R² is averaged over.
    monitor.contexts = integer(8, 1, 16_384, resume=FREE)
    # Of the ridge probe, relative to the features' variance.
    monitor.penalty = number(0.1, above=0, resume=FREE)
    monitor.neighbours = integer(20, 1, resume=FREE)  # of the kNN classifier

    # --mode=eval, and every so often in training: the report of a checkpoint. None of these
    # options changes what is trained.
    config.eval = evaluation = Options()
    # Steps between reports in training, and at its end; 0 is never.
    evaluation.every = integer(0, 1, zero=True, resume=FREE)
    # Of the arithmetic of reports and of the monitor, whatever the training's; its products have
    # the highest precision.
    evaluation.dtype = choice("float32", "bfloat16", resume=FREE)
    # Decides views, contexts and probes, whatever the run's own seed.
    evaluation.seed = integer(0, 0, 2**32 - 1, resume=FREE)
    # That contexts show; empty: each group, all groups, "none".
    evaluation.environments = names((), resume=FREE)
    # Of contexts, tokens: two a pair.
    evaluation.lengths = integers((0, 2, 14, 30, 126), 0, 65_536, least=1, even=True, resume=FREE)
    # Contexts drawn; of several, figures are the mean and the deviation.
    evaluation.draws = integer(1, 1, 10_000, resume=FREE)
    # Draw several "contexts", or several "orders" of the pairs of one.
    evaluation.draws_of = choice("contexts", "orders", resume=FREE)
    # That contexts are drawn from, or "test".
    evaluation.context_split = choice("train", "test", resume=FREE)
    # Attention within contexts, see mask.context; unset, as in training.
    evaluation.context_mask = choice(None, "causal", "set", resume=FREE)
    # Round embeddings to multiples of this, in units of 1 / sqrt(P), and scale them to length 1: at
    # 1, what is squeezed into a small variance is erased. 0 does not round.
    evaluation.rounding = number(0.0, 0, 4, resume=FREE)
    # Read contexts as sparsely as in training: else a long context is more than was ever seen.
    evaluation.sparse = switch(False, resume=FREE)
    # Of the train split, two views each, to fit probes on.
    evaluation.fit_records = integer(10_000, 1, resume=FREE)
    # Of the test split, two views each, to score them on.
    evaluation.test_records = integer(2_000, 1, resume=FREE)
    # Untouched images of each split for classification from features; unset, all of them.
    evaluation.images = integer(None, 1, resume=FREE)
    evaluation.batch = integer(256, 1, 1_048_576, resume=FREE)  # views at once, over all devices
    evaluation.probe = probe = Options()
    # Penalty of a ridge probe, relative to the embeddings' variance.
    probe.weak = number(0.001, above=0, resume=FREE)
    probe.strong = number(0.1, above=0, resume=FREE)  # of another
    # Widths of the MLP probe's hidden layers.
    probe.hidden = integers((256,), 1, 65_536, resume=FREE)
    probe.steps = integer(2_000, 1, resume=FREE)  # of Adam, for all trained probes
    probe.batch = integer(256, 1, 1_048_576, resume=FREE)  # records a step
    probe.learning_rate = number(1e-3, above=0, resume=FREE)
    probe.neighbours = integer(20, 1, resume=FREE)  # of the kNN classifier
    evaluation.retrieval = retrieval = Options()
    retrieval.records = integer(100, 1, resume=FREE)  # of the test split
    retrieval.views = integer(50, 5, 4096, resume=FREE)  # V, of each record
    # Leave the query's own view out; the official code does not.
    retrieval.exclude_source = switch(False, resume=FREE)
    return config
