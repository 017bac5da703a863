"""Every option with its default and unit; other configs change some of these."""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Return the defaults: those of the paper and the official code where known."""
    config = ConfigDict()
    config.seed = 0  # decides everything random: order, views, environments, masks, weights
    config.method = "contextssl"  # a name in methods.METHODS

    # Transformation groups. Image groups, names in transforms.GROUPS, act on the images of any data
    # set, each with a section of its own name below. 3D data sets have the groups of
    # transforms.SCENE_GROUPS as well, with the section `scene`; there, "color" is the hues of floor
    # and light. (Color jitter on 3D data sets: register it under another name, as own_group.py.)
    config.groups = ("crop", "blur")  # conditioned groups: predicted and evaluated
    # Groups that vary between views, but are no condition, target or measure, such as "flip".
    config.unconditioned_transforms = ()
    # Groups whose actions a context observes: names joined by "+", or "none".
    config.environments = ("crop", "blur")

    config.data = data = ConfigDict()
    data.name = "cifar10"  # a name in data.DATASETS
    data.dir = config_dict.placeholder(str)  # folder of prepared data sets; else TFDS_DATA_DIR
    data.contexts = 8  # B, contexts in a global batch, sharded over all devices
    data.pairs = 64  # K, pairs of views in a context: 2 K tokens
    # One environment sampled per "context" or per "batch" (official code); or "all": views are
    # encoded once, and the context transformer runs in every environment.
    data.environment_per = "all"
    data.threads = 4  # threads that make batches
    data.prefetch = 4  # prefetched batches

    config.synthetic = synthetic = ConfigDict()  # the data set of that name
    synthetic.side = 16  # side of the images, pixels
    synthetic.train = 256  # records of the train split
    synthetic.test = 128  # records of the test split

    config.folder = folder = ConfigDict()  # the data set of that name: the user's images
    folder.path = config_dict.placeholder(str)  # folder, searched recursively; required
    folder.side = 64  # side that the central square of each image is resized to, pixels
    folder.test = 0.1  # fraction of the images in the test split, chosen by a hash of their paths
    folder.labels = False  # whether the folders directly in `path` are the classes

    config.tfds = tfds = ConfigDict()  # the data set of that name: any of TFDS with images
    tfds.name = "cifar100"  # name in TFDS
    tfds.train = "train"  # TFDS split of the train split, or a slice such as "train[:90%]"
    tfds.test = "test"  # TFDS split of the test split
    # Side that the central square of each image is resized to, pixels; unset, images are unchanged.
    tfds.side = config_dict.placeholder(int)

    config.crop = crop = ConfigDict()
    crop.scale = (0.2, 1.0)  # range of the box's area, as a fraction of the frame's
    crop.ratio = (3 / 4, 4 / 3)  # range of the box's width / height
    crop.padding = 0  # pixels of padding around the image, which boxes may cover
    crop.fill = (0.4914, 0.4822, 0.4465)  # color of the padding, in [0, 1]

    config.blur = blur = ConfigDict()
    blur.sigma = (0.1, 2.0)  # range of the Gaussian's width, pixels
    blur.taps = 9  # width of the kernel, pixels, odd
    blur.probability = 1.0  # probability that a view is blurred

    config.color = color = ConfigDict()
    color.brightness = 0.4  # half-width of the factor's range around 1
    color.contrast = 0.4  # likewise
    color.saturation = 0.4  # likewise
    color.hue = 0.1  # maximum shift, turns
    color.probability = 1.0  # probability that a view is jittered

    config.flip = flip = ConfigDict()
    flip.probability = 0.5  # probability that a view is mirrored

    config.objects3d = objects3d = ConfigDict()  # the data set of that name
    objects3d.classes = 24  # classes of objects
    objects3d.train = 10_000  # objects of the train split
    objects3d.test = 1_000  # objects of the test split
    objects3d.side = 64  # side of the images, pixels
    objects3d.samples = 1  # rays per pixel along each axis; edges are smooth even at 1
    # Views of each train object that are rendered once and reused; 0 renders every view on demand.
    objects3d.pool = 0

    config.bench3d = bench3d = ConfigDict()  # the data set "3diebench"
    bench3d.path = config_dict.placeholder(str)  # prepared data, or unpacked archive; required
    # Folder of the official lists of an unpacked archive; unset, `path` or its folder data.
    bench3d.lists = config_dict.placeholder(str)
    bench3d.side = 128  # side of the (resized) views, pixels

    config.scene = scene = ConfigDict()  # the scene groups of 3D data sets
    scene.angle = 90.0  # maximum rotation about each of three axes, degrees
    scene.canonical = True  # of the two quaternions of a relative rotation, the one with w >= 0
    # Hues as cosine and sine on the "circle", which is learned faster; or "linear" (official).
    scene.hue = "circle"

    config.model = model = ConfigDict()
    model.encoder = "resnet18"  # a name in models.ENCODERS
    model.dtype = "float32"  # of the arithmetic: "float32" or "bfloat16"; parameters are float32
    # Root-mean-square norm of each group's action at the transformer's read-in. The features have
    # hundreds of entries: at 1, actions drown in them and adaptation takes far longer to emerge.
    model.action_scale = 14.0
    # Keep only what enters a block of the encoder or the transformer for the backward pass, which
    # computes the rest again: less memory (on CPUs since jax 0.11), more time, the same results to
    # rounding.
    model.remat = False
    model.resnet = ConfigDict()
    model.resnet.stem = "cifar"  # "cifar", 3x3; or "imagenet", 7x7 and max-pool, stride 4
    model.resnet.width = 64  # channels of the first stage
    model.patch = ConfigDict()
    model.patch.size = 4  # side of a patch, pixels
    model.patch.widths = (48, 96)  # channels of the stem and of the strided convolution
    model.patch.blocks = 1  # residual blocks
    model.patch.features = 384  # F
    model.transformer = ConfigDict()
    model.transformer.width = 2048  # of the residual stream
    model.transformer.blocks = 3
    model.transformer.heads = 4
    model.transformer.outputs = 512  # P, entries of an embedding
    model.transformer.initial = 0.02  # deviation of initial weights: about 1 / sqrt(width)
    model.predictor = ConfigDict()
    model.predictor.hidden = (1024, 1024)  # widths of its hidden layers
    model.projector = ConfigDict()  # of the methods without a context transformer
    model.projector.widths = (2048, 2048, 2048)  # of its layers; the last is P
    # Where an action takes a projection: "linear" (SEN, EquiMod) or "hypernetwork" (SIE).
    model.projector.predictor = "linear"

    config.loss = loss = ConfigDict()
    loss.negatives = "batch"  # all tokens of the batch (official code), or "context" (Eq. 2)
    loss.temperature = 0.1  # of InfoNCE
    loss.clamp = True  # raise cosines to 1e-7 before InfoNCE, as the official code does
    loss.predictor_weight = 5.0  # lambda, of the latent predictor's error
    loss.equivariance_weight = 1.0  # of EquiMod's contrast and of SIE's error of predicted targets
    loss.invariance_weight = 10.0  # of VICReg's and SIE's squared distance of the views
    loss.variance_weight = 10.0  # of theirs against collapse
    loss.covariance_weight = 1.0  # of theirs against redundancy

    config.mask = mask = ConfigDict()
    mask.probability = 0.9  # that a token does not see an earlier pair
    # Where set, each row draws its own probability from [probability_low, probability].
    mask.probability_low = config_dict.placeholder(float)
    mask.per_layer = True  # draw masks anew in every block (official code), or once
    mask.per_context = False  # draw masks for every context, or once per batch (official code)
    mask.hide_own_x = True  # y tokens do not see their own x; False is an ablation

    config.supervised = supervised = ConfigDict()  # the method of that name
    supervised.group = "rotation"  # whose contexts shift the labels
    supervised.shift = 10  # that is added to them

    config.train = train = ConfigDict()
    train.steps = 100_000  # of the whole run
    # Weights that a new run starts from: a workdir, or a file that contextssl_jax.convert writes or
    # reads. A resumed run has its own.
    train.init_from = config_dict.placeholder(str)
    train.init_part = "all"  # of these weights, or "encoder"
    train.optimizer = "adam"  # "adam" with coupled L2 (official code), or "adamw"
    train.learning_rate = 1e-4  # peak
    train.warmup_steps = 1000  # of linear warm-up from 0; then cosine to 0 at the last step
    train.weight_decay = 1e-3  # L2 of the gradient for "adam", decay for "adamw"; all parameters
    train.beta1 = 0.9  # decay of the first moment
    train.beta2 = 0.999  # decay of the second moment
    train.clip = 0.0  # largest norm of the gradient; 0 is no limit
    # Parts that each device takes its contexts in, one after the other: the memory of a part. The
    # gradient is that of the whole batch only with loss.negatives="context" and without batch
    # statistics, of an encoder or a projector, or of what VICReg and SIE ask of embeddings; else
    # negatives and statistics are those of a part (on all devices).
    train.accumulate_steps = 1
    train.parallel = "auto"  # "jit", "pmap", "shard_map"; auto: jit on one device, else pmap

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every = 1000  # steps between saves; the last step is saved too
    checkpoint.keep = 2  # newest checkpoints that stay

    config.log = log = ConfigDict()
    log.every = 50  # steps between lines; each line is the mean over the steps since the last
    log.tensorboard = True  # write event files to workdir/tensorboard

    # Every so often, on held-out data: does the model adapt to its context? The loss does not say.
    config.monitor = monitor = ConfigDict()
    monitor.every = 5000  # steps between runs of the monitor; 0 disables it
    monitor.fit_views = 4000  # of the train split, that probes are fitted on
    monitor.test_views = 2000  # of the test split, that they are scored on
    monitor.contexts = 8  # of the test split, that R² is averaged over
    monitor.penalty = 0.1  # of the ridge probe, relative to the features' variance
    monitor.neighbours = 20  # of the kNN classifier

    # --mode=eval, and every so often in training: the report of a checkpoint. None of these
    # options changes what is trained.
    config.eval = evaluation = ConfigDict()
    evaluation.every = 0  # steps between reports in training, and at its end; 0 is never
    evaluation.seed = 0  # decides views, contexts and probes, whatever the run's own seed
    evaluation.environments = ()  # that contexts show; empty: each group, all groups, "none"
    evaluation.lengths = (0, 2, 14, 30, 126)  # of contexts, tokens: two a pair
    evaluation.draws = 1  # contexts drawn; of several, figures are the mean and the deviation
    evaluation.context_split = "train"  # that contexts are drawn from, or "test"
    # Read contexts as sparsely as in training: else a long context is more than was ever seen.
    evaluation.sparse = False
    evaluation.fit_records = 10_000  # of the train split, two views each, to fit probes on
    evaluation.test_records = 2_000  # of the test split, two views each, to score them on
    # Untouched images of each split for classification from features; unset, all of them.
    evaluation.images = config_dict.placeholder(int)
    evaluation.batch = 256  # views at once, over all devices
    evaluation.probe = probe = ConfigDict()
    probe.weak = 0.001  # penalty of a ridge probe, relative to the embeddings' variance
    probe.strong = 0.1  # of another
    probe.hidden = (256,)  # widths of the MLP probe's hidden layers
    probe.steps = 2_000  # of Adam, for all trained probes
    probe.batch = 256  # records a step
    probe.learning_rate = 1e-3
    probe.neighbours = 20  # of the kNN classifier
    evaluation.retrieval = retrieval = ConfigDict()
    retrieval.records = 100  # of the test split
    retrieval.views = 50  # V, of each record
    retrieval.exclude_source = False  # leave the query's own view out; the official code does not
    return config
